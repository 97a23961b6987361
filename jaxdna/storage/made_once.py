"""Folders that any number of processes may want at once: one makes each, whole or not at all."""

import errno
import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxdna.storage.manifest import write_manifest

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def made_once(target: Path, fill: Callable[[Path], None]) -> None:
    """Makes a folder and its manifest, unless it is there; the others wait for who makes it.

    Args:
      target: the folder; those above it are made if absent.
      fill: writes what shall be in it into an empty folder beside it.

    Raises:
      OSError: it cannot be written; and whatever `fill` raises.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(target) as alone:
        if not target.exists():
            _make(target, alone, fill)


def _make(target: Path, alone: bool, fill: Callable[[Path], None]) -> None:
    prefix = f".partial-{target.name}-{socket.gethostname()}-"
    if alone:  # whoever left one here was killed
        for left in target.parent.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        partial.chmod(0o755)  # mkdtemp hides it from the other users of a shared cache
        fill(partial)
        write_manifest(partial)
        partial.rename(target)
    except OSError:
        if not target.exists():  # else another process was faster
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
