"""k-fold cross-validation: all folds in one program, a run folder of each, and pooled scores."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.table import Table

from jaxdna.config import flat, validate
from jaxdna.console import table
from jaxdna.data.batches import steps_per_epoch
from jaxdna.errors import NotFiniteError
from jaxdna.member_settings import member_settings
from jaxdna.runs.curves import TensorBoard
from jaxdna.runs.loop import Run
from jaxdna.runs.run_folder import RunFolder
from jaxdna.storage.places import Place
from jaxdna.strategies.prepare import Prepared
from jaxdna.tasks.kinds import KINDS, task_of
from jaxdna.tasks.verdict import verdict_of_folds
from jaxdna.training.checkpoint import Checkpoints
from jaxdna.training.positions import name_of

TrainOne = Callable[[ConfigDict, RunFolder], dict[str, Any]]


def fold_folder(workdir: Place, fold: int) -> RunFolder:
    """Returns the run folder of one fold, from 0."""
    return RunFolder(workdir / f"fold{fold}", workdir)


def fold_config(config: ConfigDict, fold: int) -> ConfigDict:
    """Returns what trains one fold alone."""
    return validate(flat(config) | {"data.fold": fold})


def at_once(config: ConfigDict) -> bool:
    """Whether the folds can be the members of one program; else each is trained by itself."""
    several = bool(member_settings(config) or config.members.grid)
    return config.strategy == "spmd" and config.gradient_sync.method == "auto" and not several


def deal(run: Run, prepared: Prepared, whole: RunFolder, folds: Sequence[int]) -> None:
    """Gives folds that were trained at once the run folders that they would have left alone.

    What is missing there follows from the checkpoint, by the same command as for one fold: the
    scores of its test split, the report and the summary.

    Args:
      run: trained by `strategies.members.CrossValidation`.
      prepared: its data and functions.
      whole: has a folder for each fold.
      folds: which are not finished.

    Raises:
      NotFiniteError: the loss of one of them is not finite.
    """
    config = prepared.program.config
    progress: Any = run.progress
    seconds = {name: value / config.data.folds for name, value in run.watch.read().items()}
    for fold in folds:
        if why := progress.broken[fold]:
            raise NotFiniteError(
                f"fold {fold}: {why}; try a smaller --config.optimizer.learning_rate in another "
                "folder"
            )
        own, settings = progress.members[fold], fold_config(config, fold)
        folder = fold_folder(whole.path, fold)
        if folder.files.exists(f"checkpoints/{name_of((own.epoch, 0))}"):
            continue  # killed before its summary was written
        examples = len(prepared.dataset.folds[fold]["train"])
        steps = steps_per_epoch(examples, config.train.batch_size)
        own.seconds = seconds  # what it took alone is not known: an equal share
        own.rows = [
            row | {"step": row["epoch"] * steps, "seconds": row["seconds"] / config.data.folds}
            for row in own.rows
        ]
        state, best = jax.tree.map(lambda leaf, i=fold: leaf[i], (run.state, run.best))
        with folder.locked(print):
            folder.open(settings)
            checkpoints = Checkpoints(folder.files, config.checkpoint.keep)
            checkpoints.save(state, best, own)
            board = TensorBoard(folder.files, 1, flat(settings))
            for row in own.rows:
                board.write(row)
            checkpoints.wait()


def cross_validate(
    config: ConfigDict,
    whole: RunFolder,
    train_one: TrainOne,
    train_all: Callable[[ConfigDict, RunFolder], None],
) -> dict[str, Any]:
    """Trains every fold and pools the predictions of the folds that were held out.

    Args:
      config: with `data.folds`; `data.fold` is -1.
      whole: gets config.json, one folder per fold, test.tsv (the pooled predictions, in the order
        of the folds) and summary.json.
      train_one: trains one configuration in one run folder, or finds it finished there.
      train_all: trains at once what is not finished, where `at_once` says that it can.

    Returns:
      `folds` (the scores of each, with its size), `mean` and `sd` over the folds, `test`, the
      scores of all examples at once, each predicted by the model that has not seen it, and
      `verdict`, a sentence on those.
    """
    whole.open(config)
    whole.drop_summary()
    if at_once(config):
        train_all(config, whole)
    rows: list[dict[str, Any]] = []
    tasks, parts, left_plateau = [], [], []
    for fold in range(config.data.folds):
        folder = fold_folder(whole.path, fold)
        summary = train_one(fold_config(config, fold), folder)
        tasks.append(task_of(folder.read_data() or {}))
        parts.append(folder.read_test(tasks[-1]))
        left_plateau.append(bool(summary["left_plateau"]))
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
        "verdict": verdict_of_folds(
            task.verdict(True, targets, targets, outputs), left_plateau, len(targets)
        ),
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
