"""report.html: one page that shows a finished run, and asks nobody for anything."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from jaxdna.analysis.filters import FilterMotif
from jaxdna.analysis.motif_match import LIKELY_E_VALUE, likely
from jaxdna.analysis.pages import page_html
from jaxdna.analysis.report_figures import (
    curve_svgs,
    reliability_svg,
    roc_and_pr_svgs,
    scatter_svgs,
)
from jaxdna.config import flat
from jaxdna.console import figures
from jaxdna.runs.display import class_sizes
from jaxdna.runs.members_table import (
    GRID,
    calibration_note,
    grid_rows,
    members_rows,
    members_title,
)
from jaxdna.tasks.classes import Binary
from jaxdna.tasks.task import Task

MOST_LOGOS = 8

_Table = tuple[list[str], list[list[Any]]]  # columns, rows


@dataclass(frozen=True)
class ReportData:
    """Everything that the page shows.

    Attributes:
      name: of the run folder.
      config: what was trained.
      summary: as in summary.json.
      data: as in data.json.
      rows: as in metrics.jsonl.
      task: what was asked.
      targets: [examples, *target_shape] of the test split.
      outputs: float [examples, outputs] of the test split.
      best_logits: float [examples] of the best possible classifier; None where nobody knows it.
      ceiling: best expected loss and accuracy on the validation split, for the curves, or None.
      filters: motifs of the filters; empty for networks without.
      motif: a sentence on the filter that matters most, or nothing.
      caveat: a sentence about the known motifs that they were compared with, or nothing.
      devices: one line.
    """

    name: str
    config: ConfigDict
    summary: dict[str, Any]
    data: dict[str, Any]
    rows: list[dict[str, Any]]
    task: Task
    targets: NDArray
    outputs: NDArray[np.floating]
    best_logits: NDArray[np.floating] | None
    ceiling: dict[str, float | None] | None
    filters: list[FilterMotif]
    motif: str
    caveat: str
    devices: str


def report_html(report: ReportData) -> str:
    """Returns the page."""
    config, summary, task = report.config, report.summary, report.task
    tested = bool(len(report.targets))
    shown = [one for one in report.filters if one.core][:MOST_LOGOS]
    data = report.data
    return page_html(
        "report",
        report.name,
        data=data,
        summary=summary,
        versions=summary["versions"],
        headline=_headline(report),
        motif=report.motif,
        sizes=class_sizes(task.chance(report.targets)).removeprefix(": ") if tested else "",
        scores=_scores(report) if tested else None,
        by_output=_by_output(task, report.targets, report.outputs) if tested else None,
        answered=_answers(task, report.targets, report.outputs, report.best_logits)
        if tested
        else None,
        **(_members(summary) if "members" in summary else {"grid": None, "members": None}),
        student="members" in summary and config.members.distil,
        curves=curve_svgs(task, report.rows, summary["best_epoch"], report.ceiling),
        filters=report.filters,
        named=[one for one in shown if likely(one.hits)],
        others=[one for one in shown if not likely(one.hits)],
        several=len({one.output for one in report.filters}) > 1,
        likely_e_value=f"{LIKELY_E_VALUE:g}",
        caveat=report.caveat,
        splits=[
            *([f"{split} examples", size] for split, size in data["splits"].items()),
            ["size of each", " x ".join(map(str, data["example_shape"]))],
        ],
        files=[[source["path"], source["sha256"]] for source in data["inputs"]],
        layout=_layout(report),
        keys=[[key, str(value)] for key, value in flat(config).items()],
    )


def folds_html(
    name: str,
    summary: dict[str, Any],
    task: Task,
    targets: NDArray,
    outputs: NDArray[np.floating],
) -> str:
    """Returns the page of a cross-validation, which leads to the pages of its folds.

    Args:
      name: of the folder that holds the folds.
      summary: as in its summary.json.
      task: what was asked.
      targets: [examples, *target_shape] of all folds.
      outputs: float [examples, outputs], each of the model that has not seen the example.
    """
    folds, keys = summary["folds"], task.scored
    rows: list[list[Any]] = [
        [f"fold {fold['fold']}", fold["examples"], *(fold[key] for key in keys)] for fold in folds
    ]
    rows += [[over, "", *(summary[over][key] for key in keys)] for over in ("mean", "sd")]
    rows.append(["pooled", len(targets), *(summary["test"][key] for key in keys)])
    chance = task.chance(targets)
    rows.append(["chance", "", *(chance[key] for key in keys)])
    return page_html(
        "folds",
        name,
        versions=summary["versions"],
        examples=len(targets),
        folds=[fold["fold"] for fold in folds],
        verdict=summary["verdict"],
        sizes=class_sizes(chance).removeprefix(": "),
        scores=(["", "examples", *keys.values()], rows),
        answered=_answers(task, targets, outputs, None),
    )


def grid_html(name: str, summary: dict[str, Any]) -> str:
    """Returns the page of a grid over networks, which leads to the page of the best one.

    Args:
      name: of the folder that holds their folders.
      summary: as in its summary.json.
    """
    return page_html(
        "grid",
        name,
        summary=summary,
        versions=summary["versions"],
        grid_title=GRID,
        grid=grid_rows(summary),
        members_title=members_title(summary),
        members=members_rows(summary),
    )


def _headline(report: ReportData) -> list[tuple[str, str]]:
    summary = report.summary
    test, shown = summary["test"], []
    if test.get("accuracy") is not None:
        shown.append(("accuracy", f"{test['accuracy']:.2%}"))
    for key, label in report.task.scored.items():
        if key in report.task.followed and key != "accuracy" and test[key] is not None:
            shown.append((label, f"{test[key]:.4f}"))
    if summary["ceiling"] and summary["ceiling"]["auroc"] is not None:
        shown.append(("best possible AUROC", f"{summary['ceiling']['auroc']:.4f}"))
    return [*shown, ("parameters", f"{summary['params']:,}")]


def _scores(report: ReportData) -> _Table:
    task, ceiling = report.task, report.summary["ceiling"] or {}
    chance = task.chance(report.targets)
    found = task.measures(report.targets, report.outputs)
    if found is None:
        test = report.summary["test"]
        rows = [[label, test[key], chance[key]] for key, label in task.scored.items()]
        return ["", "value", "chance"], rows
    rows = [
        [
            label,
            found[key].value,
            f"{figures(found[key].low)}–{figures(found[key].high)}".replace("-", "−"),
            chance.get(key),
            *([ceiling.get(key)] if ceiling else []),
        ]
        for key, label in task.measured.items()
    ]
    columns = ["", "value", "95% interval", "chance", *(["Bayes ceiling"] if ceiling else [])]
    return columns, rows


def _by_output(task: Task, targets: NDArray, outputs: NDArray[np.floating]) -> _Table:
    each = task.scores_by_output(targets, outputs) if task.outputs > 1 else {}
    rows = [[name, *(one[key] for key in task.scored)] for name, one in each.items()]
    return ["", *task.scored.values()], rows


def _members(summary: dict[str, Any]) -> dict[str, Any]:
    """The members, and how far probabilities can be trusted: of the best one, and of all."""
    ensemble = summary["ensemble"]
    calibration = ensemble["calibration"]
    best = ensemble["best"]
    drawn = (
        {}
        if not calibration
        else {
            f"member {best['member']}": best["calibration"]["before"],
            "ensemble": calibration["before"],
            "ensemble, temperature": calibration["after"],
        }
    )
    return {
        "grid": grid_rows(summary) if "grid" in summary else None,
        "grid_title": GRID,
        "members": members_rows(summary),
        "members_title": members_title(summary),
        "calibration_note": calibration_note(summary) if calibration else "",
        "reliability": [reliability_svg(drawn)] if calibration else [],
    }


def _answers(
    task: Task,
    targets: NDArray,
    outputs: NDArray[np.floating],
    best_logits: NDArray[np.floating] | None,
) -> dict[str, Any]:
    """Pictures and a table that show answers beside what is known, as suits the task."""
    pictures: dict[str, list[str]] = {}
    if isinstance(task, Binary) and 0 < targets.sum() < len(targets):
        svgs = roc_and_pr_svgs(targets, outputs[:, 0], best_logits)
        pictures["ROC, precision and recall"] = svgs
    if task.target_dtype == "float32":
        pictures["Predicted and known"] = scatter_svgs(task, targets, outputs)
    counts, names = task.confusion(targets, outputs), task.classes
    confusion: _Table | None = None
    if counts is not None:
        rows = [[f"is {name}", *row.tolist()] for name, row in zip(names, counts, strict=True)]
        confusion = ["", *(f"called {name}" for name in names)], rows
    return {"pictures": pictures, "confusion": confusion}


def _layout(report: ReportData) -> list[list[Any]]:
    summary = report.summary
    return [
        ["devices", report.devices],
        ["processes", summary["processes"]],
        ["mesh", "  ".join(f"{axis}={size}" for axis, size in summary["mesh"].items())],
        ["global batch", report.config.train.batch_size],
        ["epochs", summary["epochs"]],
        ["best epoch", summary["best_epoch"]],
        ["examples per second", summary["samples_per_second"]],
        *([f"seconds: {key}", f"{value:.1f}"] for key, value in summary["seconds"].items()),
    ]
