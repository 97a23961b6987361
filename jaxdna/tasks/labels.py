"""The task of labels that do not exclude each other: any of several."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from jaxdna.errors import UserError
from jaxdna.tasks.classes import SCORED, Binary
from jaxdna.tasks.logits import sigmoid
from jaxdna.tasks.measures import Measure, bootstrap
from jaxdna.tasks.metrics import auprc, auroc, binary_losses, macro
from jaxdna.tasks.task import Batch, Scores, Soft, Task


@dataclass(frozen=True)
class Multilabel(Task):
    """Any of several labels, each with a logit; targets int32 [examples, labels] are 0 or 1.

    The loss is the mean over labels, and so are the scores.
    """

    kind: ClassVar[str] = "multilabel"
    target_dtype: ClassVar[str] = "int32"
    scored: ClassVar[Mapping[str, str]] = SCORED
    followed: ClassVar[tuple[str, ...]] = ("accuracy", "auroc")
    counted: ClassVar[Mapping[str, str]] = {"correct": "accuracy"}
    measured: ClassVar[Mapping[str, str]] = {
        "loss": "loss (nats)",
        "accuracy": "accuracy of a label",
    }

    def losses(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        logits = outputs.astype(jnp.float32)
        each = optax.sigmoid_binary_cross_entropy(logits, targets.astype(jnp.float32))
        return each.mean(axis=1)

    def counts(self, outputs: jax.Array, targets: jax.Array) -> Batch:
        return {"correct": ((outputs > 0) == (targets > 0)).astype(jnp.float32).mean(axis=1)}

    def loss(self, targets: NDArray, outputs: NDArray) -> float:
        return float(binary_losses(targets, outputs).mean())

    def scores(self, targets: NDArray, outputs: NDArray) -> Scores:
        return {
            "loss": self.loss(targets, outputs),
            "accuracy": float(((outputs > 0) == (targets > 0)).mean()),
            "auroc": macro(auroc, targets, outputs),
            "auprc": macro(auprc, targets, outputs),
        }

    def scores_by_output(self, targets: NDArray, outputs: NDArray) -> dict[str, Scores]:
        one = Binary()
        return {
            name: one.scores(targets[:, i], outputs[:, i : i + 1])
            for i, name in enumerate(self.names)
        }

    def chance(self, targets: NDArray) -> dict[str, Any]:
        each = [Binary().chance(column) for column in targets.T]
        means = {k: float(np.mean([one[k] for one in each])) for k in self.scored}
        return {"examples": len(targets)} | means

    def chance_loss(self, targets: NDArray) -> float:
        return float(np.mean([Binary().chance_loss(column) for column in targets.T]))

    def _how_good(
        self, scores: Scores, chance: Mapping[str, Any], ceiling: Mapping[str, float | None]
    ) -> str:
        area = "not defined" if scores["auroc"] is None else f"{scores['auroc']:.3f}"
        return (
            f"AUROC, averaged over {self.outputs} labels, is {area} on {chance['examples']:,} test "
            f"examples (chance 0.5), and {scores['accuracy']:.1%} of the labels are "
            f"predicted correctly (always saying the more common one: {chance['accuracy']:.1%})."
        )

    def measures(self, targets: NDArray, outputs: NDArray) -> dict[str, Measure] | None:
        losses = binary_losses(targets, outputs).mean(axis=1)
        right = ((outputs > 0) == (targets > 0)).mean(axis=1)

        def statistics(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
            means = {"loss": losses, "accuracy": right}
            return {name: weights @ each / len(targets) for name, each in means.items()}

        return bootstrap(statistics, [np.arange(len(targets))])

    @property
    def headings(self) -> tuple[list[str], list[str]]:
        return [f"label_{name}" for name in self.names], [f"logit_{name}" for name in self.names]

    def answers(self, outputs: NDArray) -> dict[str, NDArray]:
        chances = self.predicted(outputs)
        return {f"probability_{name}": chances[:, i] for i, name in enumerate(self.names)}

    @property
    def reading(self) -> str:
        return f"logits of {', '.join(self.names)}; P = 1 / (1 + exp(-logit))"

    def predicted(self, outputs: NDArray) -> NDArray[np.float64]:
        return sigmoid(outputs)

    @property
    def soft(self) -> "Multilabel":
        return SoftMultilabel(self.names, self.swaps)

    def additive(self, outputs: NDArray) -> dict[str, NDArray]:
        return {f"logit_{name}": outputs[:, i] for i, name in enumerate(self.names)}

    def check(self, targets: NDArray, where: str) -> None:
        for name, column in zip(self.names, targets.T, strict=True):
            if len(np.unique(column)) < 2:
                raise UserError(
                    f"{where}: label {name} is {column[0]} in all {len(column)} examples; give "
                    "labels that some examples have and others do not"
                )


@dataclass(frozen=True)
class SoftMultilabel(Soft, Multilabel):
    """Any of several labels, trained on probabilities float32 [batch, labels]."""
