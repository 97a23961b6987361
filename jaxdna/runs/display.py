"""What a person sees of a run: the scores of an epoch, and tables of those of the run."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from jaxdna.console import figures, table
from jaxdna.tasks.kinds import KINDS
from jaxdna.tasks.task import Task


def epoch_note(task: Task, row: dict[str, Any], said: str) -> str:
    """Returns what the line of the epochs says of one: its scores, short enough for 80 columns.

    Args:
      task: what was asked.
      row: as in metrics.jsonl.
      said: of its rank, as `Progress.said` has it.
    """
    followed = task.followed[0]
    value = row[f"val_{followed}"] or 0
    form = ".2%" if followed == "accuracy" else ".4f"
    scores = f"train {row['train_loss']:.4f}  val {row['val_loss']:.4f}  {followed} {value:{form}}"
    return scores + said


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


def output_tables(summary: dict[str, Any]) -> list[Table]:
    """Returns a table of the scores of each output, where there are several."""
    each = summary.get("test_by_output")
    if not each:
        return []
    scored = {k: v for k, v in KINDS[summary["task"]].scored.items() if k != "loss"}
    rows = [[name, *(scores[key] for key in scored)] for name, scores in each.items()]
    return [table("Each output", ["", *scored.values()], rows)]


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
    columns = ["", "value", "95% interval", *_beside(chance, ceiling)]
    return table(f"Measures{class_sizes(chance)}", columns, rows)
