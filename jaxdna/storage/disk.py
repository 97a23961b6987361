"""A folder on a disk: what was written stays so when the power fails.

Nothing is written through a symbolic link, which in a folder from elsewhere could lead anywhere,
and nothing into a folder that has come into the place of another one.
"""

import errno
import mmap
import os
import secrets
import shutil
import stat
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from jaxdna.errors import UserError
from jaxdna.storage.files import UNFINISHED, Folder, FolderLost
from jaxdna.storage.handles import is_at, kernel_lock
from jaxdna.storage.manifest import NAME as MANIFEST
from jaxdna.storage.manifest import manifest
from jaxdna.storage.parts import remove_left
from jaxdna.storage.run_lock import RunLock

_NO_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)  # of a folder: some cannot, or may not
_BLOCK = 64 * 2**20
_FETCH_PAGES = 22  # MADV_POPULATE_READ of Linux 5.14, which Python has no name for


class DiskFolder(Folder):
    """A folder on a disk.

    Attributes:
      path: the folder; this may be a link.
    """

    path: Path

    def __init__(self, path: Path, root: Path | None = None):
        """Names the folder; nothing is touched. The arguments are those of `folder_at`."""
        self.path = path
        self.guard: Callable[[], None] = lambda: None
        self._root = root or path
        self._handle: int | None = None

    def check(self) -> None:
        if self._handle is not None and not is_at(self._handle, self.path):
            raise FolderLost(
                f"{self.path} was moved, removed or replaced while it was written to; nothing was "
                "saved in its place. What was saved before is where the folder is now: put it "
                "back, and the same command resumes"
            )
        self.guard()

    def place(self, name: str = "") -> Path:
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
        place = self.place(name)
        missing = [part for part in (place, *place.parents) if not part.exists()]
        if self._handle is not None:  # what has gone meanwhile is not made anew
            missing = [part for part in missing if self.path in part.parents]
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
        remove_left(self.place(name), UNFINISHED)
        path = self.place(name)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
        try:
            with _opened(temporary, os.O_EXCL) as stream:
                kernel_lock(stream.fileno())
                _write(stream, content)
                temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        flush_names(path.parent)

    def append(self, name: str, content: str | bytes) -> None:
        with _opened(self.place(name), os.O_APPEND) as stream:
            _write(stream, content)

    def rename(self, name: str, new: str) -> None:
        """Gives another name to a file or a folder."""
        path, target = self.place(name), self.place(new)
        path.rename(target)
        flush_names(target.parent)

    def remove(self, name: str) -> None:
        path = self.place(str(Path(name).parent)) / Path(name).name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def read(self, name: str, most_bytes: int | None = None) -> bytes:
        path = self.path / name
        _check_regular(path)
        with path.open("rb") as stream:
            content = stream.read(-1 if most_bytes is None else most_bytes + 1)
        if most_bytes is not None and len(content) > most_bytes:
            raise ValueError(f"{path.name} is larger than {most_bytes >> 20} MiB")
        return content

    def local(self, name: str) -> Path:
        return self.path / name

    def exists(self, name: str) -> bool:
        return (self.path / name).exists()

    def names(self, name: str = "") -> list[str]:
        path = self.path / name
        for part in (path, *path.parents):
            if part.exists() and not part.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(part))
        return sorted(os.listdir(path)) if path.exists() else []

    def sizes(self, name: str = "") -> dict[str, int]:
        folder = self.path / name
        paths = {
            path.relative_to(folder).as_posix(): path
            for root, folders, names in os.walk(folder, onerror=_raise)
            for path in (Path(root, name) for name in (*folders, *names))
            if path.is_symlink() or not path.is_dir()
        }
        return {name: _check_regular(path).st_size for name, path in sorted(paths.items())}

    def blocks(self, name: str, size: int) -> Iterator[Any]:
        with (self.path / name).open("rb", buffering=0) as stream:
            for start in range(0, size, _BLOCK):
                length = min(_BLOCK, size - start)
                try:
                    # Two to three times as fast as reading. A page of a mapped file that the disk
                    # cannot give ends the process, so the kernel is first asked to fetch them all.
                    with mmap.mmap(
                        stream.fileno(), length, access=mmap.ACCESS_READ, offset=start
                    ) as at:
                        at.madvise(_FETCH_PAGES)
                        yield at
                except (OSError, ValueError):  # not here: another system or file system, old kernel
                    yield os.pread(stream.fileno(), length, start)

    def begin(self, name: str) -> None:
        self.make()
        self.remove(self.unfinished(name))
        self.make(self.unfinished(name))

    def unfinished(self, name: str) -> str:
        return name + UNFINISHED

    def finish(self, name: str) -> None:
        unfinished = self.unfinished(name)
        (self.place(unfinished) / MANIFEST).write_text(manifest(self, unfinished))
        self.flush(unfinished)
        self.remove(name)  # damaged, or it would have been used
        self.rename(unfinished, name)

    def discard(self, name: str) -> None:
        path = self.path.absolute() / self.unfinished(name)
        try:
            self.check()
        except FolderLost:
            _remove_strays(path, self.path.absolute())
            raise
        _remove_for_good(path)

    def finished(self) -> list[str]:
        return [name for name in self.names() if not name.endswith(UNFINISHED)]

    def sees(self, name: str) -> bool:
        """Whether a file is there, though a network file system may remember that no folder was.

        It answers a look-up from memory for up to a minute, but never makes a folder that is there.
        """
        made = []
        for part in (*reversed(self.path.absolute().parents), self.path.absolute()):
            with suppress(OSError):
                part.mkdir()
                made.append(part)
        for part in reversed(made):
            with suppress(OSError):
                part.rmdir()
        return not made and self.exists(name)

    def lock(self, name: str) -> RunLock:
        return RunLock(self.path / name)

    def drop_empty(self) -> None:
        with suppress(OSError):
            self.path.rmdir()

    def check_room(self, needed: int) -> None:
        if shutil.disk_usage(self.path).free < needed:
            raise OSError(errno.ENOSPC, f"No space left on device for {needed / 1e6:,.1f} MB")

    def room(self) -> str:
        parts = (self.path, *self.path.absolute().parents)
        try:
            usage = shutil.disk_usage(next(part for part in parts if part.exists()))
        except OSError as unknown:
            return f"; free space there is unknown: {unknown.strerror}"
        return f"; {usage.free / 1e6:,.1f} MB of {usage.total / 1e6:,.1f} MB are free there"

    def flush(self, name: str) -> None:
        """Brings to the disk what others have written into a folder."""
        flush(self.place(name))


def _opened(path: Path, flag: int) -> IO[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | flag
    return open(os.open(path, flags, 0o666), "wb", buffering=0)


def _write(stream: IO[bytes], content: str | bytes) -> None:
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


def _check_regular(path: Path) -> os.stat_result:
    """A link could lead out of the folder, a pipe would be waited for, a device has no end."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path.name} is not a regular file")
    return found


def _remove_for_good(folder: Path, quiet_seconds: float = 0.15, *parents: Path) -> None:
    """Removes what a failed save has written, and what it still writes.

    Orbax raises the first error and leaves the other writes to themselves for some time; they make
    their folders anew.

    Args:
      folder: of the save.
      quiet_seconds: for so long it must not have come back.
      *parents: removed with it where they are empty, each time: this process may soon be ended.
    """
    gone, deadline = time.monotonic(), time.monotonic() + 5 + quiet_seconds
    while time.monotonic() < min(gone + quiet_seconds, deadline):
        if folder.exists():
            gone = time.monotonic()
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # it is not there, or has more in it
            for parent in parents:
                parent.rmdir()
        time.sleep(0.05)


def _remove_strays(unfinished: Path, run: Path) -> None:
    """Removes what Orbax has made anew where the run folder was, and nothing that was put there."""
    with suppress(OSError):
        if not (run / "config.json").exists():  # else it is another run's
            _remove_for_good(unfinished, 3, unfinished.parent, run)


def _close(handle: int) -> None:
    with suppress(OSError):  # nothing was written through it
        os.close(handle)


def _raise(error: OSError) -> None:
    raise error
