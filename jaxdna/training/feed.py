"""Moves batches to the devices: each process feeds its own rows, one byte a base."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from numpy.typing import NDArray

from jaxdna.data.batches import Rows
from jaxdna.data.dataset import Split
from jaxdna.parallel.sharding import replicated, stacked_inputs

Feed = Callable[[int, int], dict[str, jax.Array]]


class Shardings(NamedTuple):
    """How batches lie.

    Attributes:
      inputs: of what the network reads.
      rows: of all else that has a row for each example.
    """

    inputs: NamedSharding
    rows: NamedSharding

    @property
    def mesh(self) -> Mesh:
        """The devices."""
        assert isinstance(self.rows.mesh, Mesh)
        return self.rows.mesh


_RESIDENT_BYTES = 2**30
# On a CPU the data are in this memory already, and a second copy only saves the gathering of rows,
# a few per cent of a step.
_RESIDENT_BYTES_ON_CPU = 2**28


def make_feed(split: Split, rows: Rows, by: Shardings) -> tuple[Feed, bool]:
    """Returns the resident feed where one process can hold the data on its devices, and whether.

    Args:
      split: the training split.
      rows: which of its examples make which batches.
      by: the shardings of the batches.
    """
    resident = jax.process_count() == 1 and fits(split, by.mesh)
    feed = resident_feed if resident else streamed_feed
    return feed(split, rows, by), resident


def fits(split: Split, mesh: Mesh) -> bool:
    """Returns whether a split may lie on the devices as a whole."""
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    most = _RESIDENT_BYTES_ON_CPU if on_cpu else _RESIDENT_BYTES
    return split.x.nbytes + split.y.nbytes <= most


def resident_feed(split: Split, rows: Rows, by: Shardings) -> Feed:
    """Puts the whole split on every device once; only row numbers travel from then on.

    Args:
      split: the training split.
      rows: which of its examples make which batches.
      by: the shardings of the batches.

    Returns:
      (first step, steps) -> batches `x`, `y`, `weight`, each as `rows` [..., steps, batch] has
      them and then as the split.
    """
    x, y = jax.device_put((split.x, split.y), replicated(by.mesh))
    gather = jax.jit(lambda x, y, rows: (x[rows], y[rows]), out_shardings=(by.inputs, by.rows))

    def feed(first_step: int, steps: int) -> dict[str, jax.Array]:
        chosen, weight = jax.device_put(rows(first_step, steps), by.rows)
        batch_x, batch_y = gather(x, y, chosen)
        return {"x": batch_x, "y": batch_y, "weight": weight}

    return feed


def streamed_feed(split: Split, rows: Rows, by: Shardings) -> Feed:
    """Gathers rows on the host, each process those of its own devices; see `resident_feed`."""

    def feed(first_step: int, steps: int) -> dict[str, jax.Array]:
        chosen, weight = rows(first_step, steps)
        order = np.arange(chosen.size).reshape(chosen.shape)
        return {
            "x": _place(chosen, split.x, by.inputs),
            "y": _place(chosen, split.y, by.rows),
            "weight": _place(order, weight.ravel(), by.rows),
        }

    return feed


def evaluation_batches(
    x: NDArray[np.uint8], batch_size: int, mesh: Mesh, first: int = 0, batches: int | None = None
) -> jax.Array:
    """Stacks examples into batches; what is missing of the last ones is the last example.

    Args:
      x: uint8 [examples, ...].
      batch_size: global batch.
      mesh: the devices.
      first: number of the first example.
      batches: how many batches; all that there are from `first` on if None.

    Returns:
      uint8 [batches, batch_size, ...]; only the first `examples - first` rows mean anything.
    """
    batches = batches or -(-(x.shape[0] - first) // batch_size)
    rows = np.minimum(first + np.arange(batches * batch_size), x.shape[0] - 1)
    return _place(rows.reshape(batches, batch_size), x, stacked_inputs(mesh))


def _place(rows: NDArray[np.integer], values: NDArray, sharding: NamedSharding) -> jax.Array:
    """Returns values[rows] on the devices; each process gathers only what its own devices hold."""

    def part(index: tuple[slice, ...] | None) -> NDArray:
        index = index or (slice(None),) * (rows.ndim + len(values.shape) - 1)
        return values[rows[index[: rows.ndim]]][(slice(None),) * rows.ndim + index[rows.ndim :]]

    return jax.make_array_from_callback((*rows.shape, *values.shape[1:]), sharding, part)
