"""The one way into a folder, on a disk or in a bucket: files that are whole or absent.

Everything that jaxdna reads and writes in a run folder goes through a `Folder`. Its two forms are
`disk.DiskFolder` and `bucket.BucketFolder`; `folder_at` alone tells them apart.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxdna.errors import StorageError, UserError
from jaxdna.storage.locks import Lock
from jaxdna.storage.places import Place, Url

UNFINISHED = ".unfinished"  # ends the names of what is still being written


class FolderLost(StorageError):
    """The folder is not at its path any more."""


class Folder(ABC):
    """A folder, whose files have names that are relative to it (`export/README.md`).

    What a call has written is safe when it returns, but for what `append` adds. All calls raise
    OSError where the system cannot do it. Those that change something raise FolderLost where the
    folder is not there any more, and what `guard` raises; they have done nothing then.

    Attributes:
      path: where it is.
      guard: is called before anything is changed, and raises where it must not be.
    """

    path: Place
    guard: Callable[[], None]

    @abstractmethod
    def check(self) -> None:
        """Raises FolderLost, or what `guard` raises, where nothing may be written any more."""

    @abstractmethod
    def place(self, name: str = "") -> Place:
        """Returns where `name` is, for libraries that write by themselves.

        Raises:
          UserError: a symbolic link is in the way.
        """

    @abstractmethod
    def make(self, name: str = "") -> Place:
        """Makes a folder, and those above it, unless it is there; returns its place."""

    @abstractmethod
    def write(self, name: str, content: str | bytes) -> None:
        """Writes a whole file: readers see the old one or the new one, never a part."""

    @abstractmethod
    def append(self, name: str, content: str | bytes) -> None:
        """Adds to the end of a file; it is safe at the latest after the next `write`."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Removes a file, a link, or a folder with all that is in it; nothing where none is."""

    @abstractmethod
    def read(self, name: str, most_bytes: int | None = None) -> bytes:
        """Returns what is in a file.

        Raises:
          FileNotFoundError: there is none.
          ValueError: it is no regular file, or larger than `most_bytes`.
        """

    @abstractmethod
    def local(self, name: str) -> Path:
        """Returns the path of a file, or of a copy of it, on this host's disk."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is a file or folder of this name."""

    @abstractmethod
    def names(self, name: str = "") -> list[str]:
        """Returns what is in a folder; nothing where there is none.

        Raises:
          NotADirectoryError: there is a file in its place.
        """

    @abstractmethod
    def sizes(self, name: str = "") -> dict[str, int]:
        """Returns the bytes of every file in and below a folder, by its name relative to it.

        Raises:
          ValueError: there is something else than files and folders below it.
        """

    @abstractmethod
    def blocks(self, name: str, size: int) -> Iterator[Any]:
        """Returns the `size` bytes of a file, in pieces that fit into memory."""

    @abstractmethod
    def begin(self, name: str) -> None:
        """Makes an empty folder at `unfinished(name)`, which becomes `name` when it is whole."""

    @abstractmethod
    def unfinished(self, name: str) -> str:
        """Where the folder `name` is put together until it is whole."""

    @abstractmethod
    def finish(self, name: str) -> None:
        """Gives the unfinished folder its manifest and its name; it is whole or absent."""

    @abstractmethod
    def discard(self, name: str) -> None:
        """Removes what a failed library has written to the unfinished folder, and still writes."""

    @abstractmethod
    def finished(self) -> list[str]:
        """Returns the folders in this one that are not unfinished."""

    @abstractmethod
    def sees(self, name: str) -> bool:
        """Whether a file is there that another host has just written."""

    @abstractmethod
    def lock(self, name: str) -> Lock:
        """Returns the lock that is kept under this name; nothing is touched."""

    @abstractmethod
    def drop_empty(self) -> None:
        """Removes the folder itself if there is nothing in it."""

    @abstractmethod
    def check_room(self, needed: int) -> None:
        """Raises OSError where it is known that so many bytes have no room."""

    @abstractmethod
    def room(self) -> str:
        """What a person wants to know where a write has failed, as `; …`, or nothing."""

    def failure(self, what: str, error: BaseException) -> StorageError:
        """Returns the error to raise where something could not be written here.

        Args:
          what: e.g. `the checkpoint`.
          error: what the system, or a library that writes for us, said.
        """
        cause = getattr(error, "strerror", None) or " ".join(str(error).split()) or repr(error)
        return StorageError(
            f"{what} cannot be written to {self.path} ({cause[:500]}){self.room()}; "
            "what was saved before is intact, and the same command resumes from it"
        )


def folder_at(place: Place, root: Place | None = None) -> Folder:
    """Returns the folder at a place; nothing is touched.

    Args:
      place: of the folder.
      root: the folder above it below which no symbolic link is followed; `place` itself if None.
    """
    if isinstance(place, Url):
        from jaxdna.storage.bucket import BucketFolder

        return BucketFolder(place)
    from jaxdna.storage.disk import DiskFolder

    return DiskFolder(place, root if isinstance(root, Path) else None)


@contextmanager
def writing(output: Folder, flag: str = "--output") -> Iterator[None]:
    """Raises UserError where the folder that `flag` gives a verb for results cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{flag}={output.path} cannot be written ({(error.strerror or str(error)).lower()})"
        ) from error


def picture(figure: Any, kind: str, **options: Any) -> bytes:
    """Returns the file of a matplotlib figure.

    Args:
      figure: matplotlib's.
      kind: `png` or `svg`.
      **options: those of `Figure.savefig`.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()
