"""What the loop knows of many networks that are trained at once: of each what it knows of one."""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from operator import itemgetter
from typing import Any, TypeVar

import jax
import numpy as np
from numpy.typing import NDArray

from jaxdna.errors import NotFiniteError
from jaxdna.member_settings import REPEATS
from jaxdna.tasks.calibration import calibration
from jaxdna.tasks.metrics import SMALLER_IS_BETTER
from jaxdna.tasks.task import Task
from jaxdna.training.early_stopping import EarlyStopping
from jaxdna.training.progress import NetworkProgress, checked, is_row
from jaxdna.training.strategy import Outputs, Row

T = TypeVar("T")


@dataclass
class MemberProgress:
    """The progress of a run of many members; see `Progress`.

    A member that has stopped early, or whose loss is not finite, is left as it is: its steps are
    not taken any more, and nothing of it changes.

    Attributes:
      members: of each what a run of its own would know.
      settings: of each the dotted keys that it changes.
      broken: of each why it cannot go on; '' while it can.
      epoch: epochs done, by the members that go on.
      epoch_step: steps done in the next epoch.
      epoch_seconds: time that these steps took.
      seconds: of the whole run by name.
      rows: one row of metrics.jsonl for each epoch done, means over the members that took part.
    """

    members: list[NetworkProgress]
    settings: list[dict[str, Any]]
    broken: list[str]
    epoch: int = 0
    epoch_step: int = 0
    epoch_seconds: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def begun(
        cls, stopping: list[EarlyStopping], settings: list[dict[str, Any]]
    ) -> "MemberProgress":
        """Returns the progress of a run that begins, with what each member stops by and changes."""
        return cls([NetworkProgress(one) for one in stopping], settings, [""] * len(stopping))

    @property
    def going_on(self) -> NDArray[np.bool_]:
        """Which members have neither stopped nor broken: bool [members]."""
        each = zip(self.members, self.broken, strict=True)
        return np.array([not (why or one.stop) for one, why in each])

    @property
    def whole(self) -> list[int]:
        """The members whose losses have all been finite."""
        return [i for i, why in enumerate(self.broken) if not why]

    @property
    def by_setting(self) -> list[Row]:
        """The settings of a grid, best first (see `setting_rank`); of no grid a single one."""
        found: dict[str, dict[int, Row]] = {}
        for i in range(len(self.members)):
            found.setdefault(json.dumps(self.setting(i)), {})[i] = self._about_one(i)
        rows = [setting_row(self.setting(next(iter(own))), own) for own in found.values()]
        metric = self.members[0].stopping.metric
        return sorted(rows, key=lambda row: setting_rank(row, metric), reverse=True)

    def setting(self, member: int) -> Row:
        """Returns what a member changes beside that by which members repeat one setting."""
        return {key: v for key, v in self.settings[member].items() if key not in REPEATS}

    @property
    def answering(self) -> list[int]:
        """The members whose mean is the run's answer: of the best setting those that are whole."""
        return [i for i in self.by_setting[0]["members"] if not self.broken[i]]

    @property
    def best(self) -> int:
        """Of the best setting the member that is best on validation; of equals the first."""
        return max(self.answering, key=lambda i: self.members[i].stopping.rank)

    @property
    def stopping(self) -> EarlyStopping:
        """What early stopping knows of the best member."""
        return self.members[self.best].stopping

    @property
    def best_epoch(self) -> int:
        """The best member's epoch whose parameters would be kept."""
        return self.stopping.best_epoch

    @property
    def stop(self) -> bool:
        """Whether no member goes on."""
        return not self.going_on.any()

    def resettle(self, settings: Mapping[str, Any]) -> None:
        """Goes on with other settings of early stopping."""
        for one in self.members:
            one.resettle(settings)

    def marked(self, batches: Any) -> Any:
        """Returns batches with `active`, bool [members]: who goes on."""
        return batches | {"active": self.going_on}

    def add(self, metrics: Mapping[str, NDArray[np.float64]], first_step: int) -> None:
        """Takes the metrics of one call, each an array [members, steps].

        Raises:
          NotFiniteError: no member is left whose loss is finite.
        """
        for i in np.flatnonzero(self.going_on).tolist():
            own = {name: values[i] for name, values in metrics.items()}
            self._unless_broken(i, partial(self.members[i].add, own, first_step))
        self.epoch_step += metrics["loss"].shape[1]

    def _unless_broken(self, i: int, act: Callable[[], T]) -> T | None:
        try:
            return act()
        except NotFiniteError as error:
            self.broken[i] = str(error).partition(";")[0]
            if all(self.broken):
                raise
            return None

    def end_epoch(
        self, validated: list[Mapping[str, Any]], step: int, task: Task, more: Row
    ) -> tuple[Row, NDArray[np.bool_]]:
        """Ends an epoch whose steps are done.

        Args:
          validated: scores of the validation split by each member.
          step: steps of each member so far.
          task: has the names of what is counted.
          more: of the strategy itself, for the row.

        Returns:
          The row of metrics.jsonl, and for whom the epoch is the best so far, bool [members].

        Raises:
          NotFiniteError: no member is left whose loss is finite.
        """
        rows, improved = [], np.zeros(len(self.members), dtype=bool)
        for i in np.flatnonzero(self.going_on).tolist():
            own, scores = self.members[i], validated[i]
            own.epoch_seconds = self.epoch_seconds
            ended = self._unless_broken(i, partial(own.end_epoch, scores, step, task, more))
            if ended:
                rows.append(ended[0])
                improved[i] = ended[1]
        known = rows or self.rows[-1:]  # the last that went on may have broken
        row = _means(known)
        row |= {"epoch": self.epoch + 1, "step": step, "members": len(rows)}
        self.rows.append(row)
        self.epoch += 1
        self.epoch_step, self.epoch_seconds = 0, 0.0
        return row, improved

    def seen(self, batch_size: int, examples: int) -> int:
        """Returns how many examples all members were trained on; see `Progress.seen`."""
        return sum(one.seen(batch_size, examples) for one in self.members)

    def said(self, improved: NDArray[np.bool_]) -> str:
        """Returns what the line of an epoch says: means, of how many, and who does not go on."""
        count = len(self.members)
        broken, going = count - len(self.whole), int(self.going_on.sum())
        stopped = count - broken - going
        parts = [
            f"{int(improved.sum())} of {count} best",
            *([f"{stopped} stopped"] if stopped else []),
            *([f"{broken} broken"] if broken else []),
        ]
        return "  " + ", ".join(parts)

    def chosen(self, tree: Any) -> Any:
        """Returns the parameters of the best member."""
        return jax.tree.map(lambda leaf: leaf[self.best], tree)

    def pooled(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the ensemble's answer: the mean of the outputs of those `answering`.

        Args:
          outputs: float32 [members, examples, outputs]; NaN for an example that a member has no
            say in, which it was trained on or is no part of its split.
        """
        return mean_outputs(outputs[self.answering])

    def about(self, task: Task, targets: Mapping[str, NDArray], outputs: Outputs) -> Row:
        """Returns `members` and `ensemble` of the summary.

        Args:
          task: what was asked.
          targets: of each split [examples, *target_shape].
          outputs: (name of a split) -> float32 [members, examples, outputs].
        """
        tested = bool(len(targets["test"]))
        each = {name: outputs(name) for name in ("validation", "test")} if tested else {}

        def told(answers: Callable[[NDArray[np.float32]], NDArray]) -> Row:
            """The scores and the calibration of one answer, or of the mean of all."""
            if not tested:
                return {"test": None, "calibration": None}
            known = {}
            for name, outputs in each.items():
                own = answers(outputs)
                has_a_say = ~np.isnan(own).any(axis=1)
                known[name] = targets[name][has_a_say], own[has_a_say]
            return {
                "test": task.scores(*known["test"]),
                "calibration": calibration(task, known["validation"], known["test"]),
            }

        alone = {i: told(itemgetter(i)) for i in self.whole}
        best = {"member": self.best, "calibration": alone[self.best]["calibration"]}
        return {
            "members": [
                self._about_one(i) | (_brief(alone[i]) if i in alone else _NOTHING)
                for i in range(len(self.members))
            ],
            "ensemble": {"members": self.answering, **told(self.pooled), "best": best},
            **({"grid": self.by_setting} if len(self.by_setting) > 1 else {}),
        }

    def _validation(self, i: int) -> Row:
        """The scores of a member's validation split at its best epoch."""
        epoch = self.members[i].best_epoch
        row = self.members[i].rows[epoch - 1] if epoch else {}
        return {key.removeprefix("val_"): v for key, v in row.items() if key.startswith("val_")}

    def _about_one(self, i: int) -> Row:
        own, settings = self.members[i], self.settings[i]
        return {
            "seed": settings.get("train.seed"),
            "fold": settings.get("members.fold"),
            "settings": self.setting(i),
            "best_epoch": own.best_epoch,
            "epochs": own.epoch,
            "stopped_early": own.stop,
            "broken": self.broken[i] or None,
            "validation": self._validation(i),
        }

    def to_json(self) -> Row:
        """Returns JSON values that `from_json` takes back."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> "MemberProgress":
        """Returns what `to_json` wrote, after checking it.

        Raises:
          ValueError: it is something else.
        """
        value = checked(cls, value)
        members = [NetworkProgress.from_json(one) for one in value.pop("members")]
        progress = cls(members, **value)
        settings, broken = progress.settings, progress.broken
        if not len(members) == len(settings) == len(broken) > 0:
            raise ValueError("its members do not fit together")
        if not all(isinstance(one, dict) for one in settings):
            raise ValueError("its settings are of the wrong type")
        if not all(isinstance(one, str) for one in broken) or all(broken):
            raise ValueError("its members are of the wrong type")
        if not all(map(is_row, progress.rows)) or len(progress.rows) != progress.epoch:
            raise ValueError("its rows of metrics do not fit its epochs")
        return progress


_NOTHING: Row = {"test": None, "calibration": None}


def _brief(told: Row) -> Row:
    """Leaves out the curve of reliability, which is shown of the best and the ensemble alone."""
    found = told["calibration"]
    if found is None:
        return told
    errors = {key: found[key]["error"] for key in ("before", "after")}
    less = found["before"]["corrected"]
    own = {"temperature": found["temperature"], **errors, "corrected": less}
    return told | {"calibration": own}


def setting_row(settings: Row, members: Mapping[int, Row]) -> Row:
    """Returns what a setting of a grid has reached: means over its members that are whole.

    Args:
      settings: its dotted keys.
      members: by their numbers, as in the summary.
    """
    whole = [one["validation"] for one in members.values() if not one["broken"]]
    return {
        "settings": settings,
        "members": list(members),
        "broken": len(members) - len(whole),
        "validation": _means(whole),
    }


def setting_rank(row: Row, metric: str) -> tuple[bool, float]:
    """Returns what a setting is ranked by, on validation alone: the larger, the better.

    A setting some of whose members are broken comes after those that have none.

    Args:
      row: as `setting_row` returns it.
      metric: what early stopping follows; the loss decides where that is the epoch.
    """
    key = "loss" if metric == "epoch" else metric.removeprefix("val_")
    value = row["validation"].get(key)
    sign = -1 if key in SMALLER_IS_BETTER else 1
    return not row["broken"], -np.inf if value is None else sign * value


def mean_outputs(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the answer of an ensemble, the mean of [networks, ...]; of one network its own.

    NaN is what a network has no say in; where none has any, the answer is NaN.
    """
    if len(outputs) == 1:
        return outputs[0]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return np.nanmean(outputs, axis=0, dtype=np.float64).astype("f4")


def _means(rows: list[Row]) -> Row:
    """The mean of each number in the rows; None where none of them has it."""
    found: Row = {}
    for key in rows[0] if rows else ():
        known = [row[key] for row in rows if row[key] is not None]
        found[key] = float(np.mean(known)) if known else None
    return found
