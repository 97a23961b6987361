"""What every lock of a run folder is and says, wherever the folder is."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from jaxdna.errors import UserError
from jaxdna.storage.places import Place

Note = Callable[[str], None]

RENEW_SECONDS = 5.0
WATCH_SECONDS = 20.0  # four renewals: a busy server may delay some


class Lock(Protocol):
    """Keeps other jobs out of a folder; `take`, then `renew` every few seconds, then `release`."""

    def take(self, note: Note) -> None:
        """Takes the lock.

        Args:
          note: is told where a lock is watched, or a dead one is taken over.

        Raises:
          UserError: another job holds it.
          OSError: it cannot be written.
        """

    def check(self) -> None:
        """Raises UserError where the lock was taken, and is another job's now, or nobody's."""

    def renew(self) -> None:
        """Shows that the holder lives; errors are for others to report."""

    def release(self) -> None:
        """Gives it back, unless it is another's."""


def _holder(value: Mapping[str, Any]) -> str:
    """Returns who holds a lock, in words; of what comes from its file no more than a line has."""
    if not value:
        return "another job"
    host, pid, started = (str(value.get(key, "?"))[:80] for key in ("host", "pid", "started"))
    return f"process {pid} on {host}, started {started}"


def watching(value: Mapping[str, Any]) -> str:
    """What is noted before a lock is watched."""
    return f"the run folder is locked by {_holder(value)}; watching whether it still runs"


def taking_over(value: Mapping[str, Any]) -> str:
    """What is noted before a dead lock is taken over."""
    return f"taking over the run folder from {_holder(value)}, which has died"


def in_use(folder: Place, value: Mapping[str, Any]) -> UserError:
    """Returns the error of a job that finds the lock held."""
    return UserError(
        f"--workdir={folder} is in use by {_holder(value)}; wait for it, stop it, or give another "
        "folder"
    )


def lost(folder: Place, name: str, value: Mapping[str, Any]) -> UserError:
    """Returns the error of a job whose lock is another's now, or nobody's where `value` is empty.

    Args:
      folder: the run folder.
      name: of the lock in it.
      value: what the lock says now.
    """
    to = f" to {_holder(value)}" if value else ""
    return UserError(
        f"--workdir={folder}: this job has lost the folder's lock{to}, and writes nothing more; "
        f"was it stopped for a while, or was the file {name} removed? What was saved before is "
        "intact"
    )
