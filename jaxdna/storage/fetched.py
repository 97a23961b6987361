"""Input files under a URL, each fetched once into the user's cache."""

import errno
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, Any

from jaxdna.errors import UserError
from jaxdna.storage.disk import DiskFolder
from jaxdna.storage.home import user_cache
from jaxdna.storage.made_once import made_once
from jaxdna.storage.manifest import damage
from jaxdna.storage.places import Place, Url, input_place
from jaxdna.storage.remote import file_system, os_errors

_FIRST_SECONDS = 8.0  # for the first answer, so that a wrong name is known soon
_SECONDS = 20.0  # for any other
_BLOCK = 8 * 2**20  # one request each
_TRIES = 4  # of a block, after 1, 2 and 4 s
_VERSIONS = ("ETag", "etag", "generation", "Last-Modified", "last_modified")


def local_path(name: str | Place) -> Path:
    """Returns where an input file is on this host's disk: itself, or the copy of what a URL names.

    A copy is kept under the URL and the version that its server says (an ETag), and its bytes are
    compared with their digest before it is used. Each host fetches for itself.

    Args:
      name: a path, or a URL with `gs://`, `s3://` or `https://`.

    Raises:
      OSError: the file is not there, may not be read, or the server does not answer.
      UserError: a package that it needs is missing; or the user has no cache.
    """
    place = input_place(name)
    return _fetched(place) if isinstance(place, Url) else place


def is_input_file(name: str) -> bool:
    """Whether a name is that of a file or a URL: no pipe, which can be read only once."""
    return isinstance(input_place(name), Url) or os.path.isfile(name)


@lru_cache(maxsize=1000)  # one process reads one version: what it has seen it sees again
def _fetched(url: Url) -> Path:
    cache = user_cache()
    if cache is None:
        raise UserError(f"{url} needs a folder for its copy; set HOME or XDG_CACHE_HOME")
    system = file_system(url)
    with os_errors(str(url), _FIRST_SECONDS):
        found = system.info(str(url), timeout=_FIRST_SECONDS)
    version = next((str(found[key]) for key in _VERSIONS if found.get(key)), "")
    size = found.get("size")
    named = hashlib.sha256(f"{url} {version} {size}".encode()).hexdigest()[:20]
    folder = cache / "fetched" / named

    def fill(at: Path) -> None:
        shown = f"{size / 1e6:,.1f} MB" if size else "of unknown size"
        print(f"fetching {url} ({shown}) into {folder}", file=sys.stderr)
        with (at / url.name).open("wb") as output:
            if size and (url.parts[0] != "https:" or found.get("partial")):
                _copy(system, url, size, output)
            else:  # its server cannot read from the middle
                with os_errors(str(url), _SECONDS), system.open(str(url), block_size=0) as stream:
                    shutil.copyfileobj(stream, output, _BLOCK)

    def whole(at: Path) -> bool:
        return at.exists() and damage(DiskFolder(at)) is None

    made_once(folder, fill, whole)
    return folder / url.name


def _copy(system: Any, url: Url, size: int, output: IO[bytes]) -> None:
    """Copies a file, in blocks whose requests are made again where they fail."""
    for start in range(0, size, _BLOCK):
        stop = min(size, start + _BLOCK)
        ask = partial(system.cat_file, str(url), start=start, end=stop, timeout=_SECONDS)
        block = _again(ask, url)
        if len(block) != stop - start:
            raise OSError(errno.EIO, f"{len(block):,} bytes came and not {stop - start:,}")
        output.write(block)


def _again(ask: Callable[[], bytes], url: Url) -> bytes:
    for tries in range(_TRIES - 1):
        try:
            with os_errors(str(url), _SECONDS):
                return ask()
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            time.sleep(2**tries)
    with os_errors(str(url), _SECONDS):
        return ask()
