"""Folders that any number of processes may want at once: one makes each, whole or not at all."""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxdna.storage.disk import DiskFolder, flush, flush_names
from jaxdna.storage.handles import is_at, kernel_lock
from jaxdna.storage.manifest import write_manifest


def made_once(
    target: Path, fill: Callable[[Path], None], whole: Callable[[Path], bool] = Path.exists
) -> None:
    """Makes a folder and its manifest, unless it is there; the others wait for who makes it.

    It is on the disk before it has its name, so that no power failure leaves a part of it.

    Args:
      target: the folder; those above it are made if absent.
      fill: writes its content into an empty folder beside it.
      whole: whether the folder is there and can be used; another is made in the place of one that
        cannot.

    Raises:
      OSError: it cannot be written; and whatever `fill` raises.
    """
    if whole(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(target) as alone:
        if not whole(target):
            _make(target, alone, fill, whole)


def _make(
    target: Path, alone: bool, fill: Callable[[Path], None], whole: Callable[[Path], bool]
) -> None:
    prefix = f".partial-{target.name}-{socket.gethostname()}-"
    if alone:  # whoever left one here was killed
        for left in target.parent.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    aside = partial.with_name(f"{partial.name}-aside")
    try:
        partial.chmod(0o755)  # mkdtemp hides it from the other users of a shared cache
        fill(partial)
        write_manifest(DiskFolder(partial))
        flush(partial)
        if target.exists() and not whole(target):
            target.rename(aside)
        partial.rename(target)
        flush_names(target.parent)
    except OSError:
        if not whole(target):  # else another process was faster
            raise
    finally:
        for left in (partial, aside):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _alone(target: Path) -> Iterator[bool]:
    """Lets one process at a time make a folder; yields False where the file system has no locks.

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
            locked = bool(kernel_lock(lock, wait=True))
            if locked and not is_at(lock, path):
                continue  # its holder removed it while we waited
            try:
                yield locked
            finally:
                if locked:
                    path.unlink(missing_ok=True)
            return
        finally:
            os.close(lock)
