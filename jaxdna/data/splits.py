"""Which record belongs to which split: random and stratified, by chromosome, or in folds."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxdna.data.dataset import SPLITS
from jaxdna.data.genome import naming_hint
from jaxdna.errors import UserError

_TRAIN, _VALIDATION, _TEST = range(len(SPLITS))


def random_split(
    labels: ArrayLike,
    fractions: Sequence[float],
    seed: int,
    groups: ArrayLike | None = None,
    classes: Sequence[str] = (),
) -> NDArray[np.int8]:
    """Splits at random; every split gets the classes in the same proportion, up to rounding.

    Args:
      labels: integer [records], the classes; all the same where there are none.
      fractions: share of each split, in the order train, validation, test; they sum to 1.
      seed: the same seed gives the same split.
      groups: integer [records]; records with one number (a peak and its shuffled negative) stay
        together. A group of more than ten times the mean size, and more than a tenth of the
        smallest split, goes to the largest split. None: every record by itself.
      classes: their names, for the sentence.

    Returns:
      int8 [records], index into `SPLITS`.

    Raises:
      UserError: the fractions are no shares, or there are too few records for a split.
    """
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.size != len(SPLITS) or (shares < 0).any() or not np.isclose(shares.sum(), 1):
        raise UserError(
            f"split fractions {list(map(float, shares))} are not legal: they must be "
            f"{len(SPLITS)} numbers of 0 or more ({', '.join(SPLITS)}) that sum to 1"
        )
    order, group_of_record, content = _shuffled_groups(labels, groups, seed)
    # Each split's places are spread evenly over the groups in order, so that every stratum, a
    # stretch of that order, gets its share while the totals are exact.
    smallest = shares[shares > 0].min() * group_of_record.size
    large = _large_groups(content.sum(axis=1), smallest)
    order = order[~large[order]]
    limits = np.rint(np.cumsum(shares) * order.size).astype(np.int64)
    totals = limits - np.concatenate([[0], limits[:-1]])
    places = np.concatenate([(np.arange(total) + 0.5) / total for total in totals])
    pattern = np.repeat(np.arange(len(SPLITS)), totals)[np.argsort(places, kind="stable")]
    split_of_group = np.full(large.size, np.argmax(shares), dtype=np.int8)
    split_of_group[order] = pattern
    split = split_of_group[group_of_record]
    wanted = np.flatnonzero(shares > 0)
    _require_classes(np.asarray(labels), split, wanted, SPLITS, large.size, classes)
    return split


def fold_split(
    labels: ArrayLike,
    folds: int,
    seed: int,
    groups: ArrayLike | None = None,
    classes: Sequence[str] = (),
) -> NDArray[np.int16]:
    """Deals records to folds; every fold gets the classes in the same proportion, up to rounding.

    Args:
      labels: integer [records], the classes.
      folds: how many, 2 or more.
      seed: the same seed gives the same folds.
      groups: see `random_split`. Where one has more than ten times the mean size, and more than a
        tenth of a fold, the largest are dealt first, each to the fold with the fewest records of
        its classes, so that smaller ones even out what larger ones upset.
      classes: their names, for the sentence.

    Returns:
      int16 [records], the fold in which each record is held out.

    Raises:
      UserError: fewer records of a class than folds.
    """
    if folds < 2:
        raise UserError(f"--config.data.folds={folds} is not legal: it must be 2 or more")
    order, group_of_record, content = _shuffled_groups(labels, groups, seed)
    fold_of_group = np.empty(order.size, dtype=np.int16)
    fold_of_group[order] = np.arange(order.size) % folds
    sizes = content.sum(axis=1)
    if _large_groups(sizes, group_of_record.size / folds).any():
        held = np.zeros((folds, content.shape[1]), dtype=np.int64)
        for group in order[np.argsort(-sizes[order], kind="stable")]:
            of_its_classes = held[:, content[group] > 0].sum(axis=1)
            fold_of_group[group] = np.lexsort((held.sum(axis=1), of_its_classes))[0]
            held[fold_of_group[group]] += content[group]
    fold = fold_of_group[group_of_record]
    names = [f"fold {number}" for number in range(folds)]
    _require_classes(np.asarray(labels), fold, np.arange(folds), names, order.size, classes)
    return fold


def require_two_classes(
    labels: ArrayLike, classes: Sequence[str] = (), otherwise: str = ""
) -> None:
    """Raises UserError where records are of one class only.

    Args:
      labels: integer [records], the classes.
      classes: their names, for the sentence.
      otherwise: what else is legal, for its end.
    """
    there = np.unique(np.asarray(labels, dtype=np.int64))
    if there.size < 2:
        which = "no record"
        if there.size:
            which = f"class {classes[there[0]] if classes else there[0]}"
        raise UserError(
            f"the data have {which} only ({np.size(labels)} records); "
            f"legal: records of at least two classes{otherwise}"
        )


def keep_together(
    draw: Callable[[NDArray[np.int64] | None], NDArray[Any]],
    labels: NDArray[np.integer],
    shares: Sequence[float],
    wanted: NDArray[np.int64] | None,
    needed: NDArray[np.int64] | None,
) -> NDArray[Any]:
    """Splits with the groups that should stay together, or only with those that must.

    Families can be so large that a split would be left without records; the wish then gives way.

    Args:
      draw: splits, given groups.
      labels: integer [records], the classes.
      shares: of each split or fold; with less than half of it in some class, one is too small.
      wanted: integer [records], groups as `random_split` takes them.
      needed: the same.

    Raises:
      UserError: `draw` does, with the groups that must stay together.
    """
    if wanted is not needed:
        with suppress(UserError):
            split = draw(wanted)
            for records in (split[labels == one] for one in np.unique(labels)):
                there = np.bincount(records, minlength=len(shares))
                if (there < np.floor(np.array(shares) * records.size / 2)).any():
                    break
            else:
                return split
    return draw(needed)


def chromosome_split(
    chromosomes: ArrayLike,
    labels: ArrayLike,
    valid_chroms: Sequence[str],
    test_chroms: Sequence[str],
    classes: Sequence[str] = (),
) -> NDArray[np.int8]:
    """Splits by chromosome, so that no test sequence lies beside a training sequence.

    Args:
      chromosomes: text [records].
      labels: integer [records], the classes.
      valid_chroms: chromosomes of the validation split.
      test_chroms: chromosomes of the test split; all others train.
      classes: their names, for the sentence.

    Returns:
      int8 [records], index into `SPLITS`.

    Raises:
      UserError: a chromosome has no record or is named for both, or a split lacks a class.
    """
    chromosomes = np.asarray(chromosomes)
    both = sorted(set(valid_chroms) & set(test_chroms))
    if both:
        raise UserError(
            f"chromosome {both[0]} is in both --config.data.valid_chroms and "
            "--config.data.test_chroms; give it in one of them"
        )
    present = np.unique(chromosomes).tolist()
    split = np.full(chromosomes.size, _TRAIN, dtype=np.int8)
    for flag, index, names in (
        ("valid_chroms", _VALIDATION, valid_chroms),
        ("test_chroms", _TEST, test_chroms),
    ):
        for name in names:
            if name not in present:
                raise UserError(
                    f"--config.data.{flag} names {name}, on which no record lies; "
                    + naming_hint(name, present)
                )
        split[np.isin(chromosomes, list(names))] = index
    wanted = [_TRAIN, *([_VALIDATION] if valid_chroms else []), *([_TEST] if test_chroms else [])]
    _require_classes(np.asarray(labels), split, np.array(wanted), SPLITS, classes=classes)
    return split


def _shuffled_groups(
    labels: ArrayLike, groups: ArrayLike | None, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Returns all groups in an order, the group of each record, and [groups, classes] records.

    The order goes stratum by stratum and is shuffled within. Groups of one stratum hold the same
    number of records of each class.
    """
    classes = np.asarray(labels, dtype=np.int64)
    members = np.arange(classes.size) if groups is None else np.asarray(groups)
    names, group_of_record = np.unique(members, return_inverse=True)
    content = np.zeros((names.size, classes.max() + 1), dtype=np.int64)
    np.add.at(content, (group_of_record, classes), 1)
    stratum = np.unique(content, axis=0, return_inverse=True)[1].reshape(-1)
    chance = np.random.default_rng([seed, 0x59117]).random(names.size)
    return np.lexsort((chance, stratum)), group_of_record, content


def _large_groups(sizes: NDArray[np.int64], smallest: float) -> NDArray[np.bool_]:
    """Returns which groups, of so many records, no draw can deal fairly.

    A family of repeats in a small split would be much of it, tell little of new sequences, and be
    missing from training.
    """
    return sizes > np.maximum(smallest / 10, 10 * sizes.mean())


def _require_classes(
    labels: NDArray,
    split: NDArray,
    wanted: NDArray,
    names: Sequence[str],
    groups: int | None = None,
    classes: Sequence[str] = (),
) -> None:
    there_are = np.unique(labels)
    for index in wanted:
        missing = np.setdiff1d(there_are, labels[split == index])
        if missing.size:
            there = int((labels == missing[0]).sum())
            few = groups is not None and groups < there
            together = f" in {groups} groups that stay together" if few else ""
            one = classes[missing[0]] if classes else missing[0]
            of_class = f" of class {one}" if there_are.size > 1 else ""
            raise UserError(
                f"{names[index]} gets no record{of_class} ({there} in all the data"
                f"{together}); give fewer splits or folds, other fractions or chromosomes, or "
                "more records"
            )
