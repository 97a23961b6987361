"""Checkpoints: the one place that imports Orbax."""

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxdna.errors import NoCheckpointError
from jaxdna.training.state import Params, TrainState


class Checkpoints:
    """The checkpoints of one run folder, one for each epoch that was saved.

    A checkpoint holds the state, the best parameters so far, and what the loop knows (epoch, early
    stopping, seconds) as JSON. The position in the data is the state's step.
    """

    def __init__(self, folder: Path, keep: int):
        """Opens the folder; it is made by the first save."""
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, enable_async_checkpointing=True, create=True
            ),
        )

    def latest(self) -> int | None:
        """The newest complete epoch on disk, or None."""
        self._manager.reload()  # what the manager remembers may be a save that failed
        return self._manager.latest_step()

    def save(self, epoch: int, state: TrainState, best: Params, progress: dict[str, Any]) -> None:
        """Begins to save; returns once the values are safe from later steps.

        Raises:
          Exception: what went wrong with the save before this one.
        """
        self._manager.check_for_errors()
        self._manager.save(
            epoch,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                best=ocp.args.StandardSave(best),
                progress=ocp.args.JsonSave(progress),
            ),
        )

    def restore(
        self, epoch: int, abstract_state: TrainState
    ) -> tuple[TrainState, Params, dict[str, Any]]:
        """Restores a checkpoint under the shardings of `abstract_state`, whatever it was saved on.

        Returns:
          The state, the best parameters, and what the loop knew.
        """
        restored = self._manager.restore(
            epoch,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract_state),
                best=ocp.args.StandardRestore(abstract_state.params),
                progress=ocp.args.JsonRestore(),
            ),
        )
        return restored["state"], restored["best"], restored["progress"]

    def close(self) -> None:
        """Waits until the last save is on disk; raises what went wrong with it."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()
        self._manager.close()


def load_best(folder: Path, abstract_params: Params) -> Params:
    """Returns the best parameters of a run folder's newest checkpoint.

    Args:
      folder: the run's `checkpoints` folder.
      abstract_params: shapes, dtypes and shardings wanted.

    Raises:
      NoCheckpointError: there is none.
    """
    if not folder.is_dir():
        raise NoCheckpointError(f"{folder} is no folder: this run has saved no checkpoint yet")
    with ocp.CheckpointManager(folder.absolute()) as manager:
        newest = manager.latest_step()
        if newest is None:
            raise NoCheckpointError(f"{folder} holds no complete checkpoint")
        target = ocp.args.Composite(best=ocp.args.StandardRestore(abstract_params))
        return manager.restore(newest, args=target)["best"]


def params_sha256(params: Params) -> str:
    """Digest of all parameters: float32 little-endian bytes, leaves in order of their path."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    named = sorted((jax.tree_util.keystr(path), leaf) for path, leaf in leaves)
    digest = hashlib.sha256()
    for _, leaf in named:
        digest.update(np.ascontiguousarray(np.asarray(leaf), dtype="<f4").tobytes())
    return digest.hexdigest()
