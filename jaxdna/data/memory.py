"""Whether something fits into the memory of this machine: asked before it is made."""

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from jaxdna.errors import UserError

_CGROUPS = Path("/sys/fs/cgroup")


def require_memory(needed: int, what: str, legal: str) -> None:
    """Refuses what would end in a process that the system kills.

    Args:
      needed: bytes.
      what: names it and its size, for the sentence: `a million sequences`.
      legal: what could be asked for instead.

    Raises:
      UserError: there is not so much.
    """
    free = available_memory()
    if needed > free:
        raise UserError(
            f"{what} would take {needed / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are "
            f"free here; legal: {legal}"
        )


def available_memory() -> int:
    """Returns the bytes that this process may take: what is free, or its limit if that is less."""
    return min(_limits())


def _limits() -> Iterator[int]:
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
    size = resident = 0
    with suppress(OSError, ValueError):
        pages = [int(word) for word in Path("/proc/self/statm").read_text().split()[:2]]
        size, resident = (number * os.sysconf("SC_PAGE_SIZE") for number in pages)
    yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft = resource.getrlimit(kind)[0]
        if soft != resource.RLIM_INFINITY:
            yield soft - size
    # Of the container or the job: version 2 of the interface, then version 1, at the group of
    # this process and at the root that it sees.
    with suppress(OSError, ValueError):
        own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        for _, kinds, group in own:
            if kinds and "memory" not in kinds.split(","):
                continue
            top = _CGROUPS / "memory" if kinds else _CGROUPS
            name = "memory.limit_in_bytes" if kinds else "memory.max"
            for folder in (top, top / group.lstrip("/")):
                with suppress(OSError, ValueError):  # "max" is no number: no limit
                    yield int((folder / name).read_text()) - resident
