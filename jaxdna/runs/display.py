"""What a person sees of a run: one live line, and tables of its scores."""

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jaxdna.console import figures, table
from jaxdna.tasks.kinds import KINDS
from jaxdna.tasks.task import Task


class EpochProgress:
    """A live line on a terminal, one plain line per epoch elsewhere."""

    def __init__(self, console: Console, epochs: int, first_epoch: int, task: Task):
        """Prepares the line; `with` shows it."""
        self._followed = task.followed[0]
        self._heading = task.scored[self._followed]
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
        value = row[f"val_{self._followed}"] or 0
        form = ".2%" if self._followed == "accuracy" else ".4f"
        note = (
            f"train {row['train_loss']:.4f}  validation {row['val_loss']:.4f}  "
            f"{self._heading} {value:{form}}" + ("  best so far" if improved else "")
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
    names = KINDS[summary.get("task", "binary")].scored
    chance = summary.get("chance") or {}  # a run of an older version has none
    columns = ["", "test", *_beside(chance, ceiling)]
    rows = [
        [label, summary["test"][key], *(one.get(key) for one in (chance, ceiling) if one)]
        for key, label in names.items()
        if summary["test"].get(key) is not None
    ]
    return table(f"Test split{class_sizes(chance)}", columns, rows)


def class_sizes(chance: Mapping[str, Any]) -> str:
    """Returns how many examples each class has, as the end of a title; '' where it is unknown."""
    sizes = chance.get("examples", [])
    if isinstance(sizes, int):
        return f": {sizes:,} examples"
    if len(sizes) == 2:
        return f": {sizes[1]:,} bound, {sizes[0]:,} unbound"
    return f": {sum(sizes):,} examples of {len(sizes)} classes" if sizes else ""


def _beside(chance: Mapping[str, Any], ceiling: Mapping[str, Any]) -> list[str]:
    return [*(["chance"] if chance else []), *(["Bayes ceiling"] if ceiling else [])]


def measures_table(summary: dict[str, Any]) -> Table:
    """Returns the table of `evaluate`: every measure, its interval, and the Bayes ceiling."""
    found = summary["measures"]
    if found is None:
        return results(summary)
    ceiling, chance = summary["ceiling"] or {}, summary["chance"]
    rows = [
        [
            label,
            found[name]["value"],
            f"{figures(found[name]['low'])} to {figures(found[name]['high'])}",
            *(one.get(name) for one in (chance, ceiling) if one),
        ]
        for name, label in KINDS[summary.get("task", "binary")].measured.items()
    ]
    columns = ["", "value", "95 % interval", *_beside(chance, ceiling)]
    return table(f"Measures{class_sizes(chance)}", columns, rows)
