"""The one way into a folder: files that are whole or absent, and stay so when the power fails.

Everything that jaxdna writes into a run folder goes through a `Folder`. Nothing is written through
a symbolic link, which in a folder from elsewhere could lead anywhere, and nothing into a folder
that has come into the place of another one.
"""

import errno
import io
import os
import secrets
import shutil
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jaxdna.errors import StorageError, UserError
from jaxdna.storage.handles import is_at

UNFINISHED = ".unfinished"  # ends the names of files that are still being written
_NO_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)  # of a folder: some cannot, or may not


class FolderLost(StorageError):
    """The folder is not at its path any more."""


class Folder:
    """A folder that is written to, by names that are relative to it (`export/README.md`).

    What a call has written is on the disk when it returns. All calls raise OSError where the system
    cannot do it, UserError where a symbolic link is in the way, and FolderLost where the folder was
    moved, removed or replaced since `make`; they have done nothing then.

    Attributes:
      path: the folder; this may be a link.
      guard: is called before anything is changed, and raises where it must not be.
    """

    def __init__(self, path: Path, root: Path | None = None):
        """Names the folder; nothing is touched.

        Args:
          path: the folder.
          root: the folder above it below which no link is followed; `path` itself if None.
        """
        self.path = path
        self.guard: Callable[[], None] = lambda: None
        self._root = root or path
        self._handle: int | None = None

    def check(self) -> None:
        """Raises FolderLost, or what `guard` raises, where nothing may be written any more."""
        if self._handle is not None and not is_at(self._handle, self.path):
            raise FolderLost(
                f"{self.path} was moved, removed or replaced while it was written to; nothing was "
                "saved in its place. What was saved before is where the folder is now: bring it "
                "back, and the same command goes on"
            )
        self.guard()

    def place(self, name: str = "") -> Path:
        """Returns the path of `name`, for libraries that write by themselves."""
        self.check()
        place = self._root
        for part in (self.path / name).relative_to(self._root).parts:
            place /= part
            if place.is_symlink():
                raise UserError(
                    f"{place} is a symbolic link: nothing is written through one inside "
                    f"{self._root}; remove it, or give another folder"
                )
        return self.path / name

    def make(self, name: str = "") -> Path:
        """Makes a folder, and those above it, unless it is there; returns its path."""
        place = self.place(name)
        missing = [part for part in (place, *place.parents) if not part.exists()]
        if self._handle is not None:  # what has gone meanwhile is not made anew
            missing = [part for part in missing if part.is_relative_to(self.path)]
        for part in reversed(missing):
            part.mkdir(exist_ok=True)
            flush_names(part.parent)
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
        if self._handle is None:
            # Held open, so that no other folder can get its number in the file system.
            self._handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            weakref.finalize(self, _close, self._handle)
        return place

    def write(self, name: str, content: str | bytes) -> None:
        """Writes a whole file: readers see the old one or the new one, never a part."""
        path = self.place(name)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
        try:
            _write(temporary, content, os.O_EXCL)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        flush_names(path.parent)

    def append(self, name: str, line: str) -> None:
        """Adds a line to the end of a file."""
        _write(self.place(name), line + "\n", os.O_APPEND)

    def rename(self, name: str, new: str) -> None:
        """Gives another name to a file or a folder."""
        path, target = self.place(name), self.place(new)
        path.rename(target)
        flush_names(target.parent)

    def remove(self, name: str) -> None:
        """Removes a file, a link, or a folder with all that is in it; nothing where none is."""
        path = self.place(str(Path(name).parent)) / Path(name).name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def names(self, name: str = "") -> list[str]:
        """Returns what is in a folder; nothing where there is none."""
        path = self.path / name
        return sorted(os.listdir(path)) if path.is_dir() else []

    def flush(self, name: str) -> None:
        """Brings to the disk what others have written into a folder."""
        flush(self.place(name))


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


def _write(path: Path, content: str | bytes, flag: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | flag
    with open(os.open(path, flags, 0o666), "wb", buffering=0) as stream:
        left = memoryview(content.encode() if isinstance(content, str) else content)
        while left:
            left = left[stream.write(left) :]
        os.fsync(stream.fileno())


def flush(folder: Path) -> None:
    """Brings to the disk every file and folder below a folder, and itself."""
    for root, _, files in os.walk(folder, topdown=False, onerror=_raise):
        for file in files:
            _flush(Path(root, file))
        flush_names(Path(root))


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_names(path: Path) -> None:
    """Brings the names in a folder to the disk; the folder itself may be a link."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise


def _close(handle: int) -> None:
    with suppress(OSError):  # nothing was written through it
        os.close(handle)


def _raise(error: OSError) -> None:
    raise error
