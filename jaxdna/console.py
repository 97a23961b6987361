"""The consoles for people and for results, and the tables on them."""

from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console
from rich.table import Table


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise


def make_console() -> Console:
    """Returns the console for people: stderr, so that stdout stays free for results."""
    return results_console(json=True)


def results_console(json: bool = False) -> Console:
    """Returns the console for results: stdout, or stderr where stdout is for the JSON object."""
    console = _Console(stderr=json, highlight=False)
    if not console.is_terminal:
        console.width = 120
    return console


def loud(console: Console) -> Callable[[str], None]:
    """Returns a function that shows a sentence which must not be overlooked."""
    return lambda text: console.print(text, style="bold red", markup=False)


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    """Returns a table whose first column is left-aligned and whose others are right-aligned."""
    made = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        made.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        made.add_row(*(_text(cell) for cell in row))
    return made


def _text(cell: Any) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.4f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
