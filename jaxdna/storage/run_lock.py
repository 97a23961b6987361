"""One job at a time in a run folder.

The lock is a file with its holder's name, on which the holder also has the kernel's lock (flock).
The rule for a lock whose holder has died:

- On the holder's machine, since it was booted, the kernel decides: it drops the lock with the
  process, whatever killed it, so a lock that can be taken is free.
- Elsewhere (a shared disk on which the kernel's lock does not travel, or before a reboot) the file
  decides. Its holder renews it every few seconds; we watch it for some longer, and where it does
  not change, the holder is dead and the lock is ours. No clocks are compared.

A holder that was only stopped for so long comes back to a lock that another job has. So each one
writes a file of its own and gives it the lock's name: what the loser still does to its file changes
nothing, and `check`, before each write into the folder, tells it that it has lost.
"""

import json
import os
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from jaxdna.errors import UserError
from jaxdna.storage.files import UNFINISHED
from jaxdna.storage.handles import is_at, kernel_lock
from jaxdna.storage.locks import WATCH_SECONDS, Lock, Note, in_use, lost, taking_over, watching

_MOST_BYTES = 10_000


class RunLock(Lock):
    """The lock of a run folder; `take`, then `renew` every few seconds, then `release`."""

    def __init__(self, path: Path):
        """Names the file; nothing is touched."""
        self._path = path
        self._handle: int | None = None
        self._mine = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
            "boot": _boot_id(),
            "token": secrets.token_hex(8),
        }
        self._renewed = 0

    def take(self, note: Note) -> None:
        """Takes the lock.

        Args:
          note: is told where a lock of another machine is watched, or a dead one is taken over.

        Raises:
          UserError: another job holds it.
          OSError: the file cannot be written.
        """
        while True:
            handle = os.open(
                self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666
            )
            try:
                ours = self._try(handle, note)
            except BaseException:
                os.close(handle)
                raise
            try:
                if ours:
                    self._replace()
                    return
            finally:
                os.close(handle)
            # Its holder released it, and so removed it, while we looked.

    def check(self) -> None:
        """Raises UserError where the lock was taken, and is another job's now, or nobody's."""
        if self._handle is not None:
            found = _value(_read_path(self._path))
            if found.get("token") != self._mine["token"]:
                raise lost(self._path.parent, self._path.name, found)

    def renew(self) -> None:
        """Shows to other machines that the holder lives; a full disk is for others to report."""
        self._renewed += 1
        with suppress(OSError):
            self._write()

    def release(self) -> None:
        """Removes the file, unless it is another's, and drops the lock, if it was taken."""
        if self._handle is not None:
            with suppress(OSError, UserError):
                self.check()
                self._path.unlink()
            # The file is closed even where the system reports an error, and what ended the job
            # must be heard rather than this.
            with suppress(OSError):
                os.close(self._handle)
            self._handle = None

    def _try(self, handle: int, note: Note) -> bool:
        """Locks the open file; False where it is not the file at our path any more."""
        decided = kernel_lock(handle)
        if decided is False:
            raise in_use(self._path.parent, _value(_read_path(self._path) or _read(handle)))
        if not is_at(handle, self._path):  # its holder removes it when it is done
            return False
        before = _read(handle)
        if not before:
            return True
        if decided is None or _value(before).get("boot") != self._mine["boot"]:
            note(watching(_value(before)))
            deadline = time.monotonic() + WATCH_SECONDS
            while time.monotonic() < deadline:
                time.sleep(0.5)
                now = _read_path(self._path)
                if not now:  # released, or the folder is gone
                    return False
                if now != before:
                    raise in_use(self._path.parent, _value(now))
        note(taking_over(_value(before)))
        return True

    def _replace(self) -> None:
        """Puts a file of our own, with the kernel's lock on it, into the place of the one there."""
        own = self._path.with_name(f"{self._path.name}.{self._mine['token']}{UNFINISHED}")
        self._handle = os.open(own, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            kernel_lock(self._handle)
            self._write()
            own.replace(self._path)
        except BaseException:
            os.close(self._handle)
            self._handle = None
            own.unlink(missing_ok=True)
            raise

    def _write(self) -> None:
        assert self._handle is not None
        content = (json.dumps(self._mine | {"renewed": self._renewed}) + "\n").encode()
        os.pwrite(self._handle, content, 0)  # never shorter than before: `renewed` only grows
        os.ftruncate(self._handle, len(content))


def _boot_id() -> str:
    """Names this machine since its last boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux
        return socket.gethostname()


def _read(handle: int) -> bytes:
    return os.pread(handle, _MOST_BYTES, 0)


def _read_path(path: Path) -> bytes:
    """Opens the file anew, since network file systems look for changes when a file is opened."""
    try:
        with path.open("rb") as stream:
            return stream.read(_MOST_BYTES)
    except FileNotFoundError:
        return b""


def _value(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
