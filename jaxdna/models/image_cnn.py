"""The report's benchmark networks for small images, a convolutional and a dense one."""

import math
from collections.abc import Callable

import jax
from flax import nnx
from ml_collections import ConfigDict

from jaxdna.errors import UserError
from jaxdna.models.layers import Conv2D, Dense, Dropout, Flatten, Rescaling
from jaxdna.models.network import Layer, Network, Shape

_POOL = 2


def image_cnn(config: ConfigDict, outputs: int, example_shape: Shape, rngs: nnx.Rngs) -> Network:
    """Builds blocks of [convolution, convolution without padding, max pooling], then dense layers.

    Args:
      config: `config.model`: filters, padding, dense, dropout.
      outputs: number of logits.
      example_shape: (height, width, channels).
      rngs: source of the initial parameters.

    Raises:
      UserError: the image is too small for that many blocks.
    """
    height, width, channels = example_shape
    layers: dict[str, nnx.Module] = {"rescaling": Rescaling()}
    filters = sizes_of(config.filters)
    lost = 2 if config.padding == "same" else 4
    for block, count in enumerate(filters):
        height, width = (height - lost) // _POOL, (width - lost) // _POOL
        if min(height, width) < 1:
            raise UserError(
                f"--config.model.filters={config.filters} has {len(filters)} blocks, but an image "
                f"of {example_shape[0]} x {example_shape[1]} has room for {block}"
            )
        first, second = f"conv{2 * block + 1}", f"conv{2 * block + 2}"
        layers[first] = Conv2D(channels, count, config.padding.upper(), 1, rngs=rngs)
        layers[second] = Conv2D(count, count, "VALID", _POOL, rngs=rngs)
        channels = count
    layers["flatten"] = Flatten()
    return Network(layers | dense_layers(config, height * width * channels, outputs, rngs))


def mlp(config: ConfigDict, outputs: int, example_shape: Shape, rngs: nnx.Rngs) -> Network:
    """Builds dense layers over all pixels.

    Args:
      config: `config.model`: dense, dropout.
      outputs: number of logits.
      example_shape: of one image.
      rngs: source of the initial parameters.
    """
    layers: dict[str, nnx.Module] = {"rescaling": Rescaling(), "flatten": Flatten()}
    return Network(layers | dense_layers(config, math.prod(example_shape), outputs, rngs))


def sizes_of(text: str) -> list[int]:
    """Returns the integers of a comma-separated text such as `32,64,64`."""
    return [int(part) for part in text.split(",")]


def dense_layers(
    config: ConfigDict,
    features: int,
    outputs: int,
    rngs: nnx.Rngs,
    activation: Callable[[jax.Array], jax.Array] = nnx.relu,
) -> dict[str, Layer]:
    """Returns hidden layers with an activation and dropout, then the linear one for the outputs."""
    layers: dict[str, Layer] = {}
    hidden = sizes_of(config.dense)
    for i, units in enumerate(hidden, start=1):
        layers[f"dense{i}"] = Dense(features, units, activation, rngs=rngs)
        if config.dropout:
            layers[f"dropout{i}"] = Dropout(config.dropout)
        features = units
    layers[f"dense{len(hidden) + 1}"] = Dense(features, outputs, rngs=rngs)
    return layers
