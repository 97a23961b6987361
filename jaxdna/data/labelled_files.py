"""A data set from the user's own files: what goes into which split, and what to beware of."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from jaxdna.data.dataset import SPLITS, Dataset, Input, Split
from jaxdna.data.digests import file_digest
from jaxdna.data.duplicates import find_duplicates, same_sequences, sequence_keys
from jaxdna.data.labelled import Labelled, read_labelled
from jaxdna.data.labelled_settings import GC_MATCHED, SHUFFLE
from jaxdna.data.mapped_rows import MappedRows
from jaxdna.data.near_copies import kmer_length
from jaxdna.data.records import Records
from jaxdna.data.relatives import Relation, named_overlaps
from jaxdna.data.shortcuts import shortcut_notes
from jaxdna.data.split_table import read_split_table
from jaxdna.data.splits import (
    chromosome_split,
    fold_split,
    keep_together,
    random_split,
    require_two_classes,
)
from jaxdna.data.targets import named
from jaxdna.errors import UserError
from jaxdna.tasks.classes import Binary

_FIXED = ("split_table", "test_chroms", "test_positives", "test_table")  # ways to name the test
_WAYS = (*_FIXED, "folds")
_IN_MEMORY_BYTES = 2**30  # larger data stay on disk, and each process reads its own rows


def load_files(config: ConfigDict) -> Dataset:
    """Returns the data set of `config.data`, whose name is `fasta`.

    Raises:
      UserError: a file or a setting is wrong, or they do not fit each other.
    """
    labelled = read_labelled(config)
    if labelled.targets.classes is not None:
        otherwise = ""
        if labelled.targets.kind == Binary.kind and config.data.table:
            otherwise = f", or --config.data.negatives={SHUFFLE} for bound ones alone"
        require_two_classes(labelled.targets.classes, labelled.targets.class_names, otherwise)
    inputs = list(labelled.inputs)
    if config.data.split_table:
        inputs.append(Input(config.data.split_table, file_digest(config.data.split_table)))
    same = _same(labelled)
    relations = _relations(labelled, same, config.data)
    together = _together(labelled.groups, relations)
    rows, notes = _split_rows(labelled, config, together)
    split, names = _numbers(rows, len(labelled)), _Lazy(labelled.ids)
    duplicates = find_duplicates(same, split, _strata(labelled))
    if duplicates.conflicting == len(labelled):
        one, other = (f"'{names[i]}'" for i in duplicates.examples[0])
        raise UserError(
            f"every sequence has a copy of the other class ({one} and {other}, for example): "
            "nothing tells the classes apart; give bound and unbound sequences that differ"
        )
    caveats = duplicates.notes(names)
    alone = None
    if together is not labelled.groups and not any(config.data[key] for key in _FIXED):
        with suppress(UserError):
            alone = _numbers(_split_rows(labelled, config, labelled.groups)[0], len(labelled))
    for relation in relations:
        found = relation.notes(split, alone, names)
        (caveats if relation.leaks(split) else notes).extend(found)
    padded = config.data.lengths == "pad"
    if labelled.targets.kind == Binary.kind:
        labels = labelled.targets.values
        caveats += shortcut_notes(labelled.codes, labels, labelled.lengths, padded)
    notes += caveats

    def ids(name: str) -> list[str]:
        names = labelled.ids()
        return [names[row] for row in rows[name].tolist()]

    files = ", ".join(Path(source.path).name for source in labelled.inputs)
    return Dataset(
        {name: _split(labelled, rows[name]) for name in SPLITS},
        task=labelled.targets.task(rows["train"], labelled.given),
        describe=f"{labelled.targets.describe(labelled.codes.shape[1])} ({files})",
        inputs=inputs,
        notes=labelled.notes + notes,
        caveats=caveats,
        ids=ids,
        lengths=lambda name: labelled.lengths[rows[name]],
        keys=lambda name: labelled.keys[rows[name]],
        groups=lambda name: (_of_rows(together, rows[name]), _of_rows(labelled.groups, rows[name])),
    )


def in_test_folds(dataset: Dataset, config: ConfigDict) -> Dataset:
    """Returns the data set of all folds of `data.folds` at once.

    Each split of it is all examples, and its `folds` say which of them are whose: in the order of
    the fold's own data set, which `data.fold` makes.

    Args:
      dataset: that of one fold.
      config: without `data.fold`.

    Raises:
      UserError: as `load_files`.
    """
    labelled = read_labelled(config)
    together = _together(labelled.groups, _relations(labelled, _same(labelled), config.data))
    folds = []
    for fold in range(config.data.folds):
        own = config.copy_and_resolve_references()
        own.data.fold = fold
        folds.append(_split_rows(labelled, own, together)[0])
    whole = _split(labelled, np.arange(len(labelled)))
    return Dataset(
        dict.fromkeys(SPLITS, whole),
        task=dataset.task,
        describe=f"{dataset.describe}; {len(folds)} folds at once, each the test of one network",
        inputs=dataset.inputs,
        notes=labelled.notes,
        folds=folds,
        fold_tasks=[labelled.targets.task(rows["train"], labelled.given) for rows in folds],
    )


def _strata(labelled: Labelled) -> NDArray[np.integer]:
    """Returns what splits should have in proportion: the classes, or where there are none zeros."""
    classes = labelled.targets.classes
    return np.zeros(len(labelled), np.int32) if classes is None else classes


def _relations(labelled: Labelled, same: NDArray[np.int64], data: Any) -> list[Relation]:
    """Returns what should keep records in one split: near-copies, and names that overlap."""
    relations = []
    if labelled.families is not None:
        k = kmer_length(labelled.codes.shape[1])
        how = f"share {100 * data.similarity:.3g}% or more of their {k}-mers with another one"
        relations.append(Relation(same_sequences([same, labelled.families]), how))
        if data.positives:
            overlaps = named_overlaps(labelled.ids(), labelled.lengths)
            relations.append(Relation(overlaps, "overlap another one, by their names,"))
    return relations


def _together(
    groups: NDArray[np.int64] | None, relations: Sequence[Relation]
) -> NDArray[np.int64] | None:
    """Returns `groups`, as they are where the relations add nothing to them."""
    if not relations:
        return groups
    alone = np.arange(relations[0].groups.size) if groups is None else groups
    joined = same_sequences([alone] + [relation.groups for relation in relations])
    return groups if joined.max(initial=0) == np.unique(alone).size - 1 else joined


def _numbers(rows: dict[str, NDArray[np.int64]], records: int) -> NDArray[np.int8]:
    """Returns the number of each record's split, -1 for none: int8 [records]."""
    split = np.full(records, -1, dtype=np.int8)
    for index, name in enumerate(SPLITS):
        split[rows[name]] = index
    return split


def _split_rows(
    labelled: Labelled, config: ConfigDict, together: NDArray[np.int64] | None
) -> tuple[dict[str, NDArray[np.int64]], list[str]]:
    """Returns the records of each split, in order, and notes."""
    data, labels = config.data, _strata(labelled)
    classes = labelled.targets.class_names
    ways = [key for key in _WAYS if data[key]]
    if len(ways) > 1:
        raise UserError(
            f"--config.data.{ways[0]}={data[ways[0]]} and --config.data.{ways[1]}={data[ways[1]]} "
            "both define the test split; give only one of them"
        )
    if bool(data.valid_chroms) != bool(data.test_chroms):
        raise UserError(
            "--config.data.valid_chroms and --config.data.test_chroms go together; give both or "
            "neither"
        )
    if data.split_table:
        return read_split_table(data.split_table, labelled.ids())
    if data.test_chroms:
        if labelled.chromosomes is None:
            raise UserError(
                f"--config.data.test_chroms={data.test_chroms} needs to know where the negatives "
                f"lie, and --config.data.negatives={data.negatives} does not say; "
                f"legal: a BED file, {SHUFFLE} or {GC_MATCHED}"
            )
        split = chromosome_split(
            labelled.chromosomes, labels, named(data.valid_chroms), named(data.test_chroms), classes
        )
    elif data.folds:
        split = _fold(labelled, data, config.seed, together)
    elif labelled.tested:
        held = np.arange(len(labelled)) >= len(labelled) - labelled.tested
        split = _beside(held, labelled, data, config.seed, together)
    else:
        train = 1 - data.validation_fraction - data.test_fraction
        if train <= 0:
            raise UserError(
                f"--config.data.validation_fraction={data.validation_fraction} and "
                f"--config.data.test_fraction={data.test_fraction} leave nothing to train on; "
                "their sum must be below 1"
            )
        shares = (train, data.validation_fraction, data.test_fraction)
        split = keep_together(
            lambda groups: random_split(labels, shares, config.seed, groups, classes),
            labels,
            shares,
            together,
            labelled.groups,
        )
    return {name: np.flatnonzero(split == index) for index, name in enumerate(SPLITS)}, []


def _fold(
    labelled: Labelled, data: Any, seed: int, together: NDArray[np.int64] | None
) -> NDArray[np.int8]:
    """One fold is the test split; the validation split is drawn from the others."""
    if data.fold >= data.folds:
        raise UserError(
            f"--config.data.fold={data.fold} is not legal: it must be -1 to {data.folds - 1} "
            f"(--config.data.folds={data.folds})"
        )
    labels, needed = _strata(labelled), labelled.groups
    classes = labelled.targets.class_names
    folds = keep_together(
        lambda groups: fold_split(labels, data.folds, seed, groups, classes),
        labels,
        [1 / data.folds] * data.folds,
        together,
        needed,
    )
    return _beside(folds == max(data.fold, 0), labelled, data, seed, together)


def _beside(
    held: NDArray[np.bool_],
    labelled: Labelled,
    data: Any,
    seed: int,
    together: NDArray[np.int64] | None,
) -> NDArray[np.int8]:
    """What is held out is the test split; the validation split is drawn from the rest."""
    labels, needed = _strata(labelled), labelled.groups
    classes = labelled.targets.class_names
    split = np.full(len(labelled), SPLITS.index("test"), dtype=np.int8)
    rest = np.flatnonzero(~held)
    shares = (1 - data.validation_fraction, data.validation_fraction, 0)
    split[rest] = keep_together(
        lambda groups: random_split(labels[rest], shares, seed, groups, classes),
        labels[rest],
        shares,
        _of_rows(together, rest),
        _of_rows(needed, rest),
    )
    return split


def _of_rows(groups: NDArray[np.int64] | None, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
    return None if groups is None else groups[rows]


def _split(labelled: Labelled, rows: NDArray[np.int64]) -> Split:
    if labelled.codes.nbytes <= _IN_MEMORY_BYTES:
        return Split(np.asarray(labelled.codes[rows]), labelled.targets.values[rows])
    mapped = MappedRows(labelled.codes, rows)
    return Split(cast(NDArray[np.uint8], mapped), labelled.targets.values[rows])


def _same(labelled: Labelled) -> NDArray[np.int64]:
    """Returns which records are the same in the files, or to the network once they are cropped.

    An odd number of bases to pad or to crop leaves the other strand one base further.
    """
    keys, (count, length) = [labelled.keys], labelled.codes.shape
    if (labelled.lengths > length).any():
        offsets = np.arange(count + 1, dtype=np.int64) * length
        keys.append(sequence_keys(Records(range(count), labelled.codes.reshape(-1), offsets)))  # type: ignore[arg-type]
    return same_sequences(keys)


class _Lazy(Sequence[str]):
    """Names that are made only if one is asked for."""

    def __init__(self, make: Callable[[], Sequence[str]]):
        self._make = make

    def __len__(self) -> int:
        return len(self._make())

    def __getitem__(self, index: Any) -> Any:
        return self._make()[index]
