"""What a person sees: tables, notes and one live line, all on stderr."""

import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jaxdna.training.measures import NAMES


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


class EpochProgress:
    """A live line on a terminal, one plain line per epoch elsewhere."""

    def __init__(self, console: Console, epochs: int, first_epoch: int):
        """Prepares the line; `with` shows it."""
        self._console = console
        self._epochs = epochs
        self._bar = Progress(
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("", total=epochs, completed=first_epoch, note="")

    @property
    def shown(self) -> AbstractContextManager[Any]:
        """Shows the live line while the context is open; nothing where there is no terminal."""
        return self._bar if self._console.is_terminal else nullcontext()

    def update(self, row: dict[str, Any], improved: bool) -> None:
        """Shows the metrics of an epoch."""
        note = (
            f"train {row['train_loss']:.4f}  validation {row['val_loss']:.4f}  "
            f"accuracy {row['val_accuracy']:.2%}" + ("  best so far" if improved else "")
        )
        if self._console.is_terminal:
            self._bar.update(self._task, completed=row["epoch"], note=note)
        elif not self._console.quiet:
            print(
                f"epoch {row['epoch']}/{self._epochs}  {note}  {row['seconds']:.2f} s",
                file=sys.stderr,
                flush=True,
            )


def results(summary: dict[str, Any]) -> Table:
    """Returns the closing table: the test scores and, for simulated data, the Bayes ceiling."""
    ceiling = summary.get("ceiling") or {}
    names = {"loss": "loss (nats)", "accuracy": "accuracy", "auroc": "AUROC", "auprc": "AUPRC"}
    columns = ["", "test", *(["Bayes ceiling"] if ceiling else [])]
    rows = [
        [label, summary["test"][key], *([ceiling.get(key)] if ceiling else [])]
        for key, label in names.items()
        if summary["test"][key] is not None
    ]
    return table("Test split", columns, rows)


def measures_table(summary: dict[str, Any]) -> Table:
    """Returns the table of `evaluate`: every measure, its interval, and the Bayes ceiling."""
    found = summary["measures"]
    if found is None:
        return results(summary)
    ceiling = summary["ceiling"] or {}
    rows = [
        [
            label,
            found[name]["value"],
            f"{found[name]['low']:.4f} to {found[name]['high']:.4f}",
            *([ceiling.get(name)] if ceiling else []),
        ]
        for name, label in NAMES.items()
    ]
    columns = ["", "value", "95 % interval", *(["Bayes ceiling"] if ceiling else [])]
    return table("Measures", columns, rows)
