"""The consoles for people and for results, and the tables on them.

All text on them is plain: names of files, ids and motifs come from users, and brackets, colons and
control characters in them are shown as they are, never obeyed. Emphasis is a style beside the text.
"""

from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from jaxdna.errors import visible


class _Console(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        super().print(
            *(visible(one) if isinstance(one, str) else one for one in objects), **options
        )

    def on_broken_pipe(self) -> None:
        raise


def make_console() -> Console:
    """Returns the console for people: stderr, so that stdout stays free for results."""
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
    made = Table(title=visible(title), title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        made.add_column(visible(column), justify="left" if i == 0 else "right")
    for row in rows:
        made.add_row(*(_text(cell) for cell in row))
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
