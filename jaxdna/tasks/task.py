"""What is asked of a network, as a value: the step, the loop and every verb ask it.

They know nothing of classes, labels or numbers themselves. A new kind of question is a subclass of
`Task` and a line in `tasks/kinds.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxdna.errors import UserError
from jaxdna.tasks.measures import Measure
from jaxdna.tasks.verdict import nothing_of_losses

Scores = dict[str, float | None]
Batch = dict[str, jax.Array]


@dataclass(frozen=True)
class Task(ABC):
    """A question, the form of its targets, and how the answers are scored.

    Outputs are what the network returns, [examples, outputs]: logits, or numbers in units of the
    task's own. Targets are what is known, [examples, *target_shape] of `target_dtype`.

    Attributes:
      names: of the outputs, in order.
      swaps: for each output the one that it becomes where a sequence is read from its other strand;
        empty where all stay themselves.
    """

    names: tuple[str, ...]
    swaps: tuple[int, ...] = ()

    kind: ClassVar[str]
    target_dtype: ClassVar[str]
    # What a split is scored by, with what people call it.
    scored: ClassVar[Mapping[str, str]]
    # What of it is followed beside the loss: of the validation split in every epoch.
    followed: ClassVar[tuple[str, ...]]
    # The keys of `measures`, with what people call them.
    measured: ClassVar[Mapping[str, str]]
    # Sums over a batch beside `loss` and `weight`, and the score that each is the mean of.
    counted: ClassVar[Mapping[str, str]] = {}

    @property
    def outputs(self) -> int:
        """Numbers that a network must return for one example."""
        return len(self.names)

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Shape of the target of one example."""
        return (self.outputs,)

    @abstractmethod
    def losses(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        """Returns the loss of every example, float32 [batch], for use in `jit`.

        Args:
          outputs: float [batch, outputs].
          targets: [batch, *target_shape].
        """

    def counts(self, outputs: jax.Array, targets: jax.Array) -> Batch:
        """Returns what `counted` names, each [batch]; arguments as those of `losses`."""
        del outputs, targets
        return {}

    def batch_sums(self, outputs: jax.Array, batch: Batch) -> Batch:
        """Sums over the rows that count: `loss`, those of `counted`, and `weight`, float32 scalars.

        Args:
          outputs: float [batch, outputs].
          batch: `y` [batch, *target_shape], and `weight` float32 [batch], 0 for padding.
        """
        weight = batch["weight"]
        each = {"loss": self.losses(outputs, batch["y"])} | self.counts(outputs, batch["y"])
        return {k: jnp.sum(v * weight) for k, v in each.items()} | {"weight": jnp.sum(weight)}

    @property
    def sums(self) -> tuple[str, ...]:
        """The keys of `batch_sums`, in order."""
        return ("loss", *self.counted, "weight")

    @abstractmethod
    def loss(self, targets: NDArray, outputs: NDArray) -> float:
        """Returns the mean of the loss of training, in float64."""

    @abstractmethod
    def scores(self, targets: NDArray, outputs: NDArray) -> Scores:
        """Returns what `scored` names; None where a score is not defined."""

    def scores_by_output(self, targets: NDArray, outputs: NDArray) -> dict[str, Scores]:
        """Returns the scores of each output by its name; none where there is only one to score."""
        del targets, outputs
        return {}

    def test_summary(self, targets: NDArray, outputs: NDArray) -> dict[str, Any]:
        """Returns what is said of a test split in every summary.

        Keys: `task`, its kind; `test`, the scores; `test_by_output`, only where there are several
        outputs to score; `chance`. Without examples the scores and chance are None.
        """
        if not len(targets):
            return {"task": self.kind, "test": dict.fromkeys(self.scored), "chance": None}
        by_output = self.scores_by_output(targets, outputs) if self.outputs > 1 else {}
        return {
            "task": self.kind,
            "test": self.scores(targets, outputs),
            **({"test_by_output": by_output} if by_output else {}),
            "chance": self.chance(targets),
        }

    @abstractmethod
    def chance(self, targets: NDArray) -> dict[str, Any]:
        """Returns the scores of who knows the targets' distribution and nothing of the inputs."""

    @abstractmethod
    def chance_loss(self, targets: NDArray) -> float:
        """Returns the loss of training that chance has: a network that has not begun to learn."""

    def chance_auroc(self, targets: NDArray) -> float:
        """Returns the AUROC that chance does not exceed; 1 where the loss alone decides."""
        del targets
        return 1.0

    @abstractmethod
    def measures(self, targets: NDArray, outputs: NDArray) -> dict[str, Measure] | None:
        """Returns every measure with its interval; None where the targets allow none."""

    @abstractmethod
    def predicted(self, outputs: NDArray) -> NDArray[np.float64]:
        """Returns the answers, probabilities or numbers: float64 [examples, outputs]."""

    @abstractmethod
    def answers(self, outputs: NDArray) -> dict[str, NDArray]:
        """Returns the columns that people are shown, each [examples], by their headings."""

    @abstractmethod
    def additive(self, outputs: NDArray) -> dict[str, NDArray]:
        """Returns the columns whose differences tell what a change of a sequence does."""

    @property
    @abstractmethod
    def reading(self) -> str:
        """How a person turns outputs into answers, as a phrase."""

    def turned(self, values: Any) -> Any:
        """Returns what outputs or targets [..., outputs] are on the other strand."""
        return values[..., np.array(self.swaps)] if self.swaps else values

    def weighted(self, how: str, targets: NDArray | None) -> "Task":
        """Returns the task with a loss in which classes count as `train.class_weight` says.

        Args:
          how: `none` or `balanced`.
          targets: of the training split; None where they have not been read.

        Raises:
          UserError: the task has no classes to weigh.
        """
        del targets
        if how != "none":
            raise UserError(
                f"--config.train.class_weight={how} is for classes, but the task is {self.kind}; "
                "legal with it: none"
            )
        return self

    def check(self, targets: NDArray, where: str) -> None:
        """Raises UserError where the targets of a whole data set do not fit the task.

        Args:
          targets: [examples, *target_shape].
          where: what the user gave them by.
        """
        if not np.isfinite(targets).all():
            wrong = int((~np.isfinite(targets)).reshape(len(targets), -1).any(axis=1).sum())
            raise UserError(
                f"{where}: {wrong} of {len(targets)} examples have a target that is NaN or "
                "infinite; leave those examples out"
            )

    def check_metric(self, metric: str) -> None:
        """Raises UserError where the task has no such metric to stop by."""
        legal = [*(f"val_{name}" for name in ("loss", *self.followed)), "epoch"]
        if metric not in legal:
            raise UserError(
                f"--config.train.early_stopping.metric={metric} does not go with the task "
                f"{self.kind}; legal with it: {', '.join(legal)}"
            )

    def notes(self) -> list[str]:
        """Returns what a person must know of the answers of a network so trained."""
        return []

    def verdict(
        self,
        left_plateau: bool,
        validation: NDArray,
        targets: NDArray,
        outputs: NDArray,
        ceiling: Mapping[str, float | None] | None = None,
    ) -> str:
        """Returns one sentence on how good the run is, or that it has learnt nothing.

        Args:
          left_plateau: whether the validation split has ever been better than chance.
          validation: its targets.
          targets: those of the test split.
          outputs: what the run says of the test split.
          ceiling: the best scores that are possible on it; None where nobody knows them.
        """
        if not left_plateau:
            return self._nothing(validation, targets, outputs)
        return self._how_good(self.scores(targets, outputs), self.chance(targets), ceiling or {})

    def _nothing(self, validation: NDArray, targets: NDArray, outputs: NDArray) -> str:
        """The sentence on a run that never left the plateau of chance."""
        del targets, outputs
        return nothing_of_losses(len(validation))

    @abstractmethod
    def _how_good(
        self, scores: Scores, chance: Mapping[str, Any], ceiling: Mapping[str, float | None]
    ) -> str:
        """The sentence on a run that has learnt something."""

    @property
    @abstractmethod
    def headings(self) -> tuple[list[str], list[str]]:
        """What the columns of targets, and those of outputs, are called in test.tsv."""

    def restated(self, outputs: NDArray, other: "Task") -> NDArray:
        """Returns outputs as `other` would have them, a task of the same kind with other units."""
        del other
        return outputs

    @property
    def soft(self) -> "Task":
        """The same question where the targets of training are answers, as `predicted` has them.

        Where targets are classes, these are their probabilities (Hinton, Vinyals and Dean, 2015,
        Distilling the knowledge in a neural network, arXiv 1503.02531).
        """
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that exclude each other; none where there are none."""
        return ()

    def told(
        self, targets: NDArray, outputs: NDArray
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Returns the probability of what was said of each example, and whether it is so.

        With several classes that is the one that is called; see `classes`.
        """
        called = self.predicted(outputs)
        return called.max(axis=1), called.argmax(axis=1) == targets

    def confusion(self, targets: NDArray, outputs: NDArray) -> NDArray[np.int64] | None:
        """Returns how often each class [is, called] was called what; None without classes."""
        del targets, outputs
        return None

    def record(self) -> dict[str, Any]:
        """Returns JSON values that `kinds.task_of` takes back, without the weights of a loss."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"kind": self.kind} | {k: v for k, v in own.items() if k != "class_weights" and v}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Self:
        """Undoes `record`."""
        own = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in record.items()
            if key != "kind"
        }
        return cls(**own)


class Soft:
    """What the tasks of classes have in common where their targets are probabilities, float32."""

    target_dtype: ClassVar[str] = "float32"
    counted: ClassVar[Mapping[str, str]] = {}

    def counts(self, outputs: jax.Array, targets: jax.Array) -> Batch:
        """Counts nothing: what is said of a probability is neither right nor wrong."""
        del outputs, targets
        return {}
