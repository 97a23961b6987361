"""How targets are written in files, and the task that they make."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxdna.errors import UserError, nearest
from jaxdna.tasks.classes import Binary, Multiclass
from jaxdna.tasks.labels import Multilabel
from jaxdna.tasks.numbers import Counts, Regression
from jaxdna.tasks.task import Task

AUTO = "auto"
_MOST = float(np.finfo(np.float32).max)
_MOST_DIGITS = 9


def _label(text: str) -> float | None:
    return {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0}.get(text)


def number(text: str) -> float | None:
    """Returns the number that a text is; None where it is none, or float32 cannot hold it."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) <= _MOST and "_" not in text else None


def _count(text: str) -> float | None:
    value = number(text)
    return value if value is not None and value >= 0 else None


def _class(text: str) -> str | None:
    """Returns an integer or a name; a fraction is not a class."""
    if _is_integer(text):
        return text
    try:
        float(text)
    except ValueError:
        return text or None
    return None


def _is_integer(text: str) -> bool:
    return (
        text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS and text == str(int(text))
    )


class Form(NamedTuple):
    """How the targets of a kind of task are written.

    Attributes:
      read: returns what a text says, and None where it says nothing legal.
      legal: what is, in words.
      single: whether each record has one of them.
    """

    read: Callable[[str], float | str | None]
    legal: str
    single: bool


FORMS: dict[str, Form] = {
    AUTO: Form(
        _label,
        "0 or 1 (or --config.data.task=multiclass, multilabel, regression or counts)",
        single=True,
    ),
    Binary.kind: Form(_label, "0 or 1", single=True),
    Multiclass.kind: Form(_class, "an integer from 0, or the name of a class", single=True),
    Multilabel.kind: Form(_label, "0 or 1", single=False),
    Regression.kind: Form(number, "a finite number", single=False),
    Counts.kind: Form(_count, "a finite number, 0 or more", single=False),
}


@dataclass(frozen=True)
class Targets:
    """What is known of each record.

    Attributes:
      kind: of the task, a key of `tasks.kinds.KINDS`.
      names: of the outputs: columns, or the classes of `multiclass`.
      values: [records, *target_shape] as the task has them.
      swaps: see `Task`.
    """

    kind: str
    names: tuple[str, ...]
    values: NDArray
    swaps: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def classes(self) -> NDArray[np.integer] | None:
        """The class of each record; None where records have no class."""
        return self.values if self.kind in (Binary.kind, Multiclass.kind) else None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, where the user gave them."""
        return self.names if self.kind == Multiclass.kind else ()

    def task(self, train: NDArray[np.int64], where: str) -> Task:
        """Returns the task, in the units of the training split.

        Args:
          train: rows of the training split.
          where: what the user gave the targets by.

        Raises:
          UserError: they do not fit the task.
        """
        task: Task
        if self.kind in (Regression.kind, Counts.kind):
            kind = Regression if self.kind == Regression.kind else Counts
            task = kind.fitted(self.names, self.values[train], self.swaps, where)
        elif self.kind == Multilabel.kind:
            task = Multilabel(self.names, self.swaps)
        else:
            task = Multiclass(self.names) if self.kind == Multiclass.kind else Binary()
        task.check(self.values, where)
        return task

    def describe(self, bases: int) -> str:
        """Returns what the records are, for people.

        Args:
          bases: of each sequence.
        """
        records, of = f"{len(self):,} sequences of {bases:,} bases", ", ".join(self.names)
        if self.kind == Binary.kind:
            bound = int(self.values.sum())
            return f"{bound:,} bound and {len(self) - bound:,} unbound sequences of {bases:,} bases"
        if self.kind == Multiclass.kind:
            sizes = np.bincount(self.values, minlength=len(self.names)).tolist()
            each = (f"{size:,} {name}" for name, size in zip(self.names, sizes, strict=True))
            return f"{records} in {len(self.names)} classes: {', '.join(each)}"
        what = "labels" if self.kind == Multilabel.kind else self.kind + " of"
        return f"{records}, {what} {of}"


def as_targets(
    kind: str, names: Sequence[str], values: NDArray, where: str, known: Sequence[str] = ()
) -> Targets:
    """Gives what was read the form of a task's targets.

    Args:
      kind: of the task, or `auto`.
      names: of the columns.
      values: what `Form.read` returned, [records, columns].
      where: what the user gave them by.
      known: the classes of `multiclass`, where a trained network has them.

    Raises:
      UserError: the classes are not as they must be.
    """
    if kind in (AUTO, Binary.kind):
        return Targets(Binary.kind, Binary().names, values[:, 0].astype(np.int32))
    if kind == Multilabel.kind:
        return Targets(kind, tuple(names), values.astype(np.int32))
    if kind != Multiclass.kind:
        return Targets(kind, tuple(names), values.astype(np.float32))
    found, numbers = np.unique(values[:, 0], return_inverse=True)
    classes = list(known) or _classes(found.tolist(), where)
    for name in found.tolist():
        if name not in classes:
            raise UserError(f"{where}: class {name!r} is unknown; {nearest(name, classes)}")
    place = np.array([classes.index(name) for name in found.tolist()], np.int32)
    return Targets(kind, tuple(classes), place[numbers.reshape(-1)])


def _classes(found: list[str], where: str) -> list[str]:
    """Returns the names of all classes, in order, of which `found` are there."""
    integers = [int(name) for name in found if _is_integer(name)]
    if not integers:
        return found
    if len(integers) < len(found):
        name = next(name for name in found if not _is_integer(name))
        raise UserError(
            f"{where}: some classes are numbers and others are names ({integers[0]} and {name!r}); "
            "legal: integers from 0, or names"
        )
    missing = set(range(len(integers))) - set(integers)
    if missing:
        raise UserError(
            f"{where}: class {min(missing)} has no example, and class {max(integers)} has; "
            "legal: integers from 0 without a gap, or names"
        )
    return [str(i) for i in range(len(integers))]


def swaps_of(pairs: str, names: Sequence[str]) -> tuple[int, ...]:
    """Returns for each output the one that it becomes on the other strand; none without pairs.

    Args:
      pairs: `plus:minus`, with commas between several, as `data.strand_pairs` has them.
      names: of the outputs.

    Raises:
      UserError: a pair is not written so, or one of its names is unknown or in two pairs.
    """
    flag = f"--config.data.strand_pairs={pairs}"
    swaps = list(range(len(names)))
    for pair in filter(None, (part.strip() for part in pairs.split(","))):
        ends = [end.strip() for end in pair.split(":")]
        if len(ends) != 2:
            raise UserError(f"{flag}: {pair!r} is not a pair; legal: plus:minus")
        for end in ends:
            if end not in names:
                raise UserError(f"{flag}: unknown target {end!r}; {nearest(end, names)}")
        one, other = (names.index(end) for end in ends)
        if one == other or swaps[one] != one or swaps[other] != other:
            raise UserError(
                f"{flag}: {pair!r} names a target that is already in a pair; legal: each target "
                "once"
            )
        swaps[one], swaps[other] = other, one
    return tuple(swaps) if pairs else ()


def named(text: str) -> list[str]:
    """Returns the names in a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def one_kind(data: Any) -> str:
    """Returns the kind of task that `data.task` names; `auto` is binary."""
    return Binary.kind if data.get("task", AUTO) == AUTO else data.task
