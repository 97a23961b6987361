"""Networks by name: `model.name` of a config becomes a `Network`."""

from collections.abc import Callable

from flax import nnx
from ml_collections import ConfigDict

from jaxdna.models.motif_cnn import motif_cnn
from jaxdna.models.network import Network

_BUILDERS: dict[str, Callable[[ConfigDict, int, nnx.Rngs], Network]] = {"motif_cnn": motif_cnn}


def build_network(config: ConfigDict, outputs: int) -> Network:
    """Builds the network of `config.model` with initial parameters drawn from `config.seed`.

    Args:
      config: a whole configuration.
      outputs: number of logits.
    """
    return _BUILDERS[config.model.name](config.model, outputs, nnx.Rngs(config.seed))
