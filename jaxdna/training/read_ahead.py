"""Makes the next batches on the host while the devices work on those before."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class ReadAhead:
    """A feed that makes what will be asked for next in a thread of its own.

    What it returns is what the feed itself returns, and so is what it raises. Batches are a pure
    function of their first step, so it does not matter who makes them, or when.
    """

    def __init__(self, feed: Callable[[int, int], Any], steps_from: Callable[[int], int]):
        """Takes the feed.

        Args:
          feed: (first step, steps) -> batches; it must not run programs on the devices, whose order
            two threads would mix up.
          steps_from: (first step) -> how many steps the call has that begins there.
        """
        self._feed, self._steps_from = feed, steps_from
        self._thread = ThreadPoolExecutor(1, "jaxdna-feed")
        self._next: tuple[tuple[int, int], Future[Any]] | None = None

    def __call__(self, first: int, steps: int) -> Any:
        """Returns the batches of `steps` steps from `first` on, and begins those after them."""
        asked, (expected, future) = (first, steps), self._next or ((-1, 0), None)
        if future and asked == expected:
            batches = future.result()
        else:  # the first call, or one after a stop
            self._drop()
            batches = self._feed(first, steps)
        after = first + steps, self._steps_from(first + steps)
        self._next = after, self._thread.submit(self._feed, *after)
        return batches

    def _drop(self) -> None:
        if self._next:
            self._next[1].cancel()
            self._next = None

    def close(self) -> None:
        """Ends the thread; what it is making is waited for and thrown away."""
        self._drop()
        self._thread.shutdown(cancel_futures=True)
