"""One job at a time in a folder of a bucket.

The lock is a folder of numbered objects; the highest number is the generation of the lock. A job
takes it by making the next number under the precondition that it is not there, so of two jobs one
does. Its holder writes into that object every few seconds. Who wants the lock watches it for some
longer, and where it does not change, the holder is dead and the next number is ours. No clocks are
compared.

A holder that was only stopped for so long finds a higher number, and writes nothing more. It may
trust what it has seen for half of the time that others watch: they cannot have it before.
"""

import json
import os
import secrets
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from jaxdna.errors import UserError
from jaxdna.storage.locks import WATCH_SECONDS, Lock, Note, in_use, lost, taking_over, watching

if TYPE_CHECKING:
    from jaxdna.storage.bucket import BucketFolder

_TRUSTED_SECONDS = WATCH_SECONDS / 2
_MOST_BYTES = 10_000


class BucketLock(Lock):
    """The lock of a folder in a bucket."""

    def __init__(self, folder: "BucketFolder", name: str):
        """Names the objects; nothing is touched."""
        self._folder, self._name = folder, name
        self._generation = 0  # not taken
        self._seen = 0.0  # when we last knew that it is ours
        self._renewed = 0
        self._mine = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
            "token": secrets.token_hex(8),
        }

    def take(self, note: Note) -> None:
        while True:
            generations = self._generations()
            newest = max(generations, default=0)
            if newest and not self._is_free(newest, note):
                continue  # it has changed hands while we looked
            begun = _now()
            try:
                self._folder.create(self._object(newest + 1), self._content())
            except FileExistsError:
                # It may be we: where an answer was lost, the library has asked twice.
                if self._read(newest + 1).get("token") != self._mine["token"]:
                    continue
            self._check_preconditions(newest + 1)
            self._generation, self._seen = newest + 1, begun
            for old in generations:
                self._folder.remove(self._object(old))
            return

    def _check_preconditions(self, generation: int) -> None:
        """Raises UserError where the store makes an object that is there."""
        with suppress(FileExistsError):
            self._folder.create(self._object(generation), self._content())
            self._folder.remove(self._object(generation))
            raise UserError(
                f"--workdir={self._folder.path} is in a store without conditional writes, where "
                "two jobs could take one folder; give one in another store, or on a disk"
            )

    def check(self) -> None:
        if self._generation and _now() - self._seen > _TRUSTED_SECONDS:
            self._look()

    def renew(self) -> None:
        with suppress(OSError, UserError):  # `check` says it
            self._look()
            self._renewed += 1
            self._folder.ask("pipe_file", self._object(self._generation), self._content())

    def release(self) -> None:
        if self._generation:
            with suppress(OSError, UserError):
                self._look()
                released = json.dumps(self._mine | {"released": True}).encode()
                self._folder.ask("pipe_file", self._object(self._generation), released)
            self._generation = 0

    def _look(self) -> None:
        """Raises UserError where the lock is not ours any more."""
        begun = _now()
        newest = max(self._generations(), default=0)
        if newest != self._generation:
            found = self._read(newest) if newest > self._generation else {}
            raise lost(self._folder.path, self._name, found)
        self._seen = begun

    def _is_free(self, generation: int, note: Note) -> bool:
        """Whether the holder of the newest generation has released it, or is dead.

        Raises:
          UserError: it lives.
        """
        before = self._read(generation)
        if before.get("released"):
            return True
        note(watching(before))
        deadline = _now() + WATCH_SECONDS
        while _now() < deadline:
            time.sleep(1)
            if max(self._generations(), default=0) != generation:
                return False
            now = self._read(generation)
            if now.get("released"):
                return True
            if now != before:
                raise in_use(self._folder.path, now)
        note(taking_over(before))
        return True

    def _generations(self) -> list[int]:
        return [int(name) for name in self._folder.names(self._name) if name.isdecimal()]

    def _object(self, generation: int) -> str:
        return f"{self._name}/{generation}"

    def _content(self) -> bytes:
        return json.dumps(self._mine | {"renewed": self._renewed}).encode()

    def _read(self, generation: int) -> dict[str, Any]:
        try:
            value = json.loads(self._folder.read(self._object(generation), _MOST_BYTES))
        except (FileNotFoundError, ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


def _now() -> float:
    """Seconds, with those in which the machine was suspended where the system counts them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
