"""What a checkpoint stores beside the arrays: where the run is, and what it has found so far."""

from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from jaxdna.training.early_stopping import EarlyStopping

Row = dict[str, Any]


@dataclass
class Progress:
    """Everything that the loop knows; with the state it is all that a run needs to go on.

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

    def add(self, metrics: dict[str, Any]) -> None:
        """Takes the metrics of one call, each an array [steps], into the sums."""
        for name, values in metrics.items():
            total = self.sums.get(name, 0.0)
            for value in values.tolist():
                total += value
            self.sums[name] = total
        self.epoch_step += len(next(iter(metrics.values())))

    def end_epoch(self, row: Row) -> None:
        """Takes the row of the epoch that is now done."""
        self.rows.append(row)
        self.epoch += 1
        self.epoch_step, self.epoch_seconds, self.sums = 0, 0.0, {}

    def to_json(self) -> dict[str, Any]:
        """Returns JSON values that `from_json` takes back."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> "Progress":
        """Returns what `to_json` wrote, here or in an earlier version, after checking it.

        Raises:
          ValueError: it is something else.
        """
        value = _checked(cls, value)
        stopping = EarlyStopping(**_checked(EarlyStopping, value.pop("stopping")))
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


def _checked(kind: type, value: Any) -> dict[str, Any]:
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
