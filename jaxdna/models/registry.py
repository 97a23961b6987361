"""Networks by name: `model.name` of a config becomes a `Network`."""

from collections.abc import Callable

import jax
from flax import nnx
from ml_collections import ConfigDict

from jaxdna.config import start_seed
from jaxdna.models.attention import attention
from jaxdna.models.deep_cnn import deep_cnn
from jaxdna.models.dilated import dilated
from jaxdna.models.gapped import gapped
from jaxdna.models.image_cnn import image_cnn, mlp
from jaxdna.models.motif_cnn import motif_cnn
from jaxdna.models.multiscale import multiscale
from jaxdna.models.network import Network, Shape

BUILDERS: dict[str, Callable[[ConfigDict, int, Shape, nnx.Rngs], Network]] = {
    "motif_cnn": motif_cnn,
    "multiscale": multiscale,
    "gapped": gapped,
    "deep_cnn": deep_cnn,
    "dilated": dilated,
    "attention": attention,
    "image_cnn": image_cnn,
    "mlp": mlp,
}


def build_network(
    config: ConfigDict, outputs: int, example_shape: Shape = (), seed: int | jax.Array | None = None
) -> Network:
    """Builds the network of `config.model` with initial parameters drawn from a seed.

    Args:
      config: a whole configuration.
      outputs: number of logits.
      example_shape: shape of one input example; of a motif scan any do.
      seed: integer scalar; `config.start_seed` if None.

    Raises:
      UserError: the network does not fit such examples.
    """
    build = BUILDERS[config.model.name]
    rngs = nnx.Rngs(jax.random.key(start_seed(config) if seed is None else seed))
    network = build(config.model, outputs, example_shape, rngs)
    leaves = (leaf for _, leaf in nnx.to_flat_state(nnx.state(network)))
    others = {type(leaf).__name__ for leaf in leaves if not isinstance(leaf, nnx.Param)}
    if others:
        raise TypeError(
            f"the network {config.model.name} has variables of type {', '.join(sorted(others))}; "
            "legal: nnx.Param alone, which is the same on every mesh"
        )
    return network
