"""Digests of input files: what a run was begun with, and whether it has changed."""

import hashlib
import json
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from jaxdna.data.streams import reason
from jaxdna.errors import UserError
from jaxdna.storage.fetched import local_path
from jaxdna.storage.parts import whole_file

# A file is remembered once nobody has touched it for so long: a write within the resolution of its
# times, or through a page that is mapped and not yet written back, could leave them as they are.
_SETTLED_SECONDS = 60.0


def file_digest(path: str | Path, memory: Path | None = None) -> str:
    """Returns the SHA-256 of a file's bytes, as text.

    Args:
      path: the file.
      memory: a folder, made if absent, that remembers the digests of files that stay as they are.
        A file is read again if its place on the disk, size, time of change or change time of the
        inode differs; the kernel sets the last one at each write, and no program can set it back.

    Raises:
      UserError: the file is stdin or a pipe, or cannot be read.
    """
    if str(path) == "-":
        raise UserError(
            "stdin cannot be trained on, since a rerun could not read it again; give a file"
        )
    place = None
    try:
        at = local_path(path)
        if memory is not None:
            name = hashlib.sha256(os.fsencode(os.path.realpath(at))).hexdigest()[:20]
            place = memory / f"{name}.json"
        if stat.S_ISFIFO(os.stat(at).st_mode):  # to open it would wait for a writer
            raise UserError(f"{path} is a pipe, which a rerun could not read again; give a file")
        with open(at, "rb") as file:
            now = time.time()
            state = _state(file.fileno())
            if place and (known := _recall(place, state)):
                return known
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            settled = now - max(state[-2:]) / 1e9 >= _SETTLED_SECONDS
            if place and settled and _state(file.fileno()) == state:
                _remember(place, state, digest)
            return digest
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({reason(error, path)}); give a file, plain or gzipped"
        ) from error


def check_unchanged(path: str | Path, digest: str, memory: Path | None = None) -> None:
    """Refuses what was made from a file that has changed meanwhile, before it is kept.

    Args:
      path: the file.
      digest: what `file_digest` said before it was read.
      memory: as that of `file_digest`.

    Raises:
      UserError: the file has another digest now.
    """
    if file_digest(path, memory) != digest:
        raise UserError(f"{path} changed while it was being read; run the same command again")


def _state(handle: int) -> list[int]:
    found = os.fstat(handle)
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _recall(place: Path, state: list[int]) -> str:
    with suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(place.read_text())
        if known["state"] == state and isinstance(known["sha256"], str):
            return known["sha256"]
    return ""


def _remember(place: Path, state: list[int], digest: str) -> None:
    with suppress(OSError):  # a memory that cannot be written costs time, nothing else
        place.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(place) as part:
            part.write_text(json.dumps({"state": state, "sha256": digest}))
