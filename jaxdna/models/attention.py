"""A convolutional stem and a few transformer blocks: pairs of sites that know of each other."""

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from jaxdna.errors import UserError
from jaxdna.models.layers import BIAS_INIT, KERNEL_INIT, Dense, Dropout
from jaxdna.models.network import Layer, Network, Shape
from jaxdna.models.sequence_layers import ConvBlock, GlobalMean, normalised

_WIDEN = 2  # hidden units of a block's own layer, as a multiple of its channels


class Positions(Layer):
    """Adds sines and cosines of the position, so that attention knows distances.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.5.
    """

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps [batch, length, channels] to the same."""
        length, channels = x.shape[1:]
        rates = 10_000.0 ** (-jnp.arange(0, channels, 2) / channels)
        angles = jnp.arange(length)[:, None] * rates
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)[:, :channels]
        return x + waves.astype(x.dtype)


class Transformer(Layer):
    """Attention among all positions, then a layer for each, both added to what came in.

    Normalisation comes first (Xiong et al. 2020, arXiv 2002.04745).

    Attributes:
      heads: how many ways of attending; they share the channels.
      query, key, value, out: float32 [channels, channels].
      widen: float32 [channels, 2 channels]; narrow: its converse; each with a bias.
      scale1, bias1, scale2, bias2: of the normalisations, float32 [channels].
    """

    def __init__(self, channels: int, heads: int, *, rngs: nnx.Rngs):
        """Draws the kernels; the rest starts as it is."""

        def kernel(rows: int, columns: int) -> nnx.Param:
            return nnx.Param(KERNEL_INIT(rngs.params(), (rows, columns)))

        self.heads, wide = heads, _WIDEN * channels
        self.query, self.key = kernel(channels, channels), kernel(channels, channels)
        self.value, self.out = kernel(channels, channels), kernel(channels, channels)
        self.widen, self.narrow = kernel(channels, wide), kernel(wide, channels)
        self.widen_bias = nnx.Param(BIAS_INIT(rngs.params(), (wide,)))
        self.narrow_bias = nnx.Param(BIAS_INIT(rngs.params(), (channels,)))
        self.scale1, self.scale2 = (nnx.Param(jnp.ones((channels,))) for _ in range(2))
        self.bias1, self.bias2 = (nnx.Param(jnp.zeros((channels,))) for _ in range(2))

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps [batch, length, channels] to the same."""
        y = normalised(x, self.scale1[...], self.bias1[...])
        split = (*y.shape[:2], self.heads, -1)
        query, key, value = (
            (y @ kernel[...]).reshape(split) for kernel in (self.query, self.key, self.value)
        )
        attended = jax.nn.dot_product_attention(query, key, value)
        x = x + attended.reshape(x.shape) @ self.out[...]
        y = normalised(x, self.scale2[...], self.bias2[...])
        y = nnx.relu(y @ self.widen[...] + self.widen_bias[...])
        return x + y @ self.narrow[...] + self.narrow_bias[...]


def attention(config: ConfigDict, outputs: int, example_shape: Shape, rngs: nnx.Rngs) -> Network:
    """Builds a stem that pools, transformer blocks, their mean and a linear map.

    Shaped as Enformer is (Avsec et al. 2021, Nature Methods 18:1196), and far smaller.

    Args:
      config: `config.model`: filters, width, pool, blocks, heads, dropout.
      outputs: numbers for each example.
      example_shape: (length,); sequences of any length do that fill a window of the pooling.
      rngs: source of the initial parameters.

    Raises:
      UserError: the heads do not divide the filters, or the sequences are shorter than a window.
    """
    if config.filters % config.heads:
        raise UserError(
            f"--config.model.heads={config.heads} does not divide --config.model.filters="
            f"{config.filters}; legal: a divisor of it"
        )
    if example_shape and example_shape[0] < config.pool:
        raise UserError(
            f"--config.model.pool={config.pool} is longer than the sequences of "
            f"{example_shape[0]} bases; legal: 1 to {example_shape[0]}"
        )
    layers: dict[str, nnx.Module] = {
        "stem": ConvBlock(config.width, 4, config.filters, config.pool, rngs=rngs),
        "positions": Positions(),
    }
    for i in range(1, config.blocks + 1):
        layers[f"block{i}"] = Transformer(config.filters, config.heads, rngs=rngs)
    layers["mean"] = GlobalMean()
    if config.dropout:
        layers["dropout"] = Dropout(config.dropout)
    layers["dense"] = Dense(config.filters, outputs, rngs=rngs)
    return Network(layers)
