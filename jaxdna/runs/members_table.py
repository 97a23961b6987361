"""The members of a run beside each other, the settings of its grid, and its ensemble."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.table import Table

from jaxdna.console import table
from jaxdna.tasks.kinds import KINDS

GRID = "Settings, best first: means over their members on the validation split"
_ORDER = "best validation loss first; test scores"


def members_rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Returns the headings and the rows of the table: members, mean, deviation and ensemble.

    Of a grid they are those of its best setting.

    Args:
      summary: as in summary.json.
    """
    scored = KINDS[summary["task"]].scored
    members, ensemble = summary["members"], summary["ensemble"]
    errors = [None] if ensemble["calibration"] else []  # numbers have none

    def numbers(own: Mapping[str, Any], error: float | None) -> list[float | None]:
        test = own["test"] or {}
        found = [own.get("validation", {}).get("loss"), *(test.get(k) for k in scored)]
        return [*found, *[error] * len(errors)]

    shown = summary["grid"][0]["members"] if "grid" in summary else range(len(members))
    broken = [i for i in shown if members[i]["broken"]]
    each = {
        i: numbers(members[i], (members[i]["calibration"] or {}).get("before"))
        for i in shown
        if i not in broken
    }
    order = sorted(each, key=lambda i: each[i][0] or 0.0)
    folds = any(own["fold"] is not None for own in members)

    def who(i: int) -> list[Any]:
        own = members[i]
        return [str(i), own["seed"], *([own["fold"]] if folds else [])]

    rows: list[list[Any]] = [[*who(i), members[i]["best_epoch"], *each[i]] for i in order]
    rows += [[*who(i), members[i]["broken"], *[None] * (len(scored) + 1), *errors] for i in broken]
    headings = ["member", "seed", *["fold"] * folds, "epoch"]
    blank = [""] * (len(headings) - 1)
    values = np.array([each[i] for i in order], np.float64)
    rows.append(["mean", *blank, *_known(values.mean(axis=0))])
    if len(order) > 1:
        rows.append(["sd", *blank, *_known(values.std(axis=0, ddof=1))])
    of_all = (ensemble["calibration"] or {}).get("before", {}).get("error")
    rows.append(["ensemble", *blank, *numbers(ensemble, of_all)])
    if "student" in summary:
        rows.append(["student", *blank, *numbers(summary["student"], None)])
    return [*headings, "val loss", *scored.values(), *["ECE"] * len(errors)], rows


def setting_words(settings: Mapping[str, Any]) -> str:
    """Returns the settings of a grid in words, each by the last part of its key."""
    return " ".join(f"{key.rpartition('.')[2]}={value:g}" for key, value in settings.items())


def grid_rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Returns the headings and the rows of the table of a grid: its settings, best first."""
    grid = summary["grid"]
    scores = [key for key in grid[0]["validation"] if grid[0]["validation"][key] is not None]
    rows = [
        [
            setting_words(one["settings"]),
            len(one["members"]),
            one["broken"],
            *(one["validation"].get(key) for key in scores),
        ]
        for one in grid
    ]
    return ["settings", "members", "broken", *(f"val {key}" for key in scores)], rows


def _known(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def members_title(summary: Mapping[str, Any]) -> str:
    """Returns what stands above `members_rows`."""
    error = " and calibration error (ECE)" if summary["ensemble"]["calibration"] else ""
    return f"Members{' of the best setting' if 'grid' in summary else ''}, {_ORDER}{error}"


def members_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Returns what a console shows of the members, and of a grid before them."""
    grid = [table(GRID, *grid_rows(summary))] if "grid" in summary else []
    return [*grid, table(members_title(summary), *members_rows(summary))]


def calibration_note(summary: Mapping[str, Any]) -> str:
    """Returns a sentence on the ensemble's calibration; nothing where it has none."""
    found = summary["ensemble"]["calibration"]
    if not found:
        return ""
    before, after = found["before"], found["after"]
    return (
        f"the ensemble's calibration error is {before['error']:.4f} ({before['corrected']:.4f} "
        "when corrected for chance, which alone gives perfectly calibrated answers "
        f"{before['by_chance']:.4f}); dividing its logits by the temperature "
        f"{found['temperature']:.3f}, fitted on the validation split, makes it "
        f"{after['error']:.4f} (corrected: {after['corrected']:.4f})"
    )
