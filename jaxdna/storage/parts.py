"""What is being written lies beside its target, and takes its name once it is whole.

A command that is killed leaves such a part behind; the next one that writes the same target removes
it. The kernel's lock, which ends with a process, tells the two apart.
"""

import glob
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from jaxdna.storage.handles import kernel_lock
from jaxdna.storage.permissions import umask

PART = ".part"  # ends the names of parts
_LOCKED_SECONDS = 10.0  # after which whoever makes a part has locked it


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Gives an empty file beside `target` that takes its name in the end, only if nothing fails.

    Raises:
      OSError: it cannot be made or renamed.
    """
    remove_left(target)
    handle, name = tempfile.mkstemp(PART, f".{target.name}.", target.parent)
    try:
        kernel_lock(handle)
        yield Path(name)
        os.chmod(name, 0o666 & ~umask())
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)
        os.close(handle)


def remove_left(target: Path, kind: str = PART) -> None:
    """Removes what commands that were killed have left of a file or of a folder of files.

    Nothing is removed that someone still writes: they have the lock of the file, or of one file in
    the folder, from its first moments until it has its name.

    Args:
      target: the file or folder.
      kind: what follows its name and eight letters.
    """
    for part in target.parent.glob(f".{glob.escape(target.name)}.????????{kind}"):
        with suppress(OSError), ExitStack() as opened:
            files = list(part.iterdir()) if part.is_dir() else [part]
            # Another command may not have locked what it has just made.
            old = time.time() - part.stat().st_mtime > _LOCKED_SECONDS
            if old and all(
                # NFS gives this lock only to those who could write.
                kernel_lock(opened.enter_context(file.open("r+b")).fileno())
                for file in files
            ):
                shutil.rmtree(part) if part.is_dir() else part.unlink()
