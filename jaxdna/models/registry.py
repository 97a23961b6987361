"""Networks by name: `model.name` of a config becomes a `Network`."""

from collections.abc import Callable

from flax import nnx
from ml_collections import ConfigDict

from jaxdna.models.image_cnn import image_cnn, mlp
from jaxdna.models.motif_cnn import motif_cnn
from jaxdna.models.network import Network, Shape

BUILDERS: dict[str, Callable[[ConfigDict, int, Shape, nnx.Rngs], Network]] = {
    "motif_cnn": motif_cnn,
    "image_cnn": image_cnn,
    "mlp": mlp,
}


def build_network(config: ConfigDict, outputs: int, example_shape: Shape = ()) -> Network:
    """Builds the network of `config.model` with initial parameters drawn from `config.seed`.

    Args:
      config: a whole configuration.
      outputs: number of logits.
      example_shape: shape of one input example; networks for sequences need none.

    Raises:
      UserError: the network does not fit such examples.
    """
    build = BUILDERS[config.model.name]
    return build(config.model, outputs, example_shape, nnx.Rngs(config.seed))
