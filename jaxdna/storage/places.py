"""Where a folder or a file can be: on a disk, or in an object store under a URL."""

import re
from pathlib import Path, PurePosixPath

from jaxdna.errors import UserError

STORES = ("gs", "s3")  # those whose writes can have a precondition, and that Orbax writes to
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
_PATTERN = frozenset("*?[")  # by which fsspec finds several names
_CHOICE = re.compile(rf"((?:{_SCHEME.pattern}[^/]*)?[^:]*):?(.*)", re.DOTALL)


class Url(PurePosixPath):
    """A place in an object store, `gs://bucket/folder`; names are computed, nothing is touched."""

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    def absolute(self) -> "Url":
        """Returns itself."""
        return self

    def resolve(self) -> "Url":
        """Returns itself: a store has no links."""
        return self


Place = Path | Url


def place_of(text: str | Path, flag: str = "--workdir") -> Place:
    """Returns the folder that `text` names.

    Args:
      text: a path, or a URL; also one that `Path` has taken a slash from.
      flag: where it was given.

    Raises:
      UserError: the URL has an unknown scheme, no folder in a bucket, or no slashes, or a pattern.
    """
    found = _SCHEME.match(str(text))
    if not found:
        scheme, colon, rest = str(text).partition(":")
        if colon and scheme in STORES:
            raise UserError(
                f"{flag}={text} is not a URL; give {scheme}://{rest or 'BUCKET/FOLDER'}, or "
                f"./{text} for a folder on a disk"
            )
        return Path(text)
    scheme, url = found[1], Url(text)
    shown = f"{scheme}://{str(text)[found.end() :]}"
    if scheme not in STORES:
        raise UserError(
            f"{flag}={shown}: the scheme {scheme}:// is unknown; give a folder on a "
            "disk, gs://BUCKET/FOLDER or s3://BUCKET/FOLDER"
        )
    if len(url.parts) < 3:
        raise UserError(
            f"{flag}={shown} names no folder in a bucket; give {scheme}://BUCKET/FOLDER, such as "
            f"{url if len(url.parts) > 1 else scheme + '://bucket'}/runs/a"
        )
    if ".." in url.parts or not _PATTERN.isdisjoint(shown):
        raise UserError(
            f"{flag}={shown} is not legal: the names in a URL must be without *, ?, [ and .., "
            "which could mean the objects of other runs"
        )
    return url


def disk_path(text: str, flag: str = "--output") -> Path:
    """Returns the file or folder on a disk that `text` names.

    Raises:
      UserError: it is a URL.
    """
    if _SCHEME.match(text):
        raise UserError(f"{flag}={text} is a URL; give a path on a disk")
    return Path(text)


def name_and_choice(text: str) -> tuple[str, str]:
    """Splits `FILE:CHOICE`, where the file may be a URL; the choice is empty where none is."""
    found = _CHOICE.fullmatch(text)
    assert found  # anything fits
    return found[1], found[3]


def input_place(name: str | Place) -> Place:
    """Returns what names an input file, which may also be read over `https://`."""
    found = _SCHEME.match(str(name))
    return Url(name) if found and found[1] in (*STORES, "https") else Path(name)


def beside(place: Place, suffix: str) -> Path:
    """Returns a folder on this host's disk for what belongs to a run and is not of it.

    It is beside the run folder where that is on a disk, and in `runs` where it is not.
    """
    name = place.name + suffix
    return place.with_name(name) if isinstance(place, Path) else Path("runs") / name
