"""Files that readers see whole or not at all."""

import os
import tempfile
from pathlib import Path

UNFINISHED = ".unfinished"  # ends the names of files that are still being written


def write_atomic(path: Path, text: str) -> None:
    """Writes a file so that readers see the old one or the new one, never a part."""
    handle, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED
    )
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
