"""Networks by name: `model.name` of a config becomes a `Network`."""

from collections.abc import Callable

from flax import nnx
from ml_collections import ConfigDict

from jaxdna.models.attention import attention
from jaxdna.models.deep_cnn import deep_cnn
from jaxdna.models.dilated import dilated
from jaxdna.models.image_cnn import image_cnn, mlp
from jaxdna.models.motif_cnn import motif_cnn
from jaxdna.models.network import Network, Shape

BUILDERS: dict[str, Callable[[ConfigDict, int, Shape, nnx.Rngs], Network]] = {
    "motif_cnn": motif_cnn,
    "deep_cnn": deep_cnn,
    "dilated": dilated,
    "attention": attention,
    "image_cnn": image_cnn,
    "mlp": mlp,
}


def build_network(config: ConfigDict, outputs: int, example_shape: Shape = ()) -> Network:
    """Builds the network of `config.model` with initial parameters drawn from `config.seed`.

    Args:
      config: a whole configuration.
      outputs: number of logits.
      example_shape: shape of one input example; of a motif scan any do.

    Raises:
      UserError: the network does not fit such examples.
    """
    build = BUILDERS[config.model.name]
    network = build(config.model, outputs, example_shape, nnx.Rngs(config.seed))
    others = {type(leaf).__name__ for _, leaf in nnx.to_flat_state(nnx.state(network))} - {"Param"}
    if others:
        raise TypeError(
            f"the network {config.model.name} has variables of type {', '.join(sorted(others))}; "
            "legal: nnx.Param alone, which is the same on every mesh"
        )
    return network
