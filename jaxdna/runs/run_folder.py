"""The run folder: what is written where, and whose folder it is."""

import io
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from jaxdna import config as configs
from jaxdna.data.dataset import Dataset
from jaxdna.errors import AnotherRun, JaxdnaError, UserError
from jaxdna.runs.records import data_record, is_data, is_summary
from jaxdna.storage.files import UNFINISHED, folder_at
from jaxdna.storage.locks import Lock
from jaxdna.storage.manifest import read_small_json
from jaxdna.storage.places import Place, Url
from jaxdna.storage.trial import cannot_be_written
from jaxdna.tasks.task import Task
from jaxdna.training.progress import is_row

_LOCK = ".lock"
_CONFIG, _DATA, _KEYS = "config.json", "data.json", "train_keys.npy"
_METRICS, _TEST, _SUMMARY = "metrics.jsonl", "test.tsv", "summary.json"
# What training writes; none of it may be a link.
_WRITTEN = (
    _LOCK, ".saved", "checkpoints", _CONFIG, "curves.png", _DATA, _METRICS, "report.html", _SUMMARY,
    "tensorboard", "tensorboard/plugins", "tensorboard/plugins/profile",
    "tensorboard/filters", "tensorboard/train", "tensorboard/validation", _TEST, _KEYS,
)  # fmt: skip
_MOST_CONFIG_BYTES = 2**20
_MOST_SUMMARY_BYTES = 2**20


class RunFolder:
    """Paths of a run folder and what is stored at them.

    Of several processes that share the folder only one writes; the calls of the others do nothing.

    Attributes:
      path: the folder.
      files: what writes into it.
      writes: whether this process is the one that writes.
      checkpoints: the folder of the checkpoints.
      tensorboard: event files, one folder each for train, validation and the filters' logos.
      curves: the picture of the curves.
      report: the page that shows the run.
    """

    def __init__(self, path: Place, root: Place | None = None):
        """Names the folder; nothing is touched. The arguments are those of `folder_at`.

        Raises:
          UserError: the name is no UTF-8 text, as which the libraries below take it.
        """
        try:
            str(path.absolute()).encode()
        except UnicodeEncodeError:
            raise UserError(
                f"--workdir={path} is not UTF-8 text, and checkpoints cannot be written below it; "
                "give another folder"
            ) from None
        self.path = path
        self.files = folder_at(path, root)
        self.writes = True
        self.checkpoints = folder_at(path / "checkpoints")
        self.curves = path / "curves.png"
        self.report = path / "report.html"

    def write(self, name: str, content: str | bytes) -> None:
        """Writes one of the files of a run, whole.

        Raises:
          StorageError: it cannot be written; or the folder, or its lock, was lost.
        """
        if self.writes:
            with self._storing():
                self.files.write(name, content)

    @contextmanager
    def _storing(self) -> Iterator[None]:
        """Raises StorageError where the system cannot store what a run writes here."""
        try:
            yield
        except OSError as error:
            raise self.files.failure("a file of the run", error) from error

    def check(self, config: ConfigDict) -> list[str]:
        """Finds out whether `config` may train here; writes nothing.

        Returns:
          Changes of settings since the run began, as `key: old -> new`; empty for a new folder.

        Raises:
          AnotherRun: it holds a run with other settings.
          UserError: the path is a file, or holds other things.
        """
        try:
            found = self.files.names()
        except NotADirectoryError as error:
            raise UserError(
                f"--workdir={self.path}: {error.filename} is a file; give a folder"
            ) from None
        except OSError as error:  # a name that is too long, a folder that may not be read
            raise cannot_be_written(self.path, error) from error
        if all(name == _LOCK or name.endswith(UNFINISHED) for name in found):
            return []
        if _CONFIG not in found:
            raise UserError(
                f"--workdir={self.path} holds files but no run; give a new or empty folder"
            )
        before = self.read_config()
        before.runtime.compilation_cache = config.runtime.compilation_cache
        breaking, harmless = configs.differences(before, config)
        if breaking:
            raise AnotherRun(
                f"--workdir={self.path} belongs to another run ({'; '.join(breaking)}); "
                "give another folder, or the settings that it was started with"
            )
        return harmless

    @contextmanager
    def locked(self, note: Callable[[str], None]) -> Iterator[Lock]:
        """Makes the folder and keeps other jobs out of it; fails before any work if it cannot.

        Args:
          note: is told where the lock of a dead job is taken over.

        Raises:
          UserError: another job is at work here, or the folder cannot be written.
        """
        lock = self.files.lock(_LOCK)
        try:
            self.files.make()
            for name in _WRITTEN:
                self.files.place(name)
            lock.take(note)
            for name in self.files.names():
                if name.startswith(".") and name.endswith(UNFINISHED):  # by a kill
                    self.files.remove(name)
        except OSError as error:
            raise cannot_be_written(self.path, error) from error
        self.files.guard = lock.check
        try:
            yield lock
        finally:
            ours = self._is_ours()
            lock.release()  # also where the folder was lost: it removes no other job's file
            self.files.guard = lambda: None
            if ours:  # stopped by a mistake before anything was written
                self.files.drop_empty()

    def check_kept(self) -> None:
        """Raises StorageError where the folder was moved, removed or replaced meanwhile."""
        with self._storing():
            self.files.check()

    def _is_ours(self) -> bool:
        try:
            self.files.check()
        except (JaxdnaError, OSError):
            return False
        return True

    def settle(self, config: ConfigDict) -> ConfigDict:
        """Returns `config` with what was decided when this run began.

        That is where a pipeline is cut, and what has become a key since then, unless `config` has
        another value than the default.

        Raises:
          UserError: the folder gives no answer.
        """
        config = self._settle_new_keys(config)
        if config.strategy == "pipeline" and not config.pipeline.boundaries:
            if not self.files.exists(_CONFIG):
                return config
            begun = self.read_config()
            if (begun.strategy, begun.mesh.stage) == (config.strategy, config.mesh.stage):
                config = config.copy_and_resolve_references()
                config.pipeline.boundaries = begun.pipeline.boundaries
        return config

    def _settle_new_keys(self, config: ConfigDict) -> ConfigDict:
        try:
            begun = configs.flat(read_small_json(self.files, _CONFIG, _MOST_CONFIG_BYTES))
            since = configs.keys_since(begun)
        except OSError as error:
            if isinstance(self.path, Url) and not isinstance(error, FileNotFoundError):
                raise cannot_be_written(self.path, error) from error  # `check` would wait as long
            return config
        except (ValueError, AttributeError, UserError):  # `check` says it
            return config
        leaves = configs.flat(config)
        for key, field in since.items():
            if leaves.get(key) == field.default:
                leaves[key] = field.before
        return configs.validate(leaves)

    def open(self, config: ConfigDict) -> None:
        """Stores the configuration.

        Raises:
          UserError: the folder cannot be written.
        """
        if not self.writes:
            return
        try:
            self.files.write(_CONFIG, configs.to_json(config))
        except OSError as error:
            raise cannot_be_written(self.path, error) from error

    def check_data(self, dataset: Dataset) -> None:
        """Raises UserError where the run was begun with other bytes in one of the data's files."""
        for source in (self.read_data() or {}).get("inputs", []):
            for now in dataset.inputs:
                same = now.path in (source["path"], source.get("absolute"))
                if same and now.sha256 != source["sha256"]:
                    raise UserError(
                        f"{now.path} has changed since --workdir={self.path} was started; give "
                        "another folder, or the file that it was started with"
                    )

    def record_data(self, dataset: Dataset) -> None:
        """Stores what the data are, their files' digests among it, in data.json.

        The keys of the training split's sequences go into train_keys.npy, sorted.
        """
        self.write(_DATA, json.dumps(data_record(dataset), indent=2) + "\n")
        if self.writes and dataset.keys:
            content = io.BytesIO()
            np.save(content, np.unique(dataset.keys("train")))
            self.write(_KEYS, content.getvalue())

    def read_data(self) -> dict[str, Any] | None:
        """Returns what `record_data` stored; None where there is nothing of the kind."""
        try:
            value = read_small_json(self.files, _DATA, _MOST_CONFIG_BYTES)
        except (OSError, ValueError):
            return None
        return value if is_data(value) else None

    def read_train_keys(self) -> NDArray[np.uint64] | None:
        """Returns the keys that `record_data` stored, mapped; None where there are none."""
        try:
            keys = np.lib.format.open_memmap(self.files.local(_KEYS), mode="r")
        except (OSError, ValueError):
            return None
        return keys if keys.ndim == 1 and keys.dtype == np.uint64 else None

    def read_config(self) -> ConfigDict:
        """Returns the configuration that the run was begun with.

        Raises:
          UserError: this is not a run folder, or its config.json is not one of ours.
        """
        try:
            value = read_small_json(self.files, _CONFIG, _MOST_CONFIG_BYTES)
            # A folder from elsewhere must say neither whom to join nor whence to load compiled
            # programs, which are code.
            leaves = {
                key: leaf
                for key, leaf in configs.flat(value).items()
                if not key.startswith("cluster.") and key != "runtime.compilation_cache"
            }
            since = configs.keys_since(leaves)
            return configs.validate({key: one.before for key, one in since.items()} | leaves)
        except FileNotFoundError:
            try:
                self.files.names()
            except OSError as error:  # its bucket is not there either
                raise UserError(
                    f"--workdir={self.path} cannot be read ({error.strerror}); give another folder"
                ) from None
            raise UserError(
                f"--workdir={self.path} is not a run folder (no config.json); `jaxdna train` makes "
                "one"
            ) from None
        except NotADirectoryError:
            raise UserError(f"--workdir={self.path} is a file; give the folder of a run") from None
        except OSError as error:
            raise UserError(
                f"{self.path / _CONFIG} cannot be read ({error.strerror}); give another folder"
            ) from None
        except UserError as error:
            raise UserError(
                f"{self.path / _CONFIG} is damaged, or needs a package or a version of jaxdna that "
                f"is not installed here ({error}); install it, or train into a new folder"
            ) from None
        except (ValueError, AttributeError) as error:
            raise UserError(
                f"{self.path / _CONFIG} is damaged ({error}); train into a new folder"
            ) from None

    def read_model_config(self) -> ConfigDict:
        """Returns the configuration of a run that has one trained model.

        A data file that was named by a relative path is where the run found it, if it is still
        there, wherever this process was started.

        Raises:
          UserError: as `read_config`; or this is a cross-validation, which has one for each fold.
        """
        config = self.read_config()
        if config.data.get("folds") and config.data.fold == -1:
            raise UserError(
                f"--workdir={self.path} is a cross-validation; give the folder of one fold, "
                f"{self.path / 'fold0'} to {self.path / f'fold{config.data.folds - 1}'}"
            )
        for source in (self.read_data() or {}).get("inputs", []):
            found = source.get("absolute", source["path"])
            for key, value in config.data.items():
                if value == source["path"] and os.path.isfile(found):
                    config.data[key] = found
        return config

    def read_summary(self) -> dict[str, Any] | None:
        """Returns what a finished run wrote; None where the run is not finished.

        A summary that is not one of ours counts as none: the run goes on from its last checkpoint
        and writes it again.
        """
        try:
            value = read_small_json(self.files, _SUMMARY, _MOST_SUMMARY_BYTES)
        except (OSError, ValueError):
            return None
        return value if is_summary(value) else None

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Marks the run as finished."""
        self.write(_SUMMARY, json.dumps(summary, indent=2) + "\n")

    def drop_summary(self) -> None:
        """Marks the run as unfinished again."""
        if self.writes:
            with self._storing():
                self.files.remove(_SUMMARY)

    def write_test(
        self,
        ids: Sequence[str],
        targets: NDArray,
        outputs: NDArray,
        headings: tuple[list[str], list[str]],
    ) -> None:
        """Stores target and outputs of each test example; the headings are those of the task."""
        lines = ["\t".join(["id", *headings[0], *headings[1]])]
        known = targets.reshape(len(targets), math.prod(targets.shape[1:])).tolist()
        for name, wanted, row in zip(ids, known, outputs.tolist(), strict=True):
            lines.append("\t".join([name, *(f"{value:.9g}" for value in (*wanted, *row))]))
        self.write(_TEST, "\n".join(lines) + "\n")

    def read_test(self, task: Task) -> tuple[list[str], NDArray, NDArray[np.float32]]:
        """Returns ids, targets as the task has them and outputs float32 [examples, outputs]."""
        lines = self.files.read(_TEST).decode("utf-8").split("\n")[1:-1]
        rows = [line.split("\t") for line in lines]
        first = 1 + len(task.headings[0])
        targets = np.array([row[1:first] for row in rows], dtype=task.target_dtype)
        outputs = np.array([row[first:] for row in rows], np.float32)
        return [row[0] for row in rows], targets.reshape(len(rows), *task.target_shape), outputs

    def read_metrics(self) -> list[dict[str, Any]]:
        """Returns one dict per epoch; what comes after a line that is none of ours is left out."""
        try:
            lines = self.files.read(_METRICS).decode("utf-8", "replace").split("\n")
        except FileNotFoundError:
            return []
        rows: list[dict[str, Any]] = []
        for line in lines:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not is_row(row):
                break
            rows.append(row)
        return rows

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Makes metrics.jsonl hold `rows`, those of the checkpoint that the run goes on from."""
        self.write(_METRICS, "".join(json.dumps(row) + "\n" for row in rows))

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Adds the row of one epoch."""
        if not self.writes:
            return
        with self._storing():
            self.files.append(_METRICS, json.dumps(row) + "\n")
