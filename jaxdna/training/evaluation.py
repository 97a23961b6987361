"""Exact evaluation of a split, whatever the batch does not divide."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from numpy.typing import NDArray

from jaxdna.data.dataset import Split
from jaxdna.parallel.mesh import batch_shards
from jaxdna.training.dispatch import few_ahead
from jaxdna.training.feed import evaluation_batches
from jaxdna.training.program import Program
from jaxdna.training.state import Params

Wait = Callable[[list[jax.Array]], Any]

# Rows per device and call. On a CPU the scores of more rows fall out of its cache; accelerators
# want enough rows to fill them.
_ROWS = {"cpu": 64}
_ROWS_ON_ACCELERATORS = 1024


class Evaluator:
    """Predicts one split with any parameters; its examples stay on the devices."""

    def __init__(self, program: Program, split: Split):
        """Puts the examples on the devices."""
        platform = program.mesh.devices.flat[0].platform
        shards = batch_shards(program.mesh.shape)
        rows = min(_ROWS.get(platform, _ROWS_ON_ACCELERATORS), -(-len(split) // shards))
        self._program = program
        self._targets = split.y
        stacked = evaluation_batches(split.x, rows * shards, program.mesh)
        if program.loops_well:
            self._calls = [stacked]
        else:
            self._calls = [lax.dynamic_slice_in_dim(stacked, i, 1) for i in range(len(stacked))]

    def outputs(self, params: Params, wait: Wait = jax.block_until_ready) -> NDArray[np.float32]:
        """Returns float32 [examples, outputs] in the order of the split.

        Args:
          params: of the network.
          wait: is given the list of arrays to wait for, and may raise.
        """
        computed = []
        for outputs in few_ahead(self._program.predict_call(params, x) for x in self._calls):
            wait([outputs])
            computed.append(np.asarray(outputs))
        stacked = np.concatenate(computed)
        return stacked.reshape(-1, stacked.shape[-1])[: len(self._targets)]

    def scores(self, params: Params, wait: Wait = jax.block_until_ready) -> dict[str, float | None]:
        """Returns the task's scores, with the loss of training; see `outputs` for the arguments."""
        outputs, task = self.outputs(params, wait), self._program.task
        return task.scores(self._targets, outputs) | {"loss": task.loss(self._targets, outputs)}
