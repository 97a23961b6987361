"""Input files under URLs: read as they come, or fetched once into the user's cache."""

import errno
import hashlib
import io
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
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
_TRIES, _WAIT_SECONDS = 4, 1.0  # of a block: after 1, 2 and 4 s
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


def open_input(name: str | Place) -> IO[bytes]:
    """Opens an input file to be read once, from its beginning to its end.

    What a URL names is read as it comes, and leaves nothing on the disk; it is read from the copy
    that `local_path` has made, if that is there.

    Args:
      name: as that of `local_path`.

    Raises:
      OSError: as `local_path`, when it is read too; also where it changes meanwhile.
      UserError: a package that it needs is missing.
    """
    place = input_place(name)
    if not isinstance(place, Url):
        return open(place, "rb")
    remote = _seen(place)
    if not remote.parts or (user_cache() and remote.copy.exists()):
        return _fetched(place).open("rb")
    return io.BufferedReader(_Stream(remote), _BLOCK)


def is_input_file(name: str) -> bool:
    """Whether a name is that of a file or a URL: no pipe, which can be read only once."""
    return isinstance(input_place(name), Url) or os.path.isfile(name)


@dataclass(frozen=True)
class _Remote:
    """What a URL names.

    Attributes:
      url: the URL.
      version: what its server says of it, so that another file under the URL is told from it.
      size: its bytes, if they are known.
      parts: whether it can be read from the middle.
    """

    url: Url
    version: str
    size: int | None
    parts: bool

    @property
    def copy(self) -> Path:
        """Where its copy is, or will be."""
        cache = user_cache()
        if cache is None:
            raise UserError(f"{self.url} needs a folder for its copy; set HOME or XDG_CACHE_HOME")
        named = hashlib.sha256(f"{self.url} {self.version} {self.size}".encode()).hexdigest()[:20]
        return cache / "fetched" / named / self.url.name


def _ask(url: Url) -> _Remote:
    with os_errors(str(url), _FIRST_SECONDS):
        found = file_system(url).info(str(url), timeout=_FIRST_SECONDS)
    version = next((str(found[key]) for key in _VERSIONS if found.get(key)), "")
    size = found.get("size")
    parts = bool(size) and (url.parts[0] != "https:" or bool(found.get("partial")))
    return _Remote(url, version, size, parts)


# One process reads one version: what it has seen it sees again.
_seen = lru_cache(maxsize=1000)(_ask)


@lru_cache(maxsize=1000)
def _fetched(url: Url) -> Path:
    remote = _seen(url)
    folder = remote.copy.parent

    def fill(at: Path) -> None:
        shown = f"{remote.size / 1e6:,.1f} MB" if remote.size else "of unknown size"
        print(f"fetching {url} ({shown}) into {folder}", file=sys.stderr)
        with (at / url.name).open("wb") as output:
            if remote.parts:
                shutil.copyfileobj(_Stream(remote), output, _BLOCK)
            else:
                system = file_system(url)
                with os_errors(str(url), _SECONDS), system.open(str(url), block_size=0) as stream:
                    shutil.copyfileobj(stream, output, _BLOCK)

    made_once(folder, fill, _whole)
    return remote.copy


def _whole(at: Path) -> bool:
    return at.exists() and damage(DiskFolder(at)) is None


class _Stream(io.RawIOBase):
    """A file from its beginning to its end, by requests that are made again where they fail.

    Attributes:
      size: its bytes.
    """

    def __init__(self, remote: _Remote):
        """Takes what it reads; nothing is asked for yet."""
        self._remote, self.size, self._place = remote, remote.size or 0, 0

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads the next bytes; 0 at the end, where the file must still be the same."""
        url, start = self._remote.url, self._place
        stop = min(self.size, start + len(buffer))
        if start == stop:
            if _again(partial(_ask, url), url) != self._remote:
                raise OSError(errno.EIO, "it changed while it was being read")
            return 0
        system = file_system(url)
        ask = partial(system.cat_file, str(url), start=start, end=stop, timeout=_SECONDS)
        block = _again(ask, url)
        if len(block) != stop - start:
            raise OSError(errno.EIO, f"{len(block):,} bytes came and not {stop - start:,}")
        buffer[: len(block)] = block
        self._place = stop
        return len(block)


def _again(ask: Callable[[], Any], url: Url) -> Any:
    for tries in range(_TRIES - 1):
        try:
            with os_errors(str(url), _SECONDS):
                return ask()
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            time.sleep(_WAIT_SECONDS * 2**tries)
    with os_errors(str(url), _SECONDS):
        return ask()
