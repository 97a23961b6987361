"""A list of every file of a folder with its size and digest: what was written, and is it still so?

The digests find what disks, file systems and copies do to files (a flipped bit, a zeroed page, a
cut end). They are no signature: who can write the folder can write its manifest too.
"""

import json
import mmap
import os
import stat
from pathlib import Path
from typing import Any

import xxhash

NAME = "manifest.json"
UNREAD = "it cannot be read"  # how `damage` begins where the system, not the content, is at fault
_MOST_BYTES = 64 * 2**20  # of a manifest; one of our own has a few kilobytes
_BLOCK = 64 * 2**20
_FETCH_PAGES = 22  # MADV_POPULATE_READ of Linux 5.14, which Python has no name for


def write_manifest(folder: Path) -> None:
    """Writes the manifest of every file below `folder`, into it.

    Raises:
      OSError: a file cannot be read, or the manifest not written.
      ValueError: there is something else than files and folders below it.
    """
    text = json.dumps({"digest": "xxh3_128", "files": _measure(folder, digests=True)}, indent=1)
    with (folder / NAME).open("w") as stream:
        stream.write(text + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def damage(folder: Path) -> str | None:
    """Compares a folder with its manifest.

    Names and sizes are compared first, so that nothing is read that was not there when the
    manifest was written, and no more of it.

    Returns:
      What is wrong, in words that fit into brackets; None where nothing is.
    """
    try:
        declared = _read(folder / NAME)
        found = _measure(folder, digests=False)
        for name in sorted(declared.keys() | found.keys()):
            if name not in found:
                return f"{name} is missing"
            if name not in declared:
                return f"{name} does not belong to it"
            size, expected = found[name]["bytes"], declared[name]["bytes"]
            if size != expected:
                return f"{name} has {size:,} bytes and not {expected:,}"
        for name, entry in _measure(folder, digests=True).items():
            if entry["xxh3_128"] != declared[name]["xxh3_128"]:
                return f"the digest of {name} is not the one it was written with"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{UNREAD}: {error.strerror}"
    except (ValueError, RecursionError) as error:
        return str(error)
    return None


def read_small_json(path: Path, most_bytes: int) -> Any:
    """Returns the value of a JSON file whose size is capped.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is not a regular file, larger than `most_bytes`, or no JSON.
    """
    _check_regular(path)
    with path.open("rb") as stream:
        text = stream.read(most_bytes + 1)
    if len(text) > most_bytes:
        raise ValueError(f"{path.name} is larger than {most_bytes >> 20} MiB")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{path.name} is not JSON") from None


def _read(path: Path) -> dict[str, dict[str, Any]]:
    value = read_small_json(path, _MOST_BYTES)
    files = value.get("files") if isinstance(value, dict) else None
    if not isinstance(files, dict) or not all(
        isinstance(entry, dict)
        and isinstance(entry.get("bytes"), int)
        and isinstance(entry.get("xxh3_128"), str)
        for entry in files.values()
    ):
        raise ValueError(f"{path.name} is not a manifest")
    return files


def _measure(folder: Path, digests: bool) -> dict[str, dict[str, Any]]:
    """Size, and digest if asked for, of every file below `folder` except the manifest itself."""
    paths = {
        path.relative_to(folder).as_posix(): path
        for root, folders, names in os.walk(folder, onerror=_raise)
        for path in (Path(root, name) for name in (*folders, *names))
        if path.is_symlink() or not path.is_dir()
    }
    paths.pop(NAME, None)
    sizes = {name: _check_regular(path).st_size for name, path in sorted(paths.items())}
    if not digests:
        return {name: {"bytes": size} for name, size in sizes.items()}
    return {name: {"bytes": size, "xxh3_128": _digest(paths[name])} for name, size in sizes.items()}


def _check_regular(path: Path) -> os.stat_result:
    """A link could lead out of the folder, a pipe would be waited for, a device has no end."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path.name} is not a regular file")
    return found


def _digest(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        for start in range(0, size, _BLOCK):
            length = min(_BLOCK, size - start)
            try:
                # Two to three times as fast as reading. A page of a mapped file that the disk
                # cannot give ends the process, so the kernel is first asked to fetch them all.
                with mmap.mmap(
                    stream.fileno(), length, access=mmap.ACCESS_READ, offset=start
                ) as at:
                    at.madvise(_FETCH_PAGES)
                    digest.update(at)
            except (OSError, ValueError):  # not here: another system, file system or old kernel
                digest.update(os.pread(stream.fileno(), length, start))
    return digest.hexdigest()


def _raise(error: OSError) -> None:
    raise error
