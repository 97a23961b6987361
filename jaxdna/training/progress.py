"""What a checkpoint stores beside the arrays: where the run is, and what it has found so far."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxdna.errors import NotFiniteError
from jaxdna.tasks.task import Task
from jaxdna.training.early_stopping import EarlyStopping
from jaxdna.training.strategy import Outputs, Row


@dataclass
class NetworkProgress:
    """The progress of a run of one network; with the state it is all that a run needs to go on.

    A run can stop between two calls, in the middle of an epoch. The sums are plain running sums in
    float64 over the steps in their order, so an epoch in two parts has the bits of one in one.

    Attributes:
      stopping: what early stopping knows.
      epoch: epochs done.
      epoch_step: steps done in the next epoch.
      epoch_seconds: time that these steps took.
      sums: metrics summed over these steps.
      seconds: of the whole run by name, as `Stopwatch.read` gives them.
      rows: one row of metrics.jsonl for each epoch done.
    """

    stopping: EarlyStopping
    epoch: int = 0
    epoch_step: int = 0
    epoch_seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        """The epoch whose parameters would be kept."""
        return self.stopping.best_epoch

    @property
    def stop(self) -> bool:
        """Whether the run ends before its last epoch."""
        return self.stopping.stop

    def resettle(self, settings: Mapping[str, Any]) -> None:
        """Goes on with other settings of early stopping."""
        self.stopping = replace(self.stopping, **settings)

    def marked(self, batches: Any) -> Any:
        """Returns batches with what a call must know of the run beside them: nothing."""
        return batches

    def add(self, metrics: Mapping[str, NDArray[np.float64]], first_step: int) -> None:
        """Takes the metrics of one call, each an array [steps], into the sums.

        Args:
          metrics: with `loss` among them.
          first_step: number of the first of these steps, from 0.

        Raises:
          NotFiniteError: a loss is NaN or infinite.
        """
        wrong = np.flatnonzero(~np.isfinite(metrics["loss"]))
        if wrong.size:
            loss, step = metrics["loss"][wrong[0]], first_step + int(wrong[0])
            raise NotFiniteError(
                f"the loss is {loss} at step {step}; the last checkpoint is intact; try a smaller "
                "--config.optimizer.learning_rate"
            )
        for name, values in metrics.items():
            total = self.sums.get(name, 0.0)
            for value in values.tolist():
                total += value
            self.sums[name] = total
        self.epoch_step += len(next(iter(metrics.values())))

    def end_epoch(
        self, validated: Mapping[str, Any], step: int, task: Task, more: Row
    ) -> tuple[Row, bool]:
        """Ends an epoch whose steps are done.

        Args:
          validated: scores of the validation split.
          step: steps of the run so far.
          task: has the names of what is counted.
          more: of the strategy itself, for the row.

        Returns:
          The row of metrics.jsonl, and whether the epoch is the best so far.

        Raises:
          NotFiniteError: the validation loss is NaN or infinite.
        """
        means = {"loss": "loss"} | dict(task.counted)
        row = {
            "epoch": self.epoch + 1,
            "step": step,
            **{f"train_{k}": self.sums[v] / self.sums["weight"] for v, k in means.items()},
            **{f"val_{score}": validated[score] for score in ("loss", *task.followed)},
            "seconds": round(self.epoch_seconds, 4),
            **more,
        }
        # The losses of training are those before each update: the last one is not in them.
        if not math.isfinite(row["val_loss"]):
            raise NotFiniteError(
                f"the validation loss is {row['val_loss']} at step {step}; the last checkpoint is "
                "intact; try a smaller --config.optimizer.learning_rate"
            )
        improved = self.stopping.update(row["epoch"], row)
        self.rows.append(row)
        self.epoch += 1
        self.epoch_step, self.epoch_seconds, self.sums = 0, 0.0, {}
        return row, improved

    def seen(self, batch_size: int, examples: int) -> int:
        """Returns how many examples were trained on, each as often as it was.

        Args:
          batch_size: global batch.
          examples: size of the training split.
        """
        return self.epoch * examples + min(self.epoch_step * batch_size, examples)

    def said(self, improved: bool) -> str:
        """Returns what the line of an epoch says of its rank."""
        return "  best" if improved else "      "  # as wide: the line does not jump

    def chosen(self, tree: Any) -> Any:
        """Returns the parameters of one network, those that the run is for."""
        return tree

    def pooled(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the run's answer, float32 [examples, outputs]."""
        return outputs

    def about(self, task: Task, targets: Mapping[str, NDArray], outputs: Outputs) -> Row:
        """Returns what the summary says beside the scores: of one network nothing."""
        del task, targets, outputs
        return {}

    def to_json(self) -> dict[str, Any]:
        """Returns JSON values that `from_json` takes back."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> "NetworkProgress":
        """Returns what `to_json` wrote, here or in an earlier version, after checking it.

        Raises:
          ValueError: it is something else.
        """
        value = checked(cls, value)
        stopping = EarlyStopping(**checked(EarlyStopping, value.pop("stopping")))
        progress = cls(stopping, **value)
        for i, row in enumerate(progress.rows):
            if not is_row(row) or row["epoch"] != i + 1:
                raise ValueError("its rows are not metrics")
        if not len(progress.rows) == progress.epoch >= 0 <= progress.epoch_step:
            raise ValueError("its counts do not fit together")
        if not all(map(_is_number, (*progress.sums.values(), *progress.seconds.values()))):
            raise ValueError("its sums are not numbers")
        return progress


_ROW = ("epoch", "step", "train_loss", "val_loss", "seconds")  # of every task


def is_row(value: Any) -> bool:
    """Whether `value` can be a row of metrics.jsonl."""
    return (
        isinstance(value, dict)
        and all(_is_number(value.get(key)) for key in _ROW)
        and isinstance(value["epoch"], int)
        and all(
            entry is None or _is_number(entry) or _are_numbers(entry) for entry in value.values()
        )
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


_TYPES: dict[Any, Any] = {float: int | float, float | None: int | float | None}


def checked(kind: type, value: Any) -> dict[str, Any]:
    """Returns `value` if it has the fields of the dataclass `kind`, each of its type.

    Fields with a default may be missing: an earlier version did not have them all.
    """
    declared = {entry.name: entry for entry in fields(kind)}
    required = {
        name
        for name, entry in declared.items()
        if entry.default is MISSING and entry.default_factory is MISSING
    }
    if not isinstance(value, dict) or not required <= set(value) <= set(declared):
        raise ValueError(f"it is not a {kind.__name__}")
    for name, found in value.items():
        declared_type: Any = declared[name].type
        expected = dict if declared_type is EarlyStopping else declared_type
        expected = _TYPES.get(expected, expected)
        expected = getattr(expected, "__origin__", expected)
        wrong_bool = isinstance(found, bool) and declared_type is not bool
        if wrong_bool or not isinstance(found, expected):
            raise ValueError(f"its {name} is of the wrong type")
    return dict(value)
