"""A list of every file of a folder with its size and digest: what was written, and is it still so?

The digests find what disks, file systems and copies do to files (a flipped bit, a zeroed page, a
cut end). They are no signature: who can write the folder can write its manifest too.
"""

import json
from pathlib import Path
from typing import Any

import xxhash

from jaxdna.storage.files import Folder

NAME = "manifest.json"
UNREAD = "it cannot be read"  # how `damage` begins where the system, not the content, is at fault
_MOST_BYTES = 64 * 2**20  # of a manifest; one of our own has a few kilobytes


def manifest(folder: Folder, name: str = "") -> str:
    """Returns the manifest of every file below the folder `name` of `folder`.

    Raises:
      OSError: a file cannot be read.
      ValueError: there is something else than files and folders below it.
    """
    files = {
        file: {"bytes": size, "xxh3_128": _digest(folder, _below(name, file), size)}
        for file, size in _sizes(folder, name).items()
    }
    return json.dumps({"digest": "xxh3_128", "files": files}, indent=1) + "\n"


def write_manifest(folder: Folder, name: str = "") -> None:
    """Writes the manifest of a folder into it; raises what `manifest` does, and OSError."""
    folder.write(_below(name, NAME), manifest(folder, name))


def damage(folder: Folder, name: str = "") -> str | None:
    """Compares the folder `name` of `folder` with its manifest.

    Names and sizes are compared first, so that nothing is read that was not there when the
    manifest was written, and no more of it.

    Returns:
      What is wrong, in words that fit into brackets; None where nothing is.
    """
    try:
        declared = _read(folder, _below(name, NAME))
        found = _sizes(folder, name)
        for file in sorted(declared.keys() | found.keys()):
            if file not in found:
                return f"{file} is missing"
            if file not in declared:
                return f"{file} does not belong to it"
            size, expected = found[file], declared[file]["bytes"]
            if size != expected:
                return f"{file} has {size:,} bytes instead of {expected:,}"
        for file, size in found.items():
            if _digest(folder, _below(name, file), size) != declared[file]["xxh3_128"]:
                return f"the digest of {file} is not the one it was written with"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{UNREAD}: {error.strerror}"
    except (ValueError, RecursionError) as error:
        return str(error)
    return None


def read_small_json(folder: Folder, name: str, most_bytes: int) -> Any:
    """Returns the value of a JSON file whose size is capped.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is not a regular file, larger than `most_bytes`, or no JSON.
    """
    text = folder.read(name, most_bytes)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{Path(name).name} is not JSON") from None


def _read(folder: Folder, name: str) -> dict[str, dict[str, Any]]:
    value = read_small_json(folder, name, _MOST_BYTES)
    files = value.get("files") if isinstance(value, dict) else None
    if not isinstance(files, dict) or not all(
        isinstance(entry, dict)
        and isinstance(entry.get("bytes"), int)
        and isinstance(entry.get("xxh3_128"), str)
        for entry in files.values()
    ):
        raise ValueError(f"{Path(name).name} is not a manifest")
    return files


def _sizes(folder: Folder, name: str) -> dict[str, int]:
    """Bytes of every file of the folder but the manifest itself."""
    return {file: size for file, size in folder.sizes(name).items() if file != NAME}


def _digest(folder: Folder, name: str, size: int) -> str:
    digest = xxhash.xxh3_128()
    for block in folder.blocks(name, size):
        digest.update(block)
    return digest.hexdigest()


def _below(name: str, file: str) -> str:
    return f"{name}/{file}" if name else file
