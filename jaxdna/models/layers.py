"""The layers that networks are made of; parameters are Keras' by shape and initial distribution.

A layer computes in the type of its kernel, so whoever hands it bfloat16 parameters gets bfloat16
products.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from jaxdna.models.network import Layer, Shape
from jaxdna.ops.convolution import bias_relu
from jaxdna.ops.max_pool import max_pool
from jaxdna.ops.sharded_convolution import convolve_on_mesh

# Keras' defaults, on which the report's curves rest.
KERNEL_INIT = nnx.initializers.glorot_uniform()
BIAS_INIT = nnx.initializers.zeros_init()

_KERNEL = 3  # rows and columns that an image filter spans


def _same(x: jax.Array) -> jax.Array:
    return x


class Rescaling(Layer):
    """Maps pixels 0..255 to 0..1: images stay one byte a channel until they are used."""

    splits = ()

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps uint8 [batch, ...] to float32 [batch, ...]."""
        return x.astype(jnp.float32) / 255


class Conv2D(Layer):
    """A 3 x 3 convolution, optionally the maximum over squares of it, bias and ReLU.

    ReLU of a sum with the bias grows with the sum, so it may as well come after the maximum: on a
    quarter of the numbers.

    Attributes:
      kernel: float32 [3, 3, channels, filters].
      bias: float32 [filters].
      padding: `SAME` or `VALID`.
      pool: side of the squares; 1 for none.
    """

    splits = ("model", "seq")

    def __init__(self, channels: int, filters: int, padding: str, pool: int, *, rngs: nnx.Rngs):
        """Draws the kernel; the bias starts at zero."""
        self.kernel = nnx.Param(KERNEL_INIT(rngs.params(), (_KERNEL, _KERNEL, channels, filters)))
        self.bias = nnx.Param(BIAS_INIT(rngs.params(), (filters,)))
        self.padding = padding
        self.pool = pool

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps [batch, height, width, channels] to [batch, height', width', filters]."""
        kernel = self.kernel[...]
        sums = convolve_on_mesh(x.astype(kernel.dtype), kernel, self.padding)
        if self.pool > 1:
            sums = max_pool(sums, self.pool)
        return bias_relu(sums, self.bias[...])

    def parts(self, x: Shape, y: Shape) -> list[tuple[str, Shape, bool]]:
        """Shows the two layers that the operation joins where it pools."""
        lost = 0 if self.padding == "SAME" else _KERNEL - 1
        whole = (x[0] - lost, x[1] - lost, y[2])
        pooled = [("MaxPooling2D", y, False)] if self.pool > 1 else []
        return [("Conv2D", whole, True), *pooled]


class Flatten(Layer):
    """All numbers of an example in one row."""

    splits = ()

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps [batch, ...] to [batch, features]."""
        return x.reshape(x.shape[0], -1)


class Dense(Layer):
    """A linear map and what follows it.

    Attributes:
      kernel: float32 [inputs, outputs].
      bias: float32 [outputs].
      activation: of every output.
    """

    splits = ("model",)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        activation: Callable[[jax.Array], jax.Array] = _same,
        *,
        rngs: nnx.Rngs,
    ):
        """Draws the kernel; the bias starts at zero."""
        self.kernel = nnx.Param(KERNEL_INIT(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(BIAS_INIT(rngs.params(), (outputs,)))
        self.activation = activation

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps [batch, inputs] to [batch, outputs]."""
        kernel = self.kernel[...]
        return self.activation(x.astype(kernel.dtype) @ kernel + self.bias[...])


class Dropout(Layer):
    """In training, zeroes a share of the features and scales the others up; else the identity.

    Attributes:
      rate: the share, 0 to below 1.
    """

    splits = ()

    def __init__(self, rate: float):
        """Takes the share."""
        self.rate = rate

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps [batch, ...] to [batch, ...]."""
        if rngs is None or not self.rate:
            return x
        return jnp.where(draw_rows(rngs.dropout(), 1 - self.rate, x), x / (1 - self.rate), 0)


def draw_rows(key: jax.Array, chance: float, x: jax.Array) -> jax.Array:
    """Draws bool of the shape of `x`, each row as the whole batch would draw it.

    Inside `shard_map` a device sees its own rows only; it draws for all and takes its part, so that
    the numbers do not depend on the layout.
    """
    count, first = _own_rows(x)
    drawn = jax.random.bernoulli(key, chance, (count * len(x), *x.shape[1:]))
    return drawn if count == 1 else jax.lax.dynamic_slice_in_dim(drawn, first, len(x))


def even_rows(x: jax.Array) -> jax.Array:
    """Returns which rows of `x` have an even number in the whole batch: bool [rows]."""
    return (_own_rows(x)[1] + jnp.arange(len(x))) % 2 == 0


def _own_rows(x: jax.Array) -> tuple[int, jax.Array | int]:
    """How many parts of the batch devices see apart, and the number of the first row of this one.

    Outside `shard_map` there is one part, the whole batch.
    """
    # Only the axes of the batch split rows; the others have all the same rows.
    manual = jax.sharding.get_abstract_mesh().manual_axes
    shards = tuple(axis for axis in manual if axis not in ("member", "stage", "seq", "model"))
    if not shards:
        return 1, 0
    count = math.prod(jax.lax.axis_size(axis) for axis in shards)
    return count, jax.lax.axis_index(shards) * len(x)
