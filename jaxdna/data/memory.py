"""Whether something fits into the memory of this machine: asked before it is made."""

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

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
            f"{what} would take {needed / 1e9:,.1f} GB of memory, but only {free / 1e9:,.1f} GB "
            f"are free here; try {legal}"
        )


def available_memory() -> int:
    """Returns the bytes that this process may take: what is free, or its limit if that is less."""
    return min(_limits())


def _limits() -> Iterator[int]:
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
    size = own = data = 0
    with suppress(OSError, ValueError):
        pages = np.array(Path("/proc/self/statm").read_text().split(), dtype=np.int64)
        size, resident, shared, _, _, data, _ = (pages * os.sysconf("SC_PAGE_SIZE")).tolist()
        own = resident - shared  # mapped files are given back when memory is wanted
    yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for kind, used in ((resource.RLIMIT_AS, size), (resource.RLIMIT_DATA, data)):
        soft = resource.getrlimit(kind)[0]
        if soft != resource.RLIM_INFINITY:
            yield soft - used
    # Of the container or the job: version 2 of the interface, then version 1, at the group of
    # this process and at the root that it sees.
    with suppress(OSError, ValueError):
        groups = Path("/proc/self/cgroup").read_text().splitlines()
        for _, kinds, group in (line.split(":", 2) for line in groups):
            if kinds and "memory" not in kinds.split(","):
                continue
            top = _CGROUPS / "memory" if kinds else _CGROUPS
            name = "memory.limit_in_bytes" if kinds else "memory.max"
            for folder in (top, top / group.lstrip("/")):
                with suppress(OSError, ValueError):  # "max" is not a number: no limit
                    yield int((folder / name).read_text()) - _used(folder, own)


def _used(group: Path, own: int) -> int:
    """Returns the bytes that a group's processes hold, without the files that it has cached.

    Args:
      group: its folder.
      own: what this process holds, for a group that does not say what it uses.
    """
    for current, prefix in (("memory.current", ""), ("memory.usage_in_bytes", "total_")):
        with suppress(OSError, ValueError, KeyError):
            stat = dict(map(str.split, (group / "memory.stat").read_text().splitlines()))
            cached = sum(int(stat[f"{prefix}{kind}_file"]) for kind in ("active", "inactive"))
            return int((group / current).read_text()) - cached
    return own
