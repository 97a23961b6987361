"""What lies where: shardings of batches, parameters and optimizer state."""

from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdna.parallel.mesh import BATCH_AXES


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def stacked_batches(mesh: Mesh) -> NamedSharding:
    """Arrays [steps, batch, ...]: the batch is split, every device holds its share of all steps."""
    return NamedSharding(mesh, PartitionSpec(None, BATCH_AXES))
