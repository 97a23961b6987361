"""The members of a run beside each other, and their ensemble."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.table import Table

from jaxdna.console import table
from jaxdna.tasks.kinds import KINDS

TITLE = "Members, best validation loss first; test scores and calibration error (ECE)"


def members_rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Returns the headings and the rows of the table: members, mean, deviation and ensemble.

    Args:
      summary: as in summary.json.
    """
    scored = KINDS[summary["task"]].scored
    members, ensemble = summary["members"], summary["ensemble"]

    def numbers(own: Mapping[str, Any], error: float | None) -> list[float | None]:
        test = own["test"] or {}
        return [own.get("validation", {}).get("loss"), *(test.get(k) for k in scored), error]

    whole = [i for i, own in enumerate(members) if not own["broken"]]
    each = {i: numbers(members[i], (members[i]["calibration"] or {}).get("before")) for i in whole}
    order = sorted(whole, key=lambda i: each[i][0] or 0.0)
    rows: list[list[Any]] = [
        [str(i), members[i]["seed"], members[i]["best_epoch"], *each[i]] for i in order
    ]
    rows += [
        [str(i), own["seed"], own["broken"], *[None] * (len(scored) + 2)]
        for i, own in enumerate(members)
        if own["broken"]
    ]
    values = np.array([each[i] for i in order], np.float64)
    rows.append(["mean", "", "", *_known(values.mean(axis=0))])
    if len(whole) > 1:
        rows.append(["sd", "", "", *_known(values.std(axis=0, ddof=1))])
    of_all = (ensemble["calibration"] or {}).get("before", {}).get("error")
    rows.append(["ensemble", "", "", *numbers(ensemble, of_all)])
    headings = ["member", "seed", "epoch", "val loss", *scored.values(), "ECE"]
    return headings, rows


def _known(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def members_table(summary: Mapping[str, Any]) -> Table:
    """Returns the table of `members_rows` for a console."""
    return table(TITLE, *members_rows(summary))


def calibration_note(summary: Mapping[str, Any]) -> str:
    """Returns a sentence on the ensemble's calibration; nothing where it has none."""
    found = summary["ensemble"]["calibration"]
    if not found:
        return ""
    before, after = found["before"]["error"], found["after"]["error"]
    return (
        f"the ensemble's calibration error is {before:.4f}; dividing its logits by the temperature "
        f"{found['temperature']:.3f}, fitted on the validation split, makes it {after:.4f}"
    )
