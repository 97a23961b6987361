"""Outputs of any stretches of sequence, each base scanned once where stretches share it.

A stretch is given by the windows (places of a filter) that lie in it. It is covered by rows: pieces
of a few fixed lengths, all of whose windows belong to the stretch. Two rows may overlap, because
a maximum does not mind counting a window twice, so nothing is padded and nothing is masked. Rows
are what the devices scan, many at a time and in shapes that are compiled once; stretches that
overlap share rows. The maximum over a stretch's rows, ReLU and the layers after it follow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from jaxdna.analysis.scorer import Scorer
from jaxdna.data.sequences import Codes
from jaxdna.models.network import Network
from jaxdna.ops.motif_scan import motif_scan
from jaxdna.parallel.mesh import AXES
from jaxdna.parallel.sharding import replicated
from jaxdna.runs.trained import Trained
from jaxdna.training.state import Params
from jaxdna.training.step import STRANDS

ROW_POSITIONS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_TILE_POSITIONS = 2**18  # windows times filters that stay in a core's cache
_CALL_BASES = 2**19  # bases that one device scans in one call
_MANY_ROWS = 64  # more rows in one stretch than this are cheaper to reduce one by one
_HEAD_ROWS = 4096  # stretches that go through the last layers in one call


@dataclass
class Pending:
    """Rows that the devices are working on.

    Attributes:
      parts: for each row length: the stretches, the first row of each, each stretch's rows among
        the distinct ones, and the results of each call with the number of rows that count.
      stretches: how many in all.
    """

    parts: list[tuple[NDArray, NDArray, NDArray, list[tuple[jax.Array, int]]]]
    stretches: int


class ScanScorer(Scorer):
    """Scans stretches with a trained network that begins with a motif scan."""

    whole = False

    def __init__(self, trained: Trained, strands: str | None = None):
        """Takes the network; `strands` is the configuration's unless it is given."""
        super().__init__(trained, strands)
        self.width = trained.width
        first, *self._rest = trained.network(trained.params).names
        # The filters of all networks are scanned at once: bases become one-hot once for all.
        scans = [params[first] for params in trained.networks]
        self._scan_params = {
            name: np.concatenate([np.asarray(scan[name]) for scan in scans], axis=-1)
            for name in scans[0]
        }
        self.filters = self._scan_params["bias"].size
        self._devices = trained.mesh.size
        self._by_row = NamedSharding(trained.mesh, P(AXES))

    @property
    def feature_count(self) -> int:
        """Best scores of every filter on both strands."""
        return 2 * self.filters

    def submit(
        self,
        codes: Codes,
        starts: NDArray[np.int64],
        positions: NDArray[np.int64],
        stride: int = 0,
    ) -> Pending:
        """Begins to scan; see `outputs`. With a `stride` the stretches begin that far apart."""
        parts = []
        sizes, which = np.unique(positions, return_inverse=True)
        rows_of_size = np.array([row_length(int(n), self.width, stride) for n in sizes], np.int64)
        row_of = rows_of_size[which] if sizes.size else positions
        for row in np.unique(row_of).tolist():
            chosen = np.flatnonzero(row_of == row)
            counts = -(-positions[chosen] // row)
            first = np.cumsum(counts) - counts
            step = np.arange(int(counts.sum())) - np.repeat(first, counts)
            last = starts[chosen] + positions[chosen] - row
            places = np.minimum(
                np.repeat(starts[chosen], counts) + step * row, np.repeat(last, counts)
            )
            number = np.full(codes.size, -1, dtype=np.int32)
            number[places] = 0
            distinct = np.flatnonzero(number == 0)
            number[distinct] = np.arange(distinct.size)
            index = number[places]
            parts.append((chosen, first, index, self._scan(codes, distinct, row)))
        return Pending(parts, len(starts))

    def features(self, pending: Pending) -> NDArray[np.float32]:
        """Returns each filter's best score, both strands: float32 [stretches, 2 * filters]."""
        best = np.empty((pending.stretches, 2 * self.filters), dtype=np.float32)
        for chosen, first, index, results in pending.parts:
            rows = np.concatenate([np.asarray(result)[:count] for result, count in results])
            best[chosen] = _best_of_runs(rows, index, first)
        return best

    def finish_each(self, best: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the outputs of each row of `features`: float32 [networks, stretches, outputs]."""
        shape = (len(self.trained.networks), len(best), self.task.outputs)
        outputs = np.empty(shape, dtype=np.float32)
        for first in range(0, len(best), _HEAD_ROWS):
            part = best[first : first + _HEAD_ROWS]
            filled = np.zeros((_HEAD_ROWS, best.shape[1]), dtype=np.float32)
            filled[: len(part)] = part
            outputs[:, first : first + len(part)] = np.asarray(self._head(filled))[:, : len(part)]
        return outputs

    def _scan(
        self, codes: Codes, places: NDArray[np.int64], row: int
    ) -> list[tuple[jax.Array, int]]:
        """Begins to scan rows of `row` windows at `places`, a fixed number in each call."""
        bases = row + self.width - 1
        tile = max(8, _TILE_POSITIONS // (row * self.filters) // 8 * 8)
        tiles = max(1, _CALL_BASES // (bases * tile))
        if len(places) <= 64 * self._devices:  # a handful of records need no full call
            tile, tiles = 64, 1
        size = tile * tiles * self._devices
        windows = sliding_window_view(codes, bases)
        results = []
        for first in range(0, len(places), size):
            part = places[first : first + size]
            rows = np.zeros((size, bases), dtype=np.uint8)
            rows[: len(part)] = windows[part]
            sent = jax.device_put(rows, self._by_row)
            best = _best_of_rows(sent, self._on_devices, self.trained.mesh, tile)
            results.append((best, len(part)))
        return results

    @cached_property
    def _on_devices(self) -> dict[str, jax.Array]:
        return jax.device_put(self._scan_params, replicated(self.trained.mesh))

    @cached_property
    def _head(self) -> Any:
        networks = [self.trained.network(params) for params in self.trained.networks]

        def one_strand(network: Network, best: jax.Array) -> jax.Array:
            x = jax.nn.relu(best)
            for name in self._rest:
                x = getattr(network, name)(x)
            return x

        def one(network: Network, forward: jax.Array, other: jax.Array) -> jax.Array:
            outputs = one_strand(network, forward)
            if self.strands == "forward":
                return outputs
            turned = self.task.turned(one_strand(network, other))
            return STRANDS[self.strands](outputs, turned)

        @jax.jit
        def head(best: jax.Array) -> jax.Array:
            # Strands come first, as `_best_of_rows` has them, and in each the networks.
            own = jnp.split(best, 2 * len(networks), axis=1)
            each = zip(networks, own, own[len(networks) :], strict=False)
            return jnp.stack([one(*arguments) for arguments in each])

        return head


@partial(jax.jit, static_argnames=("mesh", "tile"))
def _best_of_rows(codes: jax.Array, params: Params, mesh: Mesh, tile: int) -> jax.Array:
    """Best score of every filter on both strands: [rows, bases] to [rows, 2 * filters]."""

    def scan(codes: jax.Array) -> jax.Array:
        kernel, bias = params["kernel"], params["bias"]
        # A window on the other strand scores what the turned filter scores on this one.
        both = [motif_scan(codes, one, bias) for one in (kernel, kernel[::-1, ::-1])]
        return jnp.concatenate(both, axis=1)

    def on_one_device(codes: jax.Array) -> jax.Array:
        # A tile's scores stay in the cache of the core that makes them.
        tiles = codes.reshape(-1, tile, codes.shape[1])
        return lax.map(scan, tiles).reshape(codes.shape[0], -1)

    return jax.shard_map(
        on_one_device, mesh=mesh, in_specs=P(AXES), out_specs=P(AXES), check_vma=False
    )(codes)


def _best_of_runs(
    rows: NDArray[np.float32], index: NDArray[np.integer], first: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Returns the maximum of rows[index[first[i] : first[i + 1]]] for every i."""
    counts = np.diff(np.append(first, len(index)))
    if counts.max() > _MANY_ROWS:
        return np.maximum.reduceat(rows[index], first, axis=0)
    best = rows[index[first]]
    for step in range(1, int(counts.max())):
        longer = np.flatnonzero(counts > step)
        if longer.size == len(best):
            np.maximum(best, rows[index[first + step]], out=best)
        else:
            best[longer] = np.maximum(best[longer], rows[index[first[longer] + step]])
    return best


def row_length(positions: int, width: int, stride: int = 0) -> int:
    """Returns how many windows a row should have, so that the devices scan the fewest bases.

    Args:
      positions: windows of the stretch to cover.
      width: bases of a window; a row reads `width - 1` bases more than it has windows.
      stride: distance between the starts of equal stretches that overlap; 0 where none do.
    """

    def cost(row: int) -> int:
        shared = stride and row <= stride and stride % row == 0
        rows = stride // row + (positions % row > 0) if shared else -(-positions // row)
        return rows * (row + width - 1)

    candidates: Sequence[int] = ROW_POSITIONS
    if stride:
        candidates = [*candidates, *(n for n in range(1, stride + 1) if stride % n == 0)]
    return min((row for row in candidates if row <= positions), key=cost)
