"""Checkpoints: the one place that imports Orbax, with what it needs for buckets.

A checkpoint is a folder named by its position in the run. It holds the arrays as Orbax writes them,
what the loop knows as JSON, and a manifest with a digest of each file. It is whole or absent, as
`Folder.finish` makes it, or was damaged later.
"""

import hashlib
import json
import logging
import math
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxdna.errors import JaxdnaError, NoCheckpointError
from jaxdna.parallel.cluster import is_primary
from jaxdna.storage.files import UNFINISHED, Folder, folder_at
from jaxdna.storage.manifest import read_small_json
from jaxdna.training.member_progress import MemberProgress
from jaxdna.training.orbax_buckets import in_place
from jaxdna.training.positions import Note, Position, name_of, newest_intact, position_of, positions
from jaxdna.training.progress import NetworkProgress
from jaxdna.training.state import Params, TrainState
from jaxdna.training.strategy import Progress

T = TypeVar("T")

_FOLDER, _SAVED = "checkpoints", ".saved"
_ARRAYS, _PROGRESS = "arrays", "progress.json"
_MOST_PROGRESS_BYTES = 64 * 2**20
_BLOCK = 4096  # of most file systems


@cache
def _hush_failures() -> None:
    """Has failures of Orbax told by our exceptions alone, from now on, in the whole process.

    It logs each with a traceback, and its other reads and writes end, and its event loop closes,
    some time after it has raised, where nobody can catch what they raise.
    """
    logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
    show = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        code = getattr(unraisable.object, "cr_code", None)
        of_orbax = code is not None and "orbax" in code.co_filename
        if not of_orbax and str(unraisable.exc_value) != "Event loop is closed":
            show(unraisable)

    sys.unraisablehook = hook


class Checkpoints:
    """The checkpoints of one run folder, written by one process at a time (see `run_lock`).

    Each holds the state, the best parameters so far and the progress, so that any of them is
    enough to go on, and the best parameters are kept as long as any checkpoint is.

    The first one that is whole leaves a mark beside the folder. With it a folder without any is
    one that has lost them; without it, one whose job was killed before it had saved anything.
    """

    def __init__(self, run: Folder, keep: int, progress: type[Progress] = NetworkProgress):
        """Names the run folder; `checkpoints` in it is made by the first save."""
        _hush_failures()
        self._run, self._progress = run, progress
        self._folder = folder_at(run.path.absolute() / _FOLDER)
        self._keep = keep
        self._good: list[Position] = []  # verified or written by this process, and those before
        options = in_place(self._folder.path)
        handler = ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(**options))
        self._orbax = ocp.AsyncCheckpointer(handler, **options)
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def save(self, state: TrainState, best: Params, progress: Progress) -> None:
        """Begins to save; returns once the values are safe from later steps.

        A position that was restored or saved before is not saved again.

        Raises:
          StorageError: this save cannot begin, or the one before it failed.
        """
        self.wait()
        position = (progress.epoch, progress.epoch_step)
        if position in self._good:
            return
        name = f"{_FOLDER}/{name_of(position)}"
        try:
            if is_primary():
                self._run.begin(name)
                self._run.check_room(_bytes_of((state, best)))
            text = json.dumps(progress.to_json())
            self._orbax.save(
                str(self._run.path.absolute() / self._run.unfinished(name) / _ARRAYS),
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), best=ocp.args.StandardSave(best)
                ),
            )
        except Exception as error:
            self._fail(name, error)
            self.check()
        self._thread = threading.Thread(
            target=self._finish, args=(position, name, text), name="checkpoint"
        )
        self._thread.start()

    def check(self) -> None:
        """Raises what went wrong with a save in the background, if something did.

        Raises:
          StorageError: what it was.
        """
        if self._failure is not None:
            failure, self._failure = self._failure, None
            if isinstance(failure, JaxdnaError):
                raise failure
            raise self._folder.failure("the checkpoint", failure) from failure

    def wait(self) -> None:
        """Waits until the last save is on disk.

        Raises:
          StorageError: it failed.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def restore(
        self, abstract_state: TrainState, note: Note
    ) -> tuple[TrainState, Params, Progress] | None:
        """Restores the newest intact checkpoint under the shardings of `abstract_state`.

        Args:
          abstract_state: shapes, dtypes and shardings wanted; another layout may have saved it.
          note: is told of every damaged checkpoint.

        Returns:
          The state, the best parameters, and the progress; None where none was ever saved.

        Raises:
          NoCheckpointError: there are checkpoints, and none is intact; or there were some.
        """

        def read(name: str) -> tuple[TrainState, Params, Progress]:
            value = read_small_json(self._folder, f"{name}/{_PROGRESS}", _MOST_PROGRESS_BYTES)
            progress = self._progress.from_json(value)
            if name_of((progress.epoch, progress.epoch_step)) != name:
                raise ValueError(f"it is of epoch {progress.epoch}, step {progress.epoch_step}")
            wanted = {"state": abstract_state, "best": abstract_state.params}
            arrays = _restore(self._folder, name, wanted)
            return arrays["state"], arrays["best"], progress

        found = newest_intact(self._folder, read, note)
        if found is None:
            if self._run.exists(_SAVED):
                raise NoCheckpointError(
                    f"{self._folder.path} held checkpoints before, but holds none now; restore "
                    f"them from a copy, or, to train from scratch, remove {self._run.path} or "
                    "give another --workdir"
                )
            return None
        newest, restored = found
        if is_primary():  # a kill may have come between the checkpoint and its mark
            self._leave_mark(newest)
        self._good = [position for position in positions(self._folder) if position <= newest]
        return restored

    def _finish(self, position: Position, name: str, progress: str) -> None:
        """Runs in the background: makes a checkpoint of the folder once its arrays are written."""
        run = self._run
        try:
            self._orbax.wait_until_finished()
            if is_primary():
                run.write(f"{run.unfinished(name)}/{_PROGRESS}", progress)
                run.finish(name)
                self._leave_mark(position)
            self._good = [*self._good, position][-self._keep :]
            if is_primary():
                self._tidy()
        except Exception as error:
            self._fail(name, error)

    def _leave_mark(self, position: Position) -> None:
        """Beside the folder: whoever removes that leaves it."""
        if not self._run.exists(_SAVED):
            rule = "without any checkpoint this run does not start from scratch"
            self._run.write(_SAVED, f"{name_of(position)} is saved: {rule}\n")

    def _tidy(self) -> None:
        """Removes all that is not to be kept: old, damaged, and what killed saves left behind."""
        for name in self._run.names(_FOLDER):
            found = position_of(name.removesuffix(UNFINISHED))
            if found is not None and (name.endswith(UNFINISHED) or found not in self._good):
                self._run.remove(f"{_FOLDER}/{name}")

    def _fail(self, name: str, error: Exception) -> None:
        """Keeps the error for `check` and removes what the save has written, if it may."""
        try:
            self._run.discard(name)
        except (JaxdnaError, OSError) as lost:  # what is there may be another job's
            error = lost
        self._failure = error


def load_best(
    folder: Folder,
    abstract_params: Params,
    note: Note = lambda text: print(text, file=sys.stderr),
) -> Params:
    """Returns the best parameters from a run folder's newest intact checkpoint.

    Args:
      folder: the run's `checkpoints` folder.
      abstract_params: shapes, dtypes and shardings wanted.
      note: is told of every damaged checkpoint.

    Raises:
      NoCheckpointError: there is none.
    """
    wanted = {"best": abstract_params}
    return _newest(folder, lambda name: _restore(folder, name, wanted)["best"], note)


def load_members(
    folder: Folder, abstract_params: Params, note: Note
) -> tuple[Params, MemberProgress]:
    """Returns the best parameters of each member, stacked, and what is known of the members.

    See `load_best`.
    """

    def read(name: str) -> tuple[Params, MemberProgress]:
        value = read_small_json(folder, f"{name}/{_PROGRESS}", _MOST_PROGRESS_BYTES)
        best = _restore(folder, name, {"best": abstract_params})["best"]
        return best, MemberProgress.from_json(value)

    return _newest(folder, read, note)


def _newest(folder: Folder, read: Callable[[str], T], note: Note) -> T:
    found = newest_intact(folder, read, note)
    if found is None:
        raise NoCheckpointError(
            f"{folder.path} holds no checkpoint: this run has not saved one yet"
        )
    return found[1]


def params_sha256(params: Params) -> str:
    """Digest of all parameters: float32 little-endian bytes, leaves in order of their path."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    named = sorted((jax.tree_util.keystr(path), leaf) for path, leaf in leaves)
    digest = hashlib.sha256()
    for _, leaf in named:
        digest.update(np.ascontiguousarray(np.asarray(leaf), dtype="<f4").tobytes())
    return digest.hexdigest()


def _bytes_of(arrays: Any) -> int:
    """The room that a checkpoint takes, so that none fails half-written where that is known.

    An array takes its bytes, and one block each for its data and for what describes it.
    """
    return sum(leaf.nbytes + 2 * _BLOCK for leaf in jax.tree.leaves(arrays))


def _restore(folder: Folder, name: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """Reads the items `wanted` after comparing the declared shapes with those asked for."""
    _hush_failures()
    in_place(folder.path)
    place = str(folder.path.absolute() / name / _ARRAYS)
    handlers = {item: ocp.StandardCheckpointHandler() for item in ("state", "best")}
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler(**handlers)) as orbax:
        declared = orbax.metadata(place).item_metadata
        for item, abstract in wanted.items():
            _check_shapes(item, declared[item].tree, abstract)
        targets = {item: ocp.args.StandardRestore(tree) for item, tree in wanted.items()}
        return dict(orbax.restore(place, args=ocp.args.Composite(**targets)))


def _check_shapes(item: str, declared: Any, wanted: Any) -> None:
    """Keeps a folder of unknown origin from asking for more memory than the model has arrays."""
    expected = {_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(wanted)}
    found = {_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(declared)}
    if found.keys() != expected.keys():
        names = ", ".join(sorted(found.keys() ^ expected.keys()))
        raise ValueError(f"its {item} has other arrays than the model: {names}")
    for name, leaf in expected.items():
        have = found[name]
        if tuple(have.shape) != leaf.shape or have.dtype != leaf.dtype:
            raise ValueError(
                f"its {item}/{name} is {have.dtype}{tuple(have.shape)}, but the model's is "
                f"{leaf.dtype}{leaf.shape}"
            )
        chunk = have.storage.chunk_shape if have.storage else None
        if chunk is not None and math.prod(chunk) > max(1, math.prod(leaf.shape)):
            raise ValueError(f"its {item}/{name} declares chunks larger than itself")


def _path(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
