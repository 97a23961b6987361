"""Networks of which some take the same batches, side by side or in groups one after the other."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec


class Group(NamedTuple):
    """The networks that are trained side by side.

    Attributes:
      sharing: networks that take the same batch.
      batches: different batches.
    """

    sharing: int
    batches: int


def largest_group(sharing: int, batches: int, most: int) -> Group:
    """Returns the group of at most `most` networks into whose like all of them can be divided.

    Args:
      sharing: networks that take the same batch.
      batches: different batches.
      most: at least 1. Who shares comes first.
    """
    together = _divisor(sharing, most)
    return Group(together, _divisor(batches, most // together))


def _divisor(number: int, most: int) -> int:
    return max(n for n in range(1, min(number, most) + 1) if number % n == 0)


def each_of_its_batch(
    one: Callable[[Any, Any], Any],
    own: Any,
    batches: Any,
    group: Group,
    axis_name: str | None = None,
) -> Any:
    """Returns one(own, batch) of every network, with the batch that it shares.

    Args:
      one: of one network.
      own: leaves [networks, ...]; network i takes batch i modulo their number.
      batches: leaves [batches, ...].
      group: of `largest_group`.
      axis_name: the mesh's axis that splits the networks which share a batch.
    """
    different = jax.tree.leaves(batches)[0].shape[0]
    (together, side), apart = group, different // group.batches

    def grouped(leaf: jax.Array) -> jax.Array:
        parted = leaf.reshape(-1, together, apart, side, *leaf.shape[1:])
        return jnp.moveaxis(parted, 2, 1).reshape(-1, together, side, *leaf.shape[1:])

    def ungrouped(leaf: jax.Array) -> jax.Array:
        parted = leaf.reshape(-1, apart, together, side, *leaf.shape[3:])
        return jnp.moveaxis(parted, 1, 2).reshape(-1, *leaf.shape[3:])

    of_a_batch = jax.vmap(one, in_axes=(0, None), spmd_axis_name=axis_name)
    of_a_group = jax.vmap(of_a_batch, in_axes=(1, 0), out_axes=1)
    own = jax.tree.map(grouped, own)
    groups = jax.tree.leaves(own)[0].shape[0]
    if groups == 1:
        made = of_a_group(jax.tree.map(lambda leaf: leaf[0], own), batches)
        return jax.tree.map(lambda leaf: ungrouped(leaf[None]), made)
    sets = jax.tree.map(lambda leaf: leaf.reshape(apart, side, *leaf.shape[1:]), batches)

    def of_one_group(given: tuple[Any, jax.Array]) -> Any:
        its, number = given
        return of_a_group(its, jax.tree.map(lambda leaf: leaf[number % apart], sets))

    return jax.tree.map(ungrouped, lax.map(of_one_group, (own, jnp.arange(groups))))


def in_turn(one: Callable[..., Any], at_once: int, loops_well: bool) -> Callable[..., Any]:
    """Returns (own, *shared) -> one(own, *shared) of every network, some after the others.

    Args:
      one: of one network; what it returns is stacked.
      at_once: networks side by side.
      loops_well: False where the backend should not see a loop.
    """

    def every(own: Any, *shared: Any) -> Any:
        if at_once > 1:
            return lax.map(lambda each: one(each, *shared), own, batch_size=at_once)
        unroll = 1 if loops_well else True
        return lax.scan(lambda _, each: (None, one(each, *shared)), None, own, unroll=unroll)[1]

    return every


def on_its_device(
    of_device: Callable[..., Any], mesh: Mesh, axis: str, own: Any, *shared: Any
) -> Any:
    """Returns of_device(own, *shared), each device with its networks where it has them whole.

    Args:
      of_device: of the networks of one device, or of all.
      mesh: the devices.
      axis: of the mesh that splits the networks.
      own: leaves [networks, ...].
      shared: whole on every device.
    """
    if mesh.size > mesh.shape[axis]:
        return of_device(own, *shared)
    by_network, whole = PartitionSpec(axis), PartitionSpec()
    return jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(by_network, *[whole] * len(shared)),
        out_specs=by_network,
        check_vma=False,
    )(own, *shared)
