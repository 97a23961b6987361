"""Folds of the examples that are not the test: each is the validation split of its own members."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from jaxdna.data.dataset import Dataset, Split
from jaxdna.data.mapped_rows import MappedRows
from jaxdna.data.splits import fold_split, keep_together
from jaxdna.errors import UserError

_POOLED = ("train", "validation")


def in_folds(dataset: Dataset, config: ConfigDict) -> Dataset:
    """Deals the examples of training and validation to `members.folds`.

    Examples that belong together (near-copies, a peak and its shuffled negative) stay in one fold,
    and every fold has the classes in the same proportion.

    Returns:
      A data set whose train and validation splits are both all of these examples, and whose `folds`
      say which of them are whose; with `members.fold` the splits of that fold alone.

    Raises:
      UserError: there are more folds than examples of a class.
    """
    folds, alone = config.members.folds, config.members.fold
    whole = _joined([dataset.splits[name] for name in _POOLED])
    fold = _dealt(dataset, whole.y, folds, config.seed)
    each = [
        {"train": np.flatnonzero(fold != i), "validation": np.flatnonzero(fold == i)}
        for i in range(folds)
    ]
    own: dict[str, Any] = dict.fromkeys(_POOLED, slice(None)) if alone == -1 else each[alone]

    def values(of: Callable[[str], Any]) -> Callable[[str], Any]:
        """What a function says of the new splits that says something of each old one's examples."""

        def pooled(name: str) -> Any:
            if name not in _POOLED:
                return of(name)
            parts = [of(part) for part in _POOLED]
            joined = np.concatenate(parts)[own[name]]
            return joined.tolist() if isinstance(parts[0], list) else joined

        return pooled

    known: dict[str, Any] = {
        key: values(getattr(dataset, key))
        for key in ("ids", "lengths", "keys", "best_logits")
        if getattr(dataset, key)
    }
    splits = dataset.splits | {name: _part(whole, own[name]) for name in _POOLED}

    def ceiling(name: str) -> dict[str, float | None]:
        best = dataset.task.scores(splits[name].y, known["best_logits"](name)[:, None])
        return {key: best[key] for key in ("accuracy", "auroc", "loss")}

    if dataset.ceiling and dataset.best_logits:
        known["ceiling"] = ceiling
    described = f"{dataset.describe}; training and validation in {folds} folds"
    return replace(
        dataset, splits=splits, describe=described, folds=each if alone == -1 else (), **known
    )


def _joined(splits: list[Split]) -> Split:
    """The examples of splits one after the other; what lies in one store on disk stays there."""
    y = np.concatenate([split.y for split in splits])
    x: list[Any] = [split.x for split in splits]
    mapped = [one for one in x if isinstance(one, MappedRows)]
    if len(mapped) == len(x) and all(one.values is mapped[0].values for one in mapped):
        joined: Any = MappedRows(mapped[0].values, np.concatenate([one.rows for one in mapped]))
        return Split(joined, y)
    return Split(np.concatenate([one[:] for one in x]), y)


def _part(split: Split, rows: Any) -> Split:
    if isinstance(rows, slice):
        return split
    x: Any = split.x
    if isinstance(x, MappedRows):
        mapped: Any = MappedRows(x.values, x.rows[rows])
        return Split(mapped, split.y[rows])
    return Split(*split.rows(rows))


def _dealt(dataset: Dataset, targets: NDArray, folds: int, seed: int) -> NDArray[np.integer]:
    """The fold of each example."""
    classes = dataset.task.classes
    labels = targets if classes else np.zeros(len(targets), np.int32)
    fewest = int(np.bincount(labels)[np.unique(labels)].min())
    if folds > fewest:
        which = " of a class" if classes else ""
        raise UserError(
            f"--config.members.folds={folds} is more than the {fewest} training and validation "
            f"examples{which}; legal: 2 to {fewest}"
        )
    groups: list[NDArray[np.int64] | None] = [None, None]
    if dataset.groups:
        parts = [dataset.groups(name) for name in _POOLED]
        groups = [
            None if any(one is None for one in both) else np.concatenate(both)
            for both in zip(*parts, strict=True)
        ]
    return keep_together(
        lambda wanted: fold_split(labels, folds, seed, wanted, classes),
        labels,
        [1 / folds] * folds,
        groups[0],
        groups[1],
    )
