"""Sequences converted once to a memory-mapped array of codes, found again by their digests."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.records import LENGTH_POLICIES, Records, check_choice, check_minimum
from jaxdna.data.sequences import Codes
from jaxdna.data.store_writer import StoreWriter
from jaxdna.errors import UserError
from jaxdna.storage.manifest import damage, write_manifest

_FORMAT = 6  # part of the key: a change of the files' meaning makes new stores
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True)
class CodeStore:
    """Converted sequences on disk; nothing is in memory until it is indexed.

    Attributes:
      folder: holds codes.npy, lengths.npy, columns.npz, ids.txt, store.json and a manifest.
      codes: uint8 [records, length] memory-mapped.
      counts: records of each part, in the order in which they were added.
      notes: for each part, what a person should know (ambiguous letters, repeated ids, ...).
      shortest: bases of each part's shortest sequence, before any padding or cropping.
      columns: other arrays, by the names under which they were added.
    """

    folder: Path
    codes: Codes
    counts: tuple[int, ...]
    notes: tuple[tuple[str, ...], ...]
    shortest: tuple[int, ...]
    columns: dict[str, NDArray]

    def __len__(self) -> int:
        return sum(self.counts)

    @cached_property
    def ids(self) -> list[str]:
        """The records' ids in order; read from disk when first asked for."""
        return (self.folder / "ids.txt").read_bytes().decode("utf-8").split("\n")[:-1]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """int64 [records], bases of each sequence before any padding or cropping."""
        return np.load(self.folder / "lengths.npy")

    def check_minimum(self, width: int, names: Sequence[str]) -> None:
        """Raises UserError where a sequence is shorter than a filter of `width` bases.

        Args:
          width: bases that a filter spans.
          names: of the parts, for the sentence.
        """
        ends = np.cumsum(self.counts).tolist()
        for name, end, count, shortest in zip(names, ends, self.counts, self.shortest, strict=True):
            if shortest < width:
                lengths = self.lengths[end - count : end]
                offsets = np.concatenate([[0], np.cumsum(lengths)])
                records = Records(self.ids[end - count : end], self.codes[:0, 0], offsets)
                check_minimum(records, width, name)


def find_or_make(
    key: Any,
    cache: str | Path,
    fill: Callable[[StoreWriter], None],
    lengths: str = "error",
    length: int = 0,
    width: int = 1,
) -> CodeStore:
    """Returns the store that an earlier call made for the same key, or makes it.

    Any number of processes may call it at once with one cache: one of them makes the store while
    the others wait, and a store appears whole or not at all.

    Args:
      key: all that decides what `fill` writes, the digests of its inputs among it, as JSON has it.
      cache: folder of all stores; made if absent. Each store is a folder in it, named by its key.
      fill: writes the sequences.
      lengths: a policy of `fit_length`.
      length: bases of each row; 0 takes the common length (`error`), the shortest (`center_crop`)
        or the longest (`pad`).
      width: bases that a filter spans; see `fit_length`.

    Raises:
      UserError: `fill` does, or a sequence has a length that the policy refuses.
    """
    check_choice("--config.data.lengths", lengths, LENGTH_POLICIES)
    settings = [_FORMAT, key, lengths, length]
    target = Path(cache) / hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:20]
    if target.exists():
        return open_store(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target) as alone:
            if not target.exists():
                _make(target, alone, lambda at: StoreWriter(at, lengths, length, width), fill)
    except OSError as error:
        raise UserError(
            f"the converted sequences cannot be written to {target.parent} "
            f"({(error.strerror or str(error)).lower()}); legal: a folder with enough free space"
        ) from error
    return open_store(target)


def default_cache() -> Path:
    """Returns the user's folder of stores."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "jaxdna" / "codes"


def open_store(folder: str | Path) -> CodeStore:
    """Returns the store in `folder`, as `find_or_make` made it.

    Raises:
      UserError: a file of it is not as it was written: codes out of range would be trained on.
    """
    folder = Path(folder)
    cause = damage(folder)
    if cause is not None:
        raise UserError(
            f"the converted sequences in {folder} are damaged ({cause}); legal: remove that "
            "folder, and they are converted anew"
        )
    meta = json.loads((folder / "store.json").read_text(encoding="utf-8"))
    with np.load(folder / "columns.npz") as columns:
        return CodeStore(
            folder,
            np.load(folder / "codes.npy", mmap_mode="r"),
            tuple(meta["counts"]),
            tuple(tuple(notes) for notes in meta["notes"]),
            tuple(meta["shortest"]),
            dict(columns),
        )


def _make(
    target: Path,
    alone: bool,
    begin: Callable[[Path], StoreWriter],
    fill: Callable[[StoreWriter], None],
) -> None:
    prefix = f".partial-{target.name}-{socket.gethostname()}-"
    if alone:  # whoever left one here was killed
        for left in target.parent.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        partial.chmod(0o755)  # mkdtemp hides it from the other users of a shared cache
        with begin(partial) as writer:
            fill(writer)
            writer.finish()
        write_manifest(partial)
        partial.rename(target)
    except OSError:
        if not target.exists():  # else another process was faster
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _alone(target: Path) -> Iterator[bool]:
    """Lets one process at a time make a store; yields False where the file system has no locks.

    Without it each of them would do the work, and need the space, of all.
    """
    path = target.with_name(f".lock-{target.name}")
    while True:
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except PermissionError:  # another user's, in a shared cache
            yield False
            return
        try:
            locked = _lock(lock)
            if locked and not _is_at(lock, path):
                continue  # its holder removed it while we waited
            try:
                yield locked
            finally:
                if locked:
                    path.unlink(missing_ok=True)
            return
        finally:
            os.close(lock)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
