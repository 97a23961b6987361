"""The kinds of task by name, and the task that a run folder's record tells of."""

from collections.abc import Mapping
from typing import Any

from jaxdna.tasks.classes import Binary, Multiclass
from jaxdna.tasks.labels import Multilabel
from jaxdna.tasks.numbers import Counts, Regression
from jaxdna.tasks.task import Task

KINDS: dict[str, type[Task]] = {
    kind.kind: kind for kind in (Binary, Multiclass, Multilabel, Regression, Counts)
}


def task_of(record: Mapping[str, Any]) -> Task:
    """Returns the task of a data.json.

    Args:
      record: with `task`, or as earlier versions wrote it, with `classes`.

    Raises:
      ValueError: it tells of none.
    """
    try:
        if "task" not in record:
            return of_classes(record["classes"])
        own = record["task"]
        task = KINDS[own["kind"]].of_record(own)
        if not task.names or not all(isinstance(name, str) for name in task.names):
            raise ValueError("its outputs have no names")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it describes no task ({error})") from error
    return task


def of_classes(count: int) -> Task:
    """Returns the task of telling classes apart that have no names."""
    return Binary() if count == 2 else Multiclass(tuple(map(str, range(count))))
