"""Exact evaluation of a split, whatever the batch does not divide."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from numpy.typing import NDArray

from jaxdna.data.dataset import Split
from jaxdna.parallel.mesh import batch_shards
from jaxdna.tasks.metrics import scores, weighted_loss
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
        self._labels = split.y
        stacked = evaluation_batches(split.x, rows * shards, program.mesh)
        if program.loops_well:
            self._calls = [stacked]
        else:
            self._calls = [lax.dynamic_slice_in_dim(stacked, i, 1) for i in range(len(stacked))]

    def logits(self, params: Params, wait: Wait = jax.block_until_ready) -> NDArray[np.float32]:
        """Returns float32 [examples, logits] in the order of the split.

        Args:
          params: of the network.
          wait: is given the list of arrays to wait for, and may raise.
        """
        computed = []
        for logits in few_ahead(self._program.predict_call(params, x) for x in self._calls):
            wait([logits])
            computed.append(np.asarray(logits))
        stacked = np.concatenate(computed)
        return stacked.reshape(-1, stacked.shape[-1])[: len(self._labels)]

    def scores(self, params: Params, wait: Wait = jax.block_until_ready) -> dict[str, float | None]:
        """Returns loss (nats), accuracy, AUROC and AUPRC; see `logits` for the arguments.

        The loss is that of training: where its classes have weights, they have them here.
        """
        logits, weights = self.logits(params, wait), self._program.class_weights
        found = scores(self._labels, logits)
        if weights:
            found["loss"] = weighted_loss(self._labels, logits, weights)
        return found
