"""Distillation: one network that is trained to answer as the ensemble of a run does."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from jaxdna.config import flat, validate
from jaxdna.console import loud
from jaxdna.data.dataset import Dataset, Split
from jaxdna.parallel.mesh import AXES
from jaxdna.runs.run_folder import RunFolder
from jaxdna.strategies.prepare import prepare
from jaxdna.training.checkpoint import load_members
from jaxdna.training.evaluation import Evaluator

_ALONE = {
    "members.seeds": 1,
    "members.grid": "",
    "members.distil": False,
    "train.class_weight": "none",  # the ensemble's answers have it in them
}


def student_folder(folder: RunFolder) -> RunFolder:
    """Returns the run folder of the student, within that of the members."""
    return RunFolder(folder.path / "student", folder.path)


def student_config(config: ConfigDict, settings: dict[str, Any] | None = None) -> ConfigDict:
    """Returns what the student is trained with: one network, on all devices as shards of a batch.

    Args:
      config: that of the members.
      settings: dotted keys of the best setting of a grid.
    """
    leaves = flat(config)
    if leaves["mesh.member"] != 1:  # what the members were split over shares the batch
        taken = {f"mesh.{axis}": 1 for axis in AXES if leaves[f"mesh.{axis}"] == -1}
        leaves |= taken | {"mesh.member": 1, "mesh.data": -1}
    if leaves["members.fold"] == -1:  # else all of them have the same split
        leaves["members.folds"] = 0
    return validate(leaves | _ALONE | (settings or {}))


def taught_by(
    config: ConfigDict, folder: RunFolder, console: Console
) -> Callable[[Dataset], Dataset]:
    """Returns what puts the ensemble's answers in place of the targets of a training split.

    Of folds, an example's answer is that of the members that were not trained on it.

    Args:
      config: that of the members, whose run is finished.
      folder: of that run.
      console: is told of checkpoints that are damaged.
    """

    def taught(dataset: Dataset) -> Dataset:
        members = prepare(config, Console(quiet=True))
        wanted = members.program.abstract_state.params
        params, progress = load_members(folder.checkpoints, wanted, loud(console))
        name = "validation" if members.dataset.folds else "train"
        evaluator = Evaluator(members.program, members.dataset.splits[name], name)
        train, soft = dataset.splits["train"], dataset.task.soft
        # Of folds the examples of training come first, those of validation after them.
        outputs = progress.pooled(evaluator.outputs(params))[: len(train)]
        rows = np.flatnonzero(~np.isnan(outputs).any(axis=1))
        answers = dataset.task.predicted(outputs[rows]).astype(np.float32)
        split = Split(
            train.x if len(rows) == len(train) else train.x[rows],
            answers.reshape(len(rows), *soft.target_shape),
        )
        described = f"{dataset.describe}; training targets are the answers of the ensemble"
        splits = dataset.splits | {"train": split}
        return replace(dataset, splits=splits, taught=True, describe=described)

    return taught
