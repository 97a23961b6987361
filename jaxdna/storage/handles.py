"""Open files and folders: whether they are still at their path, and whether we hold their lock."""

import errno
import fcntl
import os
from pathlib import Path

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def kernel_lock(handle: int, wait: bool = False) -> bool | None:
    """Takes the kernel's lock on an open file, which ends with the process.

    Args:
      handle: of the file.
      wait: whether to wait for whoever has it.

    Returns:
      Whether it is ours now; None where this file system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return True


def is_at(handle: int, path: Path) -> bool:
    """Whether what is open is still what lies at `path`."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return False
