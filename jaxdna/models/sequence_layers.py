"""Layers of the deeper networks for sequences."""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxdna.models.layers import BIAS_INIT, KERNEL_INIT
from jaxdna.models.network import Layer
from jaxdna.ops.largest import largest
from jaxdna.ops.one_hot import one_hot
from jaxdna.ops.sequence_convolution import convolve_along, mean_along

_EPSILON = 1e-5


def normalised(
    x: jax.Array, scale: jax.Array, bias: jax.Array, axes: tuple[int, ...] = (-1,)
) -> jax.Array:
    """Brings numbers to mean 0 and variance 1, in float32 at least, then scales each channel.

    No example is changed by another one of its batch: of each position alone this is layer
    normalisation (Ba, Kiros and Hinton 2016, arXiv 1607.06450), of all positions together group
    normalisation with one group (Wu and He 2018, arXiv 1803.08494), which leaves a site standing
    out from the rest of its sequence.

    Args:
      x: float [batch, length, channels].
      scale: float [channels].
      bias: float [channels].
      axes: what is normalised together.
    """
    exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centred = exact - exact.mean(axis=axes, keepdims=True)
    spread = jax.lax.rsqrt(jnp.mean(centred**2, axis=axes, keepdims=True) + _EPSILON)
    return (centred * spread).astype(x.dtype) * scale + bias


class Convolution(Layer):
    """A convolution that keeps the length, and ReLU.

    Attributes:
      kernel: float32 [width, channels, filters].
      bias: float32 [filters].
    """

    splits = ("seq",)

    def __init__(self, width: int, channels: int, filters: int, *, rngs: nnx.Rngs):
        """Draws the kernel; the bias starts at zero."""
        self.kernel = nnx.Param(KERNEL_INIT(rngs.params(), (width, channels, filters)))
        self.bias = nnx.Param(BIAS_INIT(rngs.params(), (filters,)))

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps codes [batch, length] or [batch, length, channels] to [batch, length, filters]."""
        kernel = self.kernel[...]
        return nnx.relu(convolve_along(one_hot(x, kernel.dtype), kernel) + self.bias[...])


class Residual(Layer):
    """A dilated convolution and ReLU, added to what came in.

    Attributes:
      kernel: float32 [width, filters, filters].
      bias: float32 [filters].
      dilation: distance between two taps.
    """

    splits = ("seq",)

    def __init__(self, width: int, filters: int, dilation: int, *, rngs: nnx.Rngs):
        """Draws the kernel; the bias starts at zero."""
        self.kernel = nnx.Param(KERNEL_INIT(rngs.params(), (width, filters, filters)))
        self.bias = nnx.Param(BIAS_INIT(rngs.params(), (filters,)))
        self.dilation = dilation

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps [batch, length, filters] to the same."""
        kernel = self.kernel[...]
        return x + nnx.relu(convolve_along(x, kernel, self.dilation) + self.bias[...])


class GlobalMean(Layer):
    """The mean over all positions."""

    splits = ("seq",)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps [batch, length, channels] to float32 [batch, channels]."""
        return mean_along(x)


class GlobalMax(Layer):
    """The maximum over all positions."""

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps [batch, length, channels] to [batch, channels]."""
        return largest(x, 1)


class ConvBlock(Layer):
    """A convolution that keeps the length, normalisation, ReLU, and the maximum of each window.

    Attributes:
      kernel: float32 [width, channels, filters].
      bias: float32 [filters], of the normalisation.
      scale: float32 [filters], of the normalisation.
      pool: positions of a window.
    """

    def __init__(self, width: int, channels: int, filters: int, pool: int, *, rngs: nnx.Rngs):
        """Draws the kernel; the normalisation starts as it is."""
        self.kernel = nnx.Param(KERNEL_INIT(rngs.params(), (width, channels, filters)))
        self.bias = nnx.Param(BIAS_INIT(rngs.params(), (filters,)))
        self.scale = nnx.Param(jnp.ones((filters,)))
        self.pool = pool

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps codes [batch, length] or [batch, length, channels] to [batch, windows, filters].

        There are length // pool windows; positions that fill none are left out.
        """
        kernel = self.kernel[...]
        if x.ndim == 2:
            x = one_hot(x, kernel.dtype)
        x = convolve_along(x, kernel)
        x = nnx.relu(normalised(x, self.scale[...], self.bias[...], (1, 2)))
        batch, length, filters = x.shape
        windows = length // self.pool
        x = x[:, : windows * self.pool].reshape(batch, windows, self.pool, filters)
        return largest(x, 2)
