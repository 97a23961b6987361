"""Where the seconds of a run went."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds spent by name; what is not under a name counts in the total only.

    Attributes:
      seconds: so far, by name.
    """

    def __init__(self, earlier: dict[str, float] | None = None):
        """Starts; goes on from what `read` returned before an interruption."""
        self.seconds = {"compile": 0.0, "train": 0.0, "eval": 0.0, "checkpoint": 0.0}
        self.seconds |= earlier or {}
        self._before = self.seconds.pop("total", 0.0)
        self._start = time.perf_counter()

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def read(self) -> dict[str, float]:
        """Returns seconds by name, `total` first."""
        total = self._before + time.perf_counter() - self._start
        return {key: round(value, 3) for key, value in ({"total": total} | self.seconds).items()}
