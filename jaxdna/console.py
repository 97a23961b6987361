"""The consoles for people and for results, and the tables on them.

All text on them is plain: names of files, ids and motifs come from users, and brackets, colons and
control characters in them are shown as they are, never obeyed. Emphasis is a style beside the text.
"""

from collections.abc import Callable, Iterable
from copy import copy
from functools import cache
from typing import Any, Literal

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from jaxdna.errors import visible


class _Console(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*map(self._shown, objects), **options)

    def _shown(self, one: Any) -> Any:
        """Returns text with nothing to obey, and a table that is too wide without its lines."""
        anywhere = self.options.update(max_width=1000)
        if not isinstance(one, Table):
            return visible(one) if isinstance(one, str) else one
        if one.__rich_measure__(self, anywhere).maximum > self.width:
            one.box, one.padding, one.show_edge = box.SIMPLE_HEAD, (0, 0), False
        if not one.title:
            return one
        untitled = copy(one)  # whose title would be folded where the table is narrower
        untitled.title = None
        return Group(Text(str(one.title), style="bold"), untitled)

    def on_broken_pipe(self) -> None:
        raise


@cache
def make_console() -> Console:
    """Returns the console for people: stderr, so that stdout stays free for results.

    There is one, so that its notes go above its live line.
    """
    return results_console(json=True)


def results_console(json: bool = False) -> Console:
    """Returns the console for results: stdout, or stderr where stdout is for the JSON object."""
    console = _Console(stderr=json, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 120
    return console


def loud(console: Console) -> Callable[[str], None]:
    """Returns a function that shows a sentence which must not be overlooked."""
    return lambda text: console.print(text, style="bold red")


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    """Returns a table whose first column is left-aligned and whose others are right-aligned."""
    made = Table(title=visible(title))
    for i, column in enumerate(columns):
        # What does not fit goes on in the next line: nothing is cut off.
        justify: Literal["left", "right"] = "left" if i == 0 else "right"
        made.add_column(visible(column), justify=justify, overflow="fold")
    for row in rows:
        made.add_row(*(_text(cell) for cell in row))
    return made


def listing(title: str, rows: Iterable[tuple[str, Any]]) -> Table:
    """Returns names and values side by side; a long value goes on below itself."""
    rows = list(rows)
    made = Table(title=visible(title))
    made.box, made.padding, made.show_header = None, (0, 0), False
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    wide = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        made.add_row(visible(name).ljust(wide), _text(value))
    return made


def figures(value: float) -> str:
    """Returns a number as tables show it: four decimals, or one from a thousand on."""
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.1f}"


def _text(cell: Any) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return figures(cell)
    return f"{cell:,}" if isinstance(cell, int) else visible(str(cell))
