"""k-fold cross-validation: one ordinary run per fold, then the scores of each and of all pooled."""

from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from rich.table import Table

from jaxdna.config import flat, validate
from jaxdna.console import table
from jaxdna.runs.run_folder import RunFolder
from jaxdna.storage.places import Place
from jaxdna.tasks.kinds import KINDS, task_of

TrainOne = Callable[[ConfigDict, RunFolder], dict[str, Any]]


def fold_folder(workdir: Place, fold: int) -> RunFolder:
    """Returns the run folder of one fold, from 0."""
    return RunFolder(workdir / f"fold{fold}", workdir)


def cross_validate(config: ConfigDict, whole: RunFolder, train_one: TrainOne) -> dict[str, Any]:
    """Trains every fold and pools the predictions of the folds that were held out.

    Args:
      config: with `data.folds`; `data.fold` is -1.
      whole: gets config.json, one folder per fold, test.tsv (the pooled predictions, in the order
        of the folds) and summary.json.
      train_one: trains one configuration in one run folder, or finds it finished there.

    Returns:
      `folds` (the scores of each, with its size), `mean` and `sd` over the folds, and `test`, the
      scores of all examples at once, each predicted by the model that has not seen it.
    """
    whole.open(config)
    whole.drop_summary()
    rows: list[dict[str, Any]] = []
    tasks, parts = [], []
    for fold in range(config.data.folds):
        folder = fold_folder(whole.path, fold)
        summary = train_one(validate(flat(config) | {"data.fold": fold}), folder)
        tasks.append(task_of(folder.read_data() or {}))
        parts.append(folder.read_test(tasks[-1]))
        rows.append({"fold": fold, "examples": len(parts[-1][0]), **summary["test"]})
    task, each = tasks[0], zip(tasks, parts, strict=True)
    targets = np.concatenate([part[1] for part in parts])
    outputs = np.concatenate([own.restated(part[2], task) for own, part in each])
    whole.write_test([name for part in parts for name in part[0]], targets, outputs, task.headings)
    over = {key: np.array([row[key] for row in rows], dtype=np.float64) for key in task.scored}
    result = {
        "params": summary["params"],
        "folds": rows,
        "mean": {key: float(values.mean()) for key, values in over.items()},
        "sd": {key: float(values.std(ddof=1)) for key, values in over.items()},
        **task.test_summary(targets, outputs),
        "versions": summary["versions"],
    }
    whole.write_summary(result)
    return result


def folds_table(summary: dict[str, Any]) -> Table:
    """Returns the closing table: one line per fold, mean and deviation, and pooled."""
    scored = KINDS[summary.get("task", "binary")].scored
    rows: list[list[Any]] = [
        [f"fold {row['fold']}", row["examples"], *(row[key] for key in scored)]
        for row in summary["folds"]
    ]
    for name in ("mean", "sd"):
        rows.append([name, "", *(summary[name][key] for key in scored)])
    examples = sum(row["examples"] for row in summary["folds"])
    rows.append(["pooled", examples, *(summary["test"][key] for key in scored)])
    if chance := summary.get("chance"):  # a run of an older version has none
        rows.append(["chance", "", *(chance[key] for key in scored)])
    return table("Cross-validation", ("", "examples", *scored.values()), rows)
