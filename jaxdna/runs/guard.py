"""A thread that stays awake when the main thread cannot: it hears signals and notices hangs.

While the main thread compiles or waits for a device, Python runs no signal handler. So the C-level
handler's wake-up pipe is read by a thread. What a signal does depends on what could be lost:

- in the phases `start` and `compile`, nothing: the process ends at once with code 78;
- in every other phase the flag `requested` is raised, and the loop saves and ends with code 78;
- a second Ctrl-C ends the process at once with code 130, whatever it is doing;
- once all is on disk (`done`) nothing changes the code that the process ends with, to its very end.

Several processes must stop before the same step. There jax hears SIGTERM and lets them agree on it.

Each phase has its limit in seconds. Where it runs out, the stacks of all threads are written to
stderr and the process ends with code 75, since a stuck device call can be ended in no other way.
"""

import faulthandler
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from jaxdna.errors import EXIT_INTERRUPTED, EXIT_PREEMPTED, EXIT_WATCHDOG, last_words

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_TICK = 0.25  # seconds between two looks at the clock
_NOTHING_TO_LOSE = ("start", "compile")
_DONE = "done"


class StopRequested(Exception):
    """Ends what the loop is doing so that it can save; never leaves `runs.loop`."""


class Guard:
    """Hears signals and watches the clock while its context is open.

    Attributes:
      requested: the name of the first signal that asked the run to stop, else None.
    """

    def __init__(self, limits: Mapping[str, float], owns_process: bool = True):
        """Prepares the guard.

        Args:
          limits: most seconds in each phase (`start`, `compile`, `step`, `evaluation`, `save`); 0
            waits forever.
          owns_process: whether a signal may end the process. In a notebook it may not: where there
            is nothing to save, and at the second Ctrl-C, KeyboardInterrupt is raised instead. Only
            a main thread hears signals there; the limits end the process all the same.
        """
        self._owns_process = owns_process
        self._hears = owns_process or threading.current_thread() is threading.main_thread()
        self._interrupts = 0
        self.requested: str | None = None
        self._reached: Callable[[int], bool] | None = None
        self._stops = False
        self._asked = 0
        self._limits = limits
        self._now = ("start", time.monotonic())
        self._code = EXIT_PREEMPTED  # of a process that is done
        self._regular: dict[Callable[[], None], tuple[float, float]] = {}  # when next, how often
        self._lock = threading.Lock()
        self._undivided = threading.Lock()

    def __enter__(self) -> "Guard":
        """Installs the handlers, in the main thread, and starts the thread."""
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        # A handler of Python's own must be there for the pipe to be written to.
        if self._hears:
            # What is ignored (nohup) stays so.
            ours = [n for n in _SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._hear) for number in ours}
            self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._run, name="guard", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends the thread, and brings the earlier handlers back unless the process ends too.

        Where it ends with an error, its exit code is that of the error: only Ctrl-C changes it.
        """
        if self._hears:
            signal.set_wakeup_fd(self._wakeup_before)
            done = self._now[0] == _DONE
            for number, handler in self._before.items():
                ends = done or (error is not None and number != signal.SIGINT)
                if not (self._owns_process and ends):
                    signal.signal(number, handler)
        os.close(self._writer)
        self._thread.join()
        os.close(self._reader)

    def enter(self, phase: str) -> None:
        """Begins a phase, or the same one anew: its limit counts from now on."""
        self._now = (phase, time.monotonic())

    def done(self, code: int) -> None:
        """Begins a phase with nothing left to save or lose: a signal changes no exit code in it.

        Args:
          code: what the process is to end with; a second Ctrl-C ends it with that code at once.
        """
        self._code = code
        self.enter(_DONE)

    @contextmanager
    def undivided(self, code: int) -> Iterator[None]:
        """Holds what is written inside and `done` together: signals count before or after both."""
        with self._undivided:
            yield
            self.done(code)

    @contextmanager
    def every(self, seconds: float, function: Callable[[], None]) -> Iterator[None]:
        """Calls a short function from the guard's thread again and again, inside the context."""
        with self._lock:
            self._regular[function] = (time.monotonic() + seconds, seconds)
        try:
            yield
        finally:
            with self._lock:
                del self._regular[function]

    def share(self, reached: Callable[[int], bool]) -> None:
        """Says that this is one of several processes.

        Args:
          reached: whether all of them stop at the n-th call, n from 1, since one heard SIGTERM.
        """
        self._reached = reached

    def stops_here(self) -> bool:
        """Whether the run stops now: the same answer in every process, which all ask as often."""
        self._asked += 1
        if not self._stops:
            self._stops = self._reached(self._asked) if self._reached else bool(self.requested)
        return self._stops

    def check(self) -> None:
        """Raises StopRequested where `stops_here` has said so."""
        if self._stops:
            raise StopRequested(self.requested or "SIGTERM to one of the processes")

    def wait(self, arrays: list[Any]) -> None:
        """Waits until jax has computed `arrays`.

        Raises:
          StopRequested: a signal has come. Several processes wait to the end, and then stop before
            the next step together.
        """
        start = time.monotonic()
        while not all(array.is_ready() for array in arrays):
            if self.requested and not self._reached:
                raise StopRequested(self.requested)
            # Fine at first, then coarser: at most 2% of the time is waited too long.
            time.sleep(min(0.02, 1e-5 + (time.monotonic() - start) / 50))

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._reader], [], [], _TICK)
            if ready:
                heard = os.read(self._reader, 64)
                if not heard:  # closed: the guard's context has ended
                    return
                for number in heard:
                    with self._undivided:
                        self._take(signal.Signals(number))
            self._do_regular()
            self._check_limit()

    def _do_regular(self) -> None:
        with self._lock:
            for function, (when, seconds) in self._regular.items():
                if time.monotonic() >= when:
                    self._regular[function] = (time.monotonic() + seconds, seconds)
                    function()

    def _check_limit(self) -> None:
        phase, since = self._now
        phase = "save" if phase == _DONE else phase  # another process may still write
        limit, seconds = self._limits[phase], time.monotonic() - since
        if not limit or seconds < limit:
            return
        _say(
            f"no progress for {seconds:.0f} s in phase {phase} "
            f"(--config.watchdog.{phase}={limit:g}); the stacks of all threads follow. "
            "What was saved before is intact; the same command resumes from it"
        )
        faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)
        os._exit(EXIT_WATCHDOG)

    def _hear(self, number: int, frame: Any) -> None:
        """Leaves the number to the guard's thread, which reads it from the pipe."""
        if self._owns_process or number != signal.SIGINT:
            return
        self._interrupts += 1
        if self._interrupts > 1 or self._now[0] in _NOTHING_TO_LOSE:
            raise KeyboardInterrupt

    def _take(self, number: signal.Signals) -> None:
        if number not in _SIGNALS:
            return
        phase, _ = self._now
        idle = phase in _NOTHING_TO_LOSE
        if not self._owns_process and number == signal.SIGINT and (self.requested or idle):
            return  # `_hear` raises
        done = phase == _DONE
        if self.requested and number == signal.SIGINT:
            _say(f"interrupted again: ending at once{'' if done else ', without saving'}")
            os._exit(self._code if done else EXIT_INTERRUPTED)
        if self.requested:
            return
        self.requested = number.name
        if done:
            _say(
                f"{number.name}: everything is saved, and this process is ending (Ctrl-C again: "
                "at once)"
            )
            return
        if self._reached:
            os.kill(os.getpid(), signal.SIGTERM)  # what jax hears
            return
        if idle and self._owns_process:
            _say(f"{number.name} in phase {phase}: there is nothing new to save")
            os._exit(EXIT_PREEMPTED)
        _say(f"{number.name}: finishing the steps under way, then saving (Ctrl-C again: at once)")


def _say(text: str) -> None:
    last_words(f"\njaxdna: {text}", sys.__stderr__)
