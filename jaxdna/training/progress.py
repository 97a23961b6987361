"""What a checkpoint stores beside the arrays: where the run is, and what it has found so far."""

from dataclasses import asdict, dataclass, field, fields
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
        """Returns what `to_json` wrote, after checking every name and type.

        Raises:
          ValueError: it is something else.
        """
        value = _checked(cls, value)
        stopping = EarlyStopping(**_checked(EarlyStopping, value.pop("stopping")))
        for i, row in enumerate(value["rows"]):
            if not is_row(row) or row["epoch"] != i + 1:
                raise ValueError("its rows of metrics are none")
        if not len(value["rows"]) == value["epoch"] >= 0 <= value["epoch_step"]:
            raise ValueError("its counts do not fit together")
        if not all(map(_is_number, (*value["sums"].values(), *value["seconds"].values()))):
            raise ValueError("its sums are no numbers")
        return cls(stopping, **value)


_ROW = ("epoch", "step", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds")


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
    """Returns `value` if it has the fields of the dataclass `kind`, each of its type."""
    names = {entry.name: entry.type for entry in fields(kind)}
    if not isinstance(value, dict) or set(value) != set(names):
        raise ValueError(f"it is no {kind.__name__}")
    for name, declared in names.items():
        expected = dict if declared is EarlyStopping else _TYPES.get(declared, declared)
        expected = getattr(expected, "__origin__", expected)
        wrong_bool = isinstance(value[name], bool) and declared is not bool
        if wrong_bool or not isinstance(value[name], expected):
            raise ValueError(f"its {name} is of the wrong type")
    return dict(value)
