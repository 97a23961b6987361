"""Exact evaluation of a split, whatever the batch does not divide."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax import lax
from numpy.typing import NDArray

from jaxdna.data.dataset import Split
from jaxdna.parallel.mesh import batch_shards
from jaxdna.progress import counted
from jaxdna.training.dispatch import few_ahead
from jaxdna.training.feed import evaluation_batches, fits, make_feed
from jaxdna.training.state import Params
from jaxdna.training.strategy import Strategy

Wait = Callable[[list[jax.Array]], Any]

# Rows per device and call. On a CPU the scores of more rows fall out of its cache; accelerators
# want enough rows to fill them.
_ROWS = {"cpu": 64}
_ROWS_ON_ACCELERATORS = 1024
_STREAMED_BYTES = 2**26  # of inputs in one call, where the split does not fit the devices


class Evaluator:
    """Predicts one split with any parameters; its examples stay on the devices if they fit."""

    def __init__(self, program: Strategy, split: Split, name: str = ""):
        """Puts the examples on the devices, if they fit.

        Args:
          program: predicts.
          split: the examples.
          name: of the split, where networks may have parts of it for themselves.
        """
        platform = program.mesh.devices.flat[0].platform
        shards = batch_shards(program.mesh.shape)
        self._own = program.own_rows(name)
        self._examples = max(map(len, self._own)) if self._own else len(split)
        rows = min(_ROWS.get(platform, _ROWS_ON_ACCELERATORS), -(-self._examples // shards))
        self._program = program
        self._targets, self._split = split.y, split
        self._batch, self._resident = rows * shards, None
        # Calls of one shape, so that one program serves all of them.
        batches = -(-self._examples // self._batch)
        self._batches = 1
        if self._own:
            if program.loops_well:
                each = program.batches * self._batch * split.x.nbytes // len(split)
                self._batches = min(batches, max(1, _STREAMED_BYTES // each))
            self._feed, _ = make_feed(split, self._rows, program.batch_shardings)
        elif fits(split, program.mesh):
            stacked = evaluation_batches(split.x, self._batch, program.mesh)
            if program.loops_well:
                self._resident = [stacked]
            else:
                self._resident = [lax.dynamic_slice_in_dim(stacked, i, 1) for i in range(batches)]
        elif program.loops_well:
            each = split.x.nbytes * self._batch // len(split)
            self._batches = min(batches, max(1, _STREAMED_BYTES // each))

    def _calls(self) -> Iterable[jax.Array]:
        """The inputs of one call after the other, [batches, batch, ...]."""
        if self._resident:
            return self._resident
        if self._own:
            calls = -(-self._examples // (self._batch * self._batches))
            return (self._feed(i * self._batches, self._batches)["x"] for i in range(calls))
        step = self._batches * self._batch
        return (
            evaluation_batches(self._split.x, self._batch, self._program.mesh, first, self._batches)
            for first in range(0, len(self._split), step)
        )

    def _rows(self, first: int, steps: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """What networks have for themselves in some batches, filled up with its last example."""
        places = first * self._batch + np.arange(steps * self._batch)
        different = (self._own or [])[: self._program.batches]
        rows = [own[np.minimum(places, len(own) - 1)] for own in different]
        stacked = np.array(rows, np.int32).reshape(len(rows), steps, self._batch)
        return stacked, np.ones(stacked.shape, np.float32)

    def outputs(self, params: Params, wait: Wait = jax.block_until_ready) -> NDArray[np.float32]:
        """Returns float32 [..., examples, outputs] in the order of the split.

        Where each network has examples of its own, NaN is what it says of the others.

        Args:
          params: of the network.
          wait: is given the list of arrays to wait for, and may raise.
        """
        computed, calls = [], -(-self._examples // (self._batch * self._batches))
        begun = (self._program.predict_call(params, x) for x in self._calls())
        for outputs in counted("evaluating", few_ahead(begun), calls):
            wait([outputs])
            computed.append(np.asarray(outputs))
        stacked = np.concatenate(computed, axis=-3)
        rows = stacked.reshape(*stacked.shape[:-3], -1, stacked.shape[-1])
        if not self._own:
            return rows[..., : len(self._targets), :]
        placed = np.full((len(rows), len(self._targets), rows.shape[-1]), np.nan, np.float32)
        for into, own, found in zip(placed, self._own, rows, strict=True):
            into[own] = found[: len(own)]
        return placed

    def scores(self, params: Params, wait: Wait = jax.block_until_ready) -> Any:
        """Returns the program's scores of these parameters; see `outputs` for the arguments."""
        return self._program.scores(self._targets, self.outputs(params, wait))
