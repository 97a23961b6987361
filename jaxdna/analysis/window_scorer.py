"""Outputs of stretches as long as the sequences of training, for any network."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from jaxdna.analysis.scorer import Scorer
from jaxdna.data.sequences import Codes
from jaxdna.ops.strands import complement_strand
from jaxdna.parallel.mesh import AXES
from jaxdna.parallel.sharding import replicated
from jaxdna.progress import counted
from jaxdna.runs.trained import Trained
from jaxdna.training.state import Params
from jaxdna.training.step import STRANDS

# Bases that one device reads in one call: as many as fill it, and whose activations fit.
_CALL_BASES = {"cpu": 2**16}
_CALL_BASES_ON_ACCELERATORS = 2**19
_FEW_ROWS = 8  # a handful of records need no full call


@dataclass
class Pending:
    """Rows that the devices are working on.

    Attributes:
      index: int [stretches], the row of each.
      results: of each call those of each network, with the number of rows that count.
    """

    index: NDArray[np.intp]
    results: list[tuple[list[jax.Array], int]]


class WindowScorer(Scorer):
    """Runs trained networks on stretches of one length, each distinct one once."""

    whole = True

    def __init__(self, trained: Trained, strands: str | None = None):
        """Takes the network; `strands` is the configuration's unless it is given."""
        super().__init__(trained, strands)
        self.width = self.length
        platform = trained.mesh.devices.flat[0].platform
        bases = _CALL_BASES.get(platform, _CALL_BASES_ON_ACCELERATORS)
        self._rows = max(1, bases // self.length)

    @property
    def feature_count(self) -> int:
        """The outputs of each network."""
        return len(self.trained.networks) * self.task.outputs

    def submit(
        self,
        codes: Codes,
        starts: NDArray[np.int64],
        positions: NDArray[np.int64],
        stride: int = 0,
    ) -> Pending:
        """Begins to score; see `outputs`."""
        del positions, stride  # one place each; equal ones are found here
        places, index = np.unique(starts, return_inverse=True)
        if not places.size:
            return Pending(index, [])
        few = places.size <= _FEW_ROWS * self.trained.mesh.size
        size = (min(_FEW_ROWS, self._rows) if few else self._rows) * self.trained.mesh.size
        windows, results = sliding_window_view(codes, self.width), []
        for first in range(0, places.size, size):
            part = places[first : first + size]
            rows = np.zeros((size, self.width), dtype=np.uint8)
            rows[: part.size] = windows[part]
            sent = jax.device_put(rows, NamedSharding(self.trained.mesh, P(AXES)))
            each = [self._call(params, sent) for params in self._on_devices]
            results.append((each, part.size))
        return Pending(index, results)

    def features(self, pending: Pending) -> NDArray[np.float32]:
        """Returns the outputs of each stretch: float32 [stretches, networks * outputs]."""
        results = counted("scoring", pending.results, len(pending.results))
        rows = [
            np.concatenate([np.asarray(result)[:count] for result in each], axis=1)
            for each, count in results
        ]
        if not rows:
            return np.empty((0, self.feature_count), np.float32)
        return np.concatenate(rows)[pending.index]

    def finish_each(self, best: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns them as they are: float32 [networks, stretches, outputs]."""
        networks = len(self.trained.networks)
        return np.moveaxis(best.reshape(len(best), networks, self.task.outputs), 1, 0)

    @cached_property
    def _on_devices(self) -> list[Params]:
        return jax.device_put(list(self.trained.networks), replicated(self.trained.mesh))

    @cached_property
    def _call(self) -> Any:
        def both(params: Params, codes: jax.Array) -> jax.Array:
            network = self.trained.network(params)
            outputs = network(codes)
            if self.strands != "forward":
                other = self.task.turned(network(complement_strand(codes)))
                outputs = STRANDS[self.strands](outputs, other)
            return outputs.astype(np.float32)

        # Each device its own rows with whole parameters, so that no layer meets the mesh.
        by_row = P(AXES)
        return jax.jit(
            jax.shard_map(
                both,
                mesh=self.trained.mesh,
                in_specs=(P(), by_row),
                out_specs=by_row,
                check_vma=False,
            )
        )
