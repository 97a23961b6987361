"""A folder in a bucket: objects are whole or absent by themselves, and nothing has another name.

So a folder in it is whole when its manifest is there, which is written last. Requests that a store
answers with "too many" or "not now" are made again by fsspec's file systems, later each time; each
ends within a limit.
"""

import errno
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxdna.storage.bucket_lock import BucketLock
from jaxdna.storage.files import Folder
from jaxdna.storage.manifest import NAME as MANIFEST
from jaxdna.storage.manifest import write_manifest
from jaxdna.storage.places import Url
from jaxdna.storage.remote import file_system, os_errors

_FIRST_SECONDS = 6.0  # for the first answer, so that a wrong name is known soon
_SECONDS = 120.0  # for any other: one object goes or comes, with all repetitions
_PAUSE_SECONDS = 2.0  # between two uploads of a file that grows; stores take about one a second
_BLOCK = 64 * 2**20


class BucketFolder(Folder):
    """A folder in a bucket.

    What `append` adds is uploaded in the background, the whole file anew; `write`, `remove` and
    `finish` wait for it.
    """

    path: Url

    def __init__(self, path: Url):
        """Names the folder; nothing is touched."""
        self.path = path
        self.guard: Callable[[], None] = lambda: None
        self._limit = _FIRST_SECONDS
        self._grown: dict[str, bytes] = {}  # files that grow: all of their content
        self._uploads: dict[str, tuple[int, float, Future[Any]]] = {}  # bytes, when begun, outcome
        self._growing = threading.RLock()

    @cached_property
    def _store(self) -> Any:
        return file_system(self.path)

    def ask(self, call: str, name: str | list[str], *arguments: Any, **options: Any) -> Any:
        """Returns what a call of fsspec's file system returns.

        Args:
          call: its name.
          name: of the file or folder; several where the call takes several.
          *arguments: of the call.
          **options: of the call.

        Raises:
          OSError: whatever went wrong, with a sentence; FileNotFoundError and FileExistsError too.
        """
        names = [self._key(one) for one in name] if isinstance(name, list) else self._key(name)
        store, limit = self._store, self._limit
        with os_errors(str(names), limit):
            try:
                answer = getattr(store, call)(names, *arguments, timeout=limit, **options)
            except FileNotFoundError:  # an answer too
                self._limit = _SECONDS
                raise
        self._limit = _SECONDS
        return answer

    def _key(self, name: str) -> str:
        return str(self.path / name)

    def check(self) -> None:
        self.guard()

    def place(self, name: str = "") -> Url:
        self.check()
        return self.path / name

    def make(self, name: str = "") -> Url:
        if not name:  # a store has no other folders, only names
            self._check_bucket()
        return self.place(name)

    def write(self, name: str, content: str | bytes) -> None:
        self.check()
        self._settle()
        with self._growing:
            self._grown.pop(name, None)
        self.ask("pipe_file", name, _bytes(content))

    def create(self, name: str, content: str | bytes) -> None:
        """Writes a file that must not be there; of several that do, one does.

        Raises:
          FileExistsError: it is there.
        """
        self.ask("pipe_file", name, _bytes(content), mode="create")

    def append(self, name: str, content: str | bytes) -> None:
        self.check()
        with self._growing:
            if name not in self._grown:
                try:
                    self._grown[name] = self.read(name)
                except FileNotFoundError:
                    self._grown[name] = b""
            self._grown[name] += _bytes(content)
            _, begun, upload = self._uploads.get(name, (0, 0.0, None))
            if upload is None or (upload.done() and time.monotonic() - begun > _PAUSE_SECONDS):
                self._upload(name)

    def _upload(self, name: str) -> None:
        """Begins to upload a file that has grown; raises what the upload before has met."""
        import asyncio

        self._uploaded(name)
        whole = self._grown[name]
        sending = self._store._pipe_file(self._key(name), whole)
        future = asyncio.run_coroutine_threadsafe(sending, self._store.loop)
        self._uploads[name] = (len(whole), time.monotonic(), future)

    def _uploaded(self, name: str) -> None:
        """Waits for the last upload of a file that grows."""
        if name in self._uploads:
            with os_errors(name, _SECONDS):
                self._uploads.pop(name)[2].result(_SECONDS)

    def _settle(self) -> None:
        """Waits until all that was appended is there."""
        with self._growing:
            for name, whole in self._grown.items():
                if name in self._uploads and self._uploads[name][0] != len(whole):
                    self._upload(name)
            for name in list(self._uploads):
                sent, begun, _ = self._uploads[name]
                self._uploaded(name)
                self._uploads[name] = (sent, begun, _DONE)

    def remove(self, name: str) -> None:
        self.check()
        self._settle()
        with self._growing:
            for grown in [one for one in self._grown if one == name or one.startswith(f"{name}/")]:
                del self._grown[grown]
        with suppress(FileNotFoundError):
            inside = [f"{name}/{file}" for file in self._found(name)] or [name]
            if f"{name}/{MANIFEST}" in inside:  # without it the rest is no folder that is whole
                self.ask("rm_file", f"{name}/{MANIFEST}")
                inside.remove(f"{name}/{MANIFEST}")
            if len(inside) == 1:
                self.ask("rm_file", inside[0])
            elif inside:
                self.ask("rm", inside)
                if self._found(name):  # S3 answers requests for several with "done" even so
                    raise PermissionError(errno.EACCES, "permission denied: it is still there")

    def read(self, name: str, most_bytes: int | None = None) -> bytes:
        end = None if most_bytes is None else most_bytes + 1
        content = bytes(self.ask("cat_file", name, start=0 if end else None, end=end))
        if most_bytes is not None and len(content) > most_bytes:
            raise ValueError(f"{Path(name).name} is larger than {most_bytes >> 20} MiB")
        return content

    @cached_property
    def _copies(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="jaxdna-")

    def local(self, name: str) -> Path:
        copy = Path(self._copies.name, name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        self.ask("get_file", name, str(copy))
        return copy

    def exists(self, name: str) -> bool:
        return bool(self.ask("exists", name))

    def names(self, name: str = "") -> list[str]:
        found = self._found(name)
        if not found:
            self._check_bucket()
        return sorted({one.split("/")[0] for one in found})

    def _check_bucket(self) -> None:
        """Raises OSError where the bucket is not there; who may not ask has to try."""
        bucket = self.path.parts[1]
        try:
            with os_errors(bucket, self._limit):
                self._store.info(str(Url(*self.path.parts[:2])), timeout=self._limit)
        except FileNotFoundError:
            raise OSError(errno.ENOENT, f"there is no bucket {bucket}") from None
        except TimeoutError:
            raise
        except OSError:
            return

    def _found(self, name: str) -> dict[str, int]:
        """The bytes of every object below a name, by the rest of its name."""
        above = self._key(name).partition("://")[2] + "/"
        try:
            found = self.ask("find", name, detail=True)
        except FileNotFoundError:
            self._check_bucket()
            return {}
        return {
            key[len(above) :]: entry["size"]
            for key, entry in found.items()
            if key.startswith(above) and key != above
        }

    def sizes(self, name: str = "") -> dict[str, int]:
        return dict(sorted(self._found(name).items()))

    def blocks(self, name: str, size: int) -> Iterator[bytes]:
        for start in range(0, size, _BLOCK):
            yield self.ask("cat_file", name, start=start, end=min(start + _BLOCK, size))

    def begin(self, name: str) -> None:
        self.check()
        if self._found(name):  # training waits for this, so not for what grows too
            self.remove(name)

    def unfinished(self, name: str) -> str:
        return name

    def finish(self, name: str) -> None:
        write_manifest(self, name)

    def discard(self, name: str) -> None:
        self.check()
        with suppress(OSError):  # without a manifest it is none, and the next save removes it
            self.remove(name)

    def finished(self) -> list[str]:
        return [name for name in self.names() if self.exists(f"{name}/{MANIFEST}")]

    def sees(self, name: str) -> bool:
        return self.exists(name)

    def lock(self, name: str) -> BucketLock:
        return BucketLock(self, name)

    def drop_empty(self) -> None:
        pass

    def check_room(self, needed: int) -> None:
        pass

    def room(self) -> str:
        return ""


_DONE: Future[None] = Future()
_DONE.set_result(None)


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content
