"""A residual stack of dilated convolutions: wide reach, and no pooling on the way."""

from flax import nnx
from ml_collections import ConfigDict

from jaxdna.models.layers import Dense
from jaxdna.models.network import Network, Shape
from jaxdna.models.sequence_layers import Convolution, GlobalMean, Residual


def dilated(config: ConfigDict, outputs: int, example_shape: Shape, rngs: nnx.Rngs) -> Network:
    """Builds a stem, residual layers with dilations 2, 4, 8 and so on, their mean, a linear map.

    The body of BPNet (Avsec et al. 2021, Nature Genetics 53:354) with the head of its counts. Each
    output depends on 2^(layers + 2) - 4 + width bases around it at most; positions can be split
    over devices, which exchange halos.

    Args:
      config: `config.model`: filters, width, layers.
      outputs: numbers for each example.
      example_shape: (length,); sequences of any length do.
      rngs: source of the initial parameters.
    """
    del example_shape
    layers: dict[str, nnx.Module] = {
        "stem": Convolution(config.width, 4, config.filters, rngs=rngs)
    }
    for i in range(1, config.layers + 1):
        layers[f"residual{i}"] = Residual(3, config.filters, 2**i, rngs=rngs)
    layers["mean"] = GlobalMean()
    layers["dense"] = Dense(config.filters, outputs, rngs=rngs)
    return Network(layers)
