"""Where a folder can be."""

import re
from pathlib import Path

from jaxdna.errors import UserError

Place = Path
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")


def place_of(text: str | Path, flag: str = "--workdir") -> Place:
    """Returns the folder that `text` names.

    Args:
      text: a path; not one that `Path` has made of a URL.
      flag: where it was given.

    Raises:
      UserError: it is a URL.
    """
    if _SCHEME.match(str(text)):
        raise UserError(f"{flag}={text} is a URL; legal: a folder on a disk")
    return Path(text)


def beside(place: Place, suffix: str) -> Path:
    """Returns the folder beside a run folder for what belongs to the run and is not of it."""
    return place.with_name(place.name + suffix)
