"""Convolutions, pooling and dense layers: the usual network for regulatory sequences."""

from flax import nnx
from ml_collections import ConfigDict

from jaxdna.errors import UserError
from jaxdna.models.image_cnn import dense_layers, sizes_of
from jaxdna.models.network import Network, Shape
from jaxdna.models.sequence_layers import ConvBlock, GlobalMax


def deep_cnn(config: ConfigDict, outputs: int, example_shape: Shape, rngs: nnx.Rngs) -> Network:
    """Builds blocks of [convolution, normalisation, ReLU, pooling], their maximum, dense layers.

    Shaped as Basset (Kelley, Snoek and Rinn 2016, Genome Research 26:990) and DeepSTARR (de Almeida
    et al. 2022, Nature Genetics 54:613), with a normalisation that knows one example only, and the
    largest value of each last filter in place of all: where a site lies need not be learnt.

    Args:
      config: `config.model`: filters, width, pool, dense, dropout.
      outputs: numbers for each example.
      example_shape: (length,).
      rngs: source of the initial parameters.

    Raises:
      UserError: the sequence is too short for that many blocks.
    """
    length, channels = example_shape[0], 4
    layers: dict[str, nnx.Module] = {}
    filters = sizes_of(config.filters)
    for block, count in enumerate(filters, start=1):
        length //= config.pool
        if length < 1:
            raise UserError(
                f"--config.model.filters={config.filters} with pool={config.pool} has "
                f"{len(filters)} blocks, but sequences of {example_shape[0]} bases have room for "
                f"only {block - 1}"
            )
        # Later blocks see wider stretches of the sequence with fewer taps.
        width = config.width if block == 1 else config.inner_width
        layers[f"block{block}"] = ConvBlock(width, channels, count, config.pool, rngs=rngs)
        channels = count
    layers["max"] = GlobalMax()
    # The maxima are all positive and much alike in all examples: units with ReLU would die.
    return Network(layers | dense_layers(config, channels, outputs, rngs, nnx.gelu))
