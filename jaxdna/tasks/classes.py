"""Tasks of classes that exclude each other: one of two, and one of several."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from jaxdna.errors import UserError
from jaxdna.tasks.class_weights import CLASS_WEIGHTS, meaning
from jaxdna.tasks.logits import sigmoid, softmax
from jaxdna.tasks.measures import RESAMPLES, Measure, bootstrap
from jaxdna.tasks.metrics import (
    auprc,
    auroc,
    binary_losses,
    class_losses,
    entropy,
    macro,
)
from jaxdna.tasks.task import Batch, Scores, Soft, Task
from jaxdna.tasks.verdict import chance_auroc, nothing_of_classes

FDRS = (0.05, 0.1, 0.2)
SCORED = {"loss": "loss (nats)", "accuracy": "accuracy", "auroc": "AUROC", "auprc": "AUPRC"}


@dataclass(frozen=True)
class _Classes(Task):
    """What the tasks with one true class have in common; targets are int32 [examples].

    Attributes:
      class_weights: factor of each class in the loss of training; none where all are 1.
    """

    class_weights: tuple[float, ...] = ()

    target_dtype: ClassVar[str] = "int32"
    scored: ClassVar[Mapping[str, str]] = SCORED
    followed: ClassVar[tuple[str, ...]] = ("accuracy", "auroc")
    counted: ClassVar[Mapping[str, str]] = {"correct": "accuracy"}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.names

    @property
    def target_shape(self) -> tuple[int, ...]:
        return ()

    def _weighted(self, losses: jax.Array, targets: jax.Array) -> jax.Array:
        if len(self.class_weights) == 0:  # or an array, where networks have weights of their own
            return losses
        return losses * jnp.array(self.class_weights, jnp.float32)[targets]

    @abstractmethod
    def losses_on_host(self, targets: NDArray, outputs: NDArray) -> NDArray[np.float64]:
        """Returns the cross-entropy of every example in nats, without weights."""

    @abstractmethod
    def called(self, outputs: NDArray) -> NDArray[np.integer]:
        """Returns the likeliest class of each example."""

    def loss(self, targets: NDArray, outputs: NDArray) -> float:
        losses = self.losses_on_host(targets, outputs)
        if not self.class_weights:
            return float(losses.mean())
        return float(np.average(losses, weights=np.array(self.class_weights)[targets]))

    def chance(self, targets: NDArray) -> dict[str, Any]:
        """Returns `examples` of each class, and the scores of who always says their shares."""
        sizes = np.bincount(targets, minlength=len(self.classes))
        areas = self._chance_areas(sizes[sizes > 0] / sizes.sum(), sizes)
        return {
            "examples": sizes.tolist(),
            "loss": entropy(sizes),
            "accuracy": float(sizes.max() / sizes.sum()),
        } | areas

    def _chance_areas(self, shares: NDArray, sizes: NDArray) -> Scores:
        """AUROC and AUPRC of chance, one class against the others."""
        return {"auroc": 0.5 if len(shares) > 1 else None, "auprc": float(shares.mean())}

    def chance_loss(self, targets: NDArray) -> float:
        """Returns the loss of predicting the class frequencies: ln 2 for two of equal size."""
        shares = np.bincount(targets, minlength=len(self.classes)).astype(np.float64)
        return entropy(shares * self.class_weights if self.class_weights else shares)

    def weighted(self, how: str, targets: NDArray | None) -> "Task":
        labels = np.empty(0, np.int32) if targets is None else targets
        weights = CLASS_WEIGHTS[how](labels, len(self.classes))
        return replace(self, class_weights=weights)

    def check(self, targets: NDArray, where: str) -> None:
        sizes = np.bincount(targets, minlength=len(self.classes))
        if not sizes.all():
            raise UserError(
                f"{where}: class {self.classes[int(np.argmin(sizes))]} has no example; give "
                f"examples of each of the {len(sizes)} classes"
            )

    def notes(self) -> list[str]:
        return [meaning(self.class_weights)] if self.class_weights else []

    def _nothing(self, validation: NDArray, targets: NDArray, outputs: NDArray) -> str:
        ranks = (targets, outputs[:, 0]) if outputs.shape[1] == 1 else None
        return nothing_of_classes(validation, ranks)

    def _how_good(
        self, scores: Scores, chance: Mapping[str, Any], ceiling: Mapping[str, float | None]
    ) -> str:
        largest = self.classes[int(np.argmax(chance["examples"]))]
        best = f"; at best {ceiling['accuracy']:.1%}" if ceiling else ""
        said = (
            f"{scores['accuracy']:.1%} of {sum(chance['examples']):,} test examples are classified "
            f"correctly (always saying {largest}: {chance['accuracy']:.1%}{best})"
        )
        if scores["auroc"] is None:
            return said + "."
        best = f"; at best {ceiling['auroc']:.3f}" if ceiling else ""
        return f"{said}, and AUROC is {scores['auroc']:.3f} (chance 0.5{best})."

    @property
    def headings(self) -> tuple[list[str], list[str]]:
        many = self.outputs > 1
        return ["label"], [f"logit{i}" for i in range(self.outputs)] if many else ["logit"]

    def confusion(self, targets: NDArray, outputs: NDArray) -> NDArray[np.int64]:
        counts = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)
        np.add.at(counts, (targets, self.called(outputs)), 1)
        return counts


@dataclass(frozen=True)
class Binary(_Classes):
    """One of two classes, told apart by one logit, that of the second."""

    names: tuple[str, ...] = ("bound",)
    other: str = "unbound"

    kind: ClassVar[str] = "binary"
    measured: ClassVar[Mapping[str, str]] = {
        "loss": "loss (nats)",
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "auroc": "AUROC",
        "auprc": "AUPRC",
        **{f"recall_at_{fdr * 100:.0f}_fdr": f"recall at {fdr:.0%} FDR" for fdr in FDRS},
    }

    @property
    def classes(self) -> tuple[str, ...]:
        return (self.other, *self.names)

    def losses(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        logits = outputs[:, 0].astype(jnp.float32)
        losses = optax.sigmoid_binary_cross_entropy(logits, targets.astype(jnp.float32))
        return self._weighted(losses, targets)

    def counts(self, outputs: jax.Array, targets: jax.Array) -> Batch:
        return {"correct": (outputs[:, 0] > 0) == (targets > 0)}

    def losses_on_host(self, targets: NDArray, outputs: NDArray) -> NDArray[np.float64]:
        return binary_losses(targets, outputs[:, 0])

    def called(self, outputs: NDArray) -> NDArray[np.integer]:
        return (outputs[:, 0] > 0).astype(np.int32)

    def scores(self, targets: NDArray, outputs: NDArray) -> Scores:
        return {
            "loss": float(self.losses_on_host(targets, outputs).mean()),
            "accuracy": float((self.called(outputs) == targets).mean()),
            "auroc": auroc(targets, outputs[:, 0]),
            "auprc": auprc(targets, outputs[:, 0]),
        }

    def _chance_areas(self, shares: NDArray, sizes: NDArray) -> Scores:
        del shares
        return {"auroc": 0.5, "auprc": float(sizes[1] / sizes.sum())}

    def chance_auroc(self, targets: NDArray) -> float:
        return chance_auroc(targets)

    def measures(
        self, targets: NDArray, outputs: NDArray, seed: int = 0, resamples: int = RESAMPLES
    ) -> dict[str, Measure] | None:
        """Returns every measure of `measured` with its interval; None where a class is absent.

        Recall at a false discovery rate is the largest share of the positives above any threshold
        at which at most that share of what is called is negative; 0 where no threshold is so good.
        Equal scores are one threshold. Resamples are drawn within each class.

        Args:
          targets: int32 [examples].
          outputs: float [examples, 1].
          seed: of the resampling.
          resamples: how many.
        """
        logits = outputs[:, 0]
        order = np.argsort(-logits, kind="stable")
        positive = targets[order] == 1
        count = len(order)
        if not 0 < positive.sum() < count:
            return None
        ranked = logits[order]
        ties = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        each_loss = binary_losses(positive.astype(np.int32), ranked)
        right = (ranked > 0) == positive

        def statistics(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
            ones, zeros = weights * positive, weights * ~positive
            true, false = (np.cumsum(part, axis=1)[:, ties] for part in (ones, zeros))
            positives, negatives = true[:, -1:], false[:, -1:]
            steps = [np.diff(part, axis=1, prepend=0) for part in (true, false)]
            called = np.maximum(true + false, 1)
            precision, recall = true / called, true / positives
            hits = [(part * right).sum(axis=1, keepdims=True) for part in (ones, zeros)]
            above = (steps[1] * (true - steps[0] / 2)).sum(axis=1)
            found = {
                "loss": weights @ each_loss / count,
                "accuracy": (weights @ right) / count,
                "balanced_accuracy": ((hits[0] / positives + hits[1] / negatives) / 2)[:, 0],
                "auroc": above / (positives * negatives)[:, 0],
                "auprc": (steps[0] * precision).sum(axis=1) / positives[:, 0],
            }
            for fdr in FDRS:
                # A share of exactly the rate counts, whatever its rounding.
                good = false <= fdr * called * (1 + 1e-12)
                found[f"recall_at_{fdr * 100:.0f}_fdr"] = np.where(good, recall, 0).max(axis=1)
            return found

        strata = [np.flatnonzero(positive), np.flatnonzero(~positive)]
        return bootstrap(statistics, strata, seed, resamples)

    def predicted(self, outputs: NDArray) -> NDArray[np.float64]:
        return sigmoid(outputs)

    def told(
        self, targets: NDArray, outputs: NDArray
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Returns the probability of being bound, and whether it is so."""
        return self.predicted(outputs)[:, 0], targets == 1

    @property
    def reading(self) -> str:
        return "logits; P = 1 / (1 + exp(-logit))"

    def answers(self, outputs: NDArray) -> dict[str, NDArray]:
        return {"probability": self.predicted(outputs)[:, 0], "logit": outputs[:, 0]}

    @property
    def soft(self) -> "Binary":
        return SoftBinary(self.names, self.swaps)

    def additive(self, outputs: NDArray) -> dict[str, NDArray]:
        return {"logit": outputs[:, 0]}


@dataclass(frozen=True)
class SoftBinary(Soft, Binary):
    """Bound or not, trained on probabilities float32 [batch]; all else is as of `Binary`."""


@dataclass(frozen=True)
class Multiclass(_Classes):
    """One of several classes, each with a logit; an area is the mean of one against the others."""

    kind: ClassVar[str] = "multiclass"
    measured: ClassVar[Mapping[str, str]] = {
        "loss": "loss (nats)",
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
    }

    def losses(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        logits = outputs.astype(jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return self._weighted(losses, targets)

    def counts(self, outputs: jax.Array, targets: jax.Array) -> Batch:
        return {"correct": jnp.argmax(outputs, axis=1) == targets}

    def losses_on_host(self, targets: NDArray, outputs: NDArray) -> NDArray[np.float64]:
        return class_losses(targets, outputs)

    def called(self, outputs: NDArray) -> NDArray[np.integer]:
        return outputs.argmax(axis=1)

    def scores(self, targets: NDArray, outputs: NDArray) -> Scores:
        shares = softmax(outputs)
        one_hot = targets[:, None] == np.arange(self.outputs)
        return {
            "loss": float(self.losses_on_host(targets, outputs).mean()),
            "accuracy": float((self.called(outputs) == targets).mean()),
            "auroc": macro(auroc, one_hot, shares),
            "auprc": macro(auprc, one_hot, shares),
        }

    def measures(self, targets: NDArray, outputs: NDArray) -> dict[str, Measure] | None:
        losses, right = self.losses_on_host(targets, outputs), self.called(outputs) == targets
        strata = [np.flatnonzero(targets == one) for one in np.unique(targets)]

        def statistics(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
            shares = [(weights[:, rows] @ right[rows]) / rows.size for rows in strata]
            return {
                "loss": weights @ losses / len(targets),
                "accuracy": weights @ right / len(targets),
                "balanced_accuracy": np.mean(shares, axis=0),
            }

        return bootstrap(statistics, strata)

    @property
    def reading(self) -> str:
        return f"logits of {', '.join(self.names)}; P = softmax"

    def predicted(self, outputs: NDArray) -> NDArray[np.float64]:
        return softmax(outputs)

    def answers(self, outputs: NDArray) -> dict[str, NDArray]:
        shares = self.predicted(outputs)
        columns = {f"probability_{n}": shares[:, i] for i, n in enumerate(self.names)}
        return {"class": np.array(self.names)[self.called(outputs)], **columns}

    @property
    def soft(self) -> "Multiclass":
        return SoftMulticlass(self.names, self.swaps)

    def additive(self, outputs: NDArray) -> dict[str, NDArray]:
        return {f"logit_{name}": outputs[:, i] for i, name in enumerate(self.names)}


@dataclass(frozen=True)
class SoftMulticlass(Soft, Multiclass):
    """One of several classes, trained on probabilities float32 [batch, classes]."""

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Shape of the target of one example."""
        return (self.outputs,)

    def losses(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        """Returns the cross-entropy with the probabilities, float32 [batch]."""
        return optax.softmax_cross_entropy(outputs.astype(jnp.float32), targets)
