"""How far long work is: one live line on a terminal or in a notebook, elsewhere one now and then.

A loop that may take long is wrapped in `counted`, wherever it is. It has a line while somebody
watches (`shown_on`), and costs next to nothing where nobody does. A loop within another one has no
line of its own: it is a part of the step that the outer one is at.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from threading import Timer
from typing import TYPE_CHECKING, Any, TypeVar

from jaxdna.errors import visible

if TYPE_CHECKING:
    from rich.console import Console

_Item = TypeVar("_Item")

_EVERY, _EVERY_IN_NOTEBOOK = 5.0, 0.5  # seconds between two lines, or two states of one
_SOON = 0.3  # seconds: a loop that takes no longer has no live line
_LONGEST_BAR, _SHORTEST_BAR = 24, 8  # columns


class Loop:
    """How far a loop is.

    Attributes:
      title: what it does.
      total: the size of all its steps; None where nobody knows.
      done: of that, with a part of the step that it is at.
      step: the size of that step.
      note: what else the line says.
      lasting: see `progress_line`.
    """

    def __init__(self, title: str, total: float | None, done: float, lasting: bool):
        """Begins; see `progress_line`."""
        self.title, self.total, self.done, self.lasting = title, total, done, lasting
        self.step, self.note = 1.0, ""
        self.moved: Callable[[bool], None] = lambda ended: None
        self._ended, self._first, self._moves = done, done, 0
        self._begun = self._moved = time.monotonic()

    def advance(self, note: str = "") -> None:
        """Ends the step."""
        self._ended += self.step
        self.note = note
        self._move(self._ended, True)

    def within(self, share: float) -> None:
        """Says how much of the step is done."""
        self._move(max(self.done, self._ended + self.step * min(share, 1.0)), False)

    def _move(self, done: float, ended: bool) -> None:
        self.done, self._moved = done, time.monotonic()
        self._moves += 1
        self.moved(ended)

    def words(self, log: bool = False) -> tuple[str, str, str]:
        """Returns the title with how far it is, the note, and how long the rest will take.

        Args:
          log: whether the words stay. Within a lasting loop's step they then say how much of which
            step is done, without the note, which is that of the step before.
        """
        note = self.note
        if self.total is None:
            count = ""
        elif not self.lasting:
            count = f" {min(self.done / self.total, 1):.0%}"
        elif self.done == self._ended:
            count = f" {self.done:.0f}/{self.total:.0f}"
        elif log:
            share = (self.done - self._ended) / self.step
            count, note = f" {self._ended + self.step:.0f}/{self.total:.0f}, {share:.0%}", ""
        else:
            count = f" {self.done:.1f}/{self.total:.0f}"
        now, made = time.monotonic(), self.done - self._first
        # The first move has taken what is compiled or opened on the way: it foretells nothing.
        if self.total is None or self._moves < 2 or made <= 0 or self.done >= self.total:
            left = f"{clock(now - self._begun)} so far"
        else:
            needed = (self._moved - self._begun) * (self.total - self.done) / made
            left = f"{clock(max(0.0, needed - (now - self._moved)))} left"
        return visible(self.title) + count, note, left


def clock(seconds: float) -> str:
    """Returns seconds as `7 s`, `2:05` or `1:02:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{rest} s"


class _Watch:
    """Who watches, and the loops that are under way, the outermost first."""

    def __init__(self, console: "Callable[[], Console]"):
        self.console, self.loops = console, list[Loop]()
        self.cells: list[Any] = []  # of a notebook: one output that all passing lines share


_watched: ContextVar[_Watch | None] = ContextVar("watched", default=None)


@contextmanager
def shown_on(console: "Callable[[], Console]") -> Iterator[None]:
    """Shows the loops inside; the function makes the console once there is one to show."""
    token = _watched.set(_Watch(console))
    try:
        yield
    finally:
        _watched.reset(token)


@contextmanager
def progress_line(
    title: str, total: float | None = None, done: float = 0.0, lasting: bool = False
) -> Iterator[Loop]:
    """Shows how far a loop is; its body calls `advance` at the end of each step.

    Args:
      title: what it does.
      total: the size of all its steps; None where nobody knows.
      done: of that, before.
      lasting: its steps are counted as in 3/20, each is told of, and its line stays.
    """
    loop, watch = Loop(title, total, done, lasting), _watched.get()
    if watch is None:
        yield loop
        return
    outer = watch.loops[-1] if watch.loops else None
    watch.loops.append(loop)
    try:
        if outer is not None:
            if total:
                loop.moved = lambda ended: outer.within(loop.done / total)
            yield loop
            return
        with _line(watch, loop) as loop.moved:
            yield loop
    finally:
        watch.loops.remove(loop)
        loop.moved = lambda ended: None


def counted(
    title: str,
    items: Iterable[_Item],
    total: float | None = None,
    size: Callable[[_Item], float] = lambda item: 1.0,
) -> Iterator[_Item]:
    """Hands items on, and shows how far they are.

    Args:
      title: what is done with them.
      items: each is done when the next one is asked for.
      total: the size of all; None where nobody knows.
      size: of one.
    """
    with progress_line(title, total) as loop:
        for item in items:
            loop.step = size(item)
            yield item
            loop.advance()


def _line(watch: _Watch, loop: Loop) -> AbstractContextManager[Callable[[bool], None]]:
    """Opens the line of a loop; what it gives is to be called whenever the loop has moved."""
    console = watch.console()
    if console.quiet:
        return _nothing()
    if console.is_jupyter:
        return _in_a_notebook(watch.cells, loop)
    return _on_a_terminal(console, loop) if console.is_terminal else _in_a_log(console, loop)


@contextmanager
def _nothing() -> Iterator[Callable[[bool], None]]:
    yield lambda ended: None


@contextmanager
def _on_a_terminal(console: "Console", loop: Loop) -> Iterator[Callable[[bool], None]]:
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    def line() -> Table:
        head, note, left = map(Text, loop.words())
        room = console.width - sum(len(text) + 2 for text in (head, note, left) if text)
        grid = Table.grid(padding=(0, 2, 0, 0))
        cells: list[Any] = [head]
        grid.add_column(min_width=len(head), no_wrap=True)
        if room >= _SHORTEST_BAR:
            grid.add_column()
            width, pulse = min(room, _LONGEST_BAR), loop.total is None
            cells.append(ProgressBar(loop.total or 1, loop.done, width, pulse=pulse))
        for text in filter(None, (note, left)):
            grid.add_column(min_width=len(text) if text is left else None, no_wrap=True)
            cells.append(text)
        grid.add_row(*cells)
        return grid

    # Rows for a pipe stay on stdout; a note on stderr goes above the line.
    live = Live(
        console=console, get_renderable=line, transient=not loop.lasting, redirect_stdout=False
    )
    late = Timer(0.0 if loop.lasting else _SOON, live.start)  # what is soon done shows nothing
    late.daemon = True
    late.start()
    try:
        yield lambda ended: None
    finally:
        late.cancel()
        late.join()
        live.stop()


@contextmanager
def _in_a_notebook(shown: list[Any], loop: Loop) -> Iterator[Callable[[bool], None]]:
    from IPython.display import display

    told = time.monotonic()

    def show(text: str) -> None:
        nonlocal told
        told = time.monotonic()
        data = {"text/plain": text}
        if shown:
            shown[0].update(data, raw=True)
        else:
            shown.append(display(data, raw=True, display_id=True))

    def moved(ended: bool) -> None:
        if time.monotonic() - told >= _EVERY_IN_NOTEBOOK:
            show("  ".join(filter(None, loop.words())))

    try:
        yield moved
    finally:
        if loop.lasting:
            show("  ".join(filter(None, loop.words())))
            shown.clear()
        elif shown:
            show("")


@contextmanager
def _in_a_log(console: "Console", loop: Loop) -> Iterator[Callable[[bool], None]]:
    told = time.monotonic()

    def moved(ended: bool) -> None:
        nonlocal told
        if (ended and loop.lasting) or time.monotonic() - told >= _EVERY:
            told = time.monotonic()
            console.print("  ".join(filter(None, loop.words(log=True))), soft_wrap=True)

    yield moved
