"""Tasks of numbers: real-valued targets, and counts."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxdna.errors import UserError
from jaxdna.tasks.measures import Measure, bootstrap
from jaxdna.tasks.metrics import pearson, ranks, spearman
from jaxdna.tasks.task import Scores, Task

_SCORED = {
    "mse": "mean squared error",
    "r2": "R²",
    "pearson": "Pearson's r",
    "spearman": "Spearman's rho",
}
_LEAST_COUNT = 1e-6  # the mean of a column of zeros, so that its logarithm is finite


@dataclass(frozen=True)
class _Numbers(Task):
    """What tasks of numbers have in common; targets are float32 [examples, outputs].

    Attributes:
      mean: of each output's targets in the training split.
    """

    mean: tuple[float, ...] = ()

    target_dtype: ClassVar[str] = "float32"
    followed: ClassVar[tuple[str, ...]] = ("pearson",)

    @abstractmethod
    def outputs_for(self, values: NDArray) -> NDArray[np.float64]:
        """Undoes `predicted`."""

    def restated(self, outputs: NDArray, other: Task) -> NDArray:
        assert isinstance(other, _Numbers)
        return other.outputs_for(self.predicted(outputs)).astype(outputs.dtype)

    @property
    def headings(self) -> tuple[list[str], list[str]]:
        return [f"target_{n}" for n in self.names], [f"output_{n}" for n in self.names]

    @abstractmethod
    def losses_on_host(self, targets: NDArray, outputs: NDArray) -> NDArray[np.float64]:
        """Returns the loss of each number, float64 [examples, outputs]."""

    def loss(self, targets: NDArray, outputs: NDArray) -> float:
        return float(self.losses_on_host(targets, outputs).mean())

    def scores(self, targets: NDArray, outputs: NDArray) -> Scores:
        each = self.scores_by_output(targets, outputs).values()
        means: Scores = {"loss": self.loss(targets, outputs)}
        for key in ("mse", "r2", "pearson", "spearman"):
            found = [value for one in each if (value := one[key]) is not None]
            means[key] = float(np.mean(found)) if found else None
        return means

    def scores_by_output(self, targets: NDArray, outputs: NDArray) -> dict[str, Scores]:
        losses, values = self.losses_on_host(targets, outputs), self.predicted(outputs)
        found = {}
        for i, name in enumerate(self.names):
            x, y = np.asarray(targets[:, i], np.float64), values[:, i]
            mse, spread = float(np.mean((x - y) ** 2)), float(x.var())
            found[name] = {
                "loss": float(losses[:, i].mean()),
                "mse": mse,
                "r2": 1 - mse / spread if spread else None,
                "pearson": pearson(x, y),
                "spearman": spearman(x, y),
            }
        return found

    def chance(self, targets: NDArray) -> dict[str, Any]:
        """Returns `examples`, and the scores of who always says the mean of these targets."""
        return {
            "examples": len(targets),
            "loss": self.chance_loss(targets),
            "mse": float(np.asarray(targets, np.float64).var(axis=0).mean()),
            "r2": 0.0,
            "pearson": 0.0,
            "spearman": 0.0,
        }

    def _how_good(
        self, scores: Scores, chance: Mapping[str, Any], ceiling: Mapping[str, float | None]
    ) -> str:
        over = f", averaged over {self.outputs} numbers," if self.outputs > 1 else ""
        if scores["pearson"] is None or scores["r2"] is None:
            return f"All {chance['examples']:,} test examples are known or predicted to be alike."
        return (
            f"Pearson's r{over} is {scores['pearson']:.3f} on {chance['examples']:,} test examples "
            f"(chance 0), and {max(0.0, scores['r2']):.0%} of the variance is explained."
        )

    def measures(self, targets: NDArray, outputs: NDArray) -> dict[str, Measure] | None:
        """Returns the scores with their intervals; None where a target is constant.

        Resampled ranks are those on all examples, so that Spearman's costs no sorting.
        """
        values = self.predicted(outputs)
        if not (np.ptp(targets, axis=0).all() and np.ptp(values, axis=0).all()):
            return None
        losses = self.losses_on_host(targets, outputs).mean(axis=1)
        numbers = [(_standard(x), _standard(y)) for x, y in zip(targets.T, values.T, strict=True)]
        ranked = [
            (_standard(ranks(x)), _standard(ranks(y)))
            for x, y in zip(targets.T, values.T, strict=True)
        ]
        errors = np.asarray(targets, np.float64) - values
        centred = np.asarray(targets, np.float64) - np.mean(targets, axis=0, dtype=np.float64)

        def correlation(weights: NDArray, x: NDArray, y: NDArray) -> NDArray[np.float64]:
            mx, my = weights @ x, weights @ y
            covariance = weights @ (x * y) - mx * my
            spread = (weights @ (x * x) - mx * mx) * (weights @ (y * y) - my * my)
            return covariance / np.sqrt(np.maximum(spread, np.finfo(float).tiny))

        def statistics(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
            shares = weights / weights.sum(axis=1, keepdims=True)
            squared = shares @ errors**2
            spread = shares @ centred**2 - (shares @ centred) ** 2
            return {
                "loss": shares @ losses,
                "mse": squared.mean(axis=1),
                "r2": (1 - squared / np.maximum(spread, np.finfo(float).tiny)).mean(axis=1),
                "pearson": np.mean([correlation(shares, x, y) for x, y in numbers], axis=0),
                "spearman": np.mean([correlation(shares, x, y) for x, y in ranked], axis=0),
            }

        return bootstrap(statistics, [np.arange(len(targets))])

    def answers(self, outputs: NDArray) -> dict[str, NDArray]:
        values = self.predicted(outputs)
        return {name: values[:, i] for i, name in enumerate(self.names)}


@dataclass(frozen=True)
class Regression(_Numbers):
    """Real numbers, by their squared error.

    The network answers in standard deviations from the mean of the training targets, so that
    targets of any unit and size train alike and the loss of chance is 1.

    Attributes:
      scale: standard deviation of each output's targets in the training split.
    """

    scale: tuple[float, ...] = ()

    kind: ClassVar[str] = "regression"
    scored: ClassVar[Mapping[str, str]] = {"loss": "loss (share of variance)"} | _SCORED
    measured: ClassVar[Mapping[str, str]] = scored

    @classmethod
    def fitted(
        cls, names: Sequence[str], targets: NDArray, swaps: tuple[int, ...] = (), where: str = ""
    ) -> Self:
        """Returns the task with the units of a training split.

        Args:
          names: of the columns.
          targets: float [examples, columns], of the training split.
          swaps: see `Task`.
          where: what the user gave them by.

        Raises:
          UserError: a column is constant.
        """
        mean, scale = targets.mean(axis=0, dtype=np.float64), targets.std(axis=0, dtype=np.float64)
        mean, scale = _alike(mean, swaps), _alike(scale, swaps)
        for name, one, spread in zip(names, mean, scale, strict=True):
            if not spread > 1e-7 * abs(one):
                raise UserError(
                    f"{where}: {name} is {one:g} in all training examples; give numbers that differ"
                )
        return cls(tuple(names), swaps, tuple(mean.tolist()), tuple(scale.tolist()))

    @property
    def reading(self) -> str:
        return f"times {list(self.scale)} plus {list(self.mean)} is {', '.join(self.names)}"

    def losses(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        mean, scale = (jnp.array(each, jnp.float32) for each in (self.mean, self.scale))
        return jnp.mean((outputs.astype(jnp.float32) - (targets - mean) / scale) ** 2, axis=1)

    def losses_on_host(self, targets: NDArray, outputs: NDArray) -> NDArray[np.float64]:
        wanted = (np.asarray(targets, np.float64) - np.array(self.mean)) / np.array(self.scale)
        return (np.asarray(outputs, np.float64) - wanted) ** 2

    def predicted(self, outputs: NDArray) -> NDArray[np.float64]:
        return np.array(self.mean) + np.array(self.scale) * np.asarray(outputs, np.float64)

    def outputs_for(self, values: NDArray) -> NDArray[np.float64]:
        return (values - np.array(self.mean)) / np.array(self.scale)

    def additive(self, outputs: NDArray) -> dict[str, NDArray]:
        return self.answers(outputs)

    def chance_loss(self, targets: NDArray) -> float:
        spread = np.asarray(targets, np.float64).var(axis=0)
        return float(np.mean(spread / np.array(self.scale) ** 2))


@dataclass(frozen=True)
class Counts(_Numbers):
    """Counts, by half the deviance of Poisson distributions, in nats.

    The network answers with the logarithm of each rate, less that of the training targets' mean.
    Half the deviance is the negative log-likelihood less that of the best possible rates
    (McCullagh and Nelder, Generalized Linear Models, 1989, section 2.3): 0 where all rates are the
    counts.
    """

    kind: ClassVar[str] = "counts"
    scored: ClassVar[Mapping[str, str]] = {"loss": "loss (half the deviance)"} | _SCORED
    measured: ClassVar[Mapping[str, str]] = scored

    @classmethod
    def fitted(
        cls, names: Sequence[str], targets: NDArray, swaps: tuple[int, ...] = (), where: str = ""
    ) -> Self:
        """Returns the task with the means of a training split; see `Regression.fitted`.

        Raises:
          UserError: a column is constant.
        """
        Regression.fitted(names, targets, swaps, where)
        mean = _alike(targets.mean(axis=0, dtype=np.float64), swaps)
        return cls(tuple(names), swaps, tuple(np.maximum(mean, _LEAST_COUNT).tolist()))

    @property
    def reading(self) -> str:
        return f"exp of it times {list(self.mean)} is {', '.join(self.names)}"

    def losses(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        log_rates = outputs.astype(jnp.float32) + jnp.log(jnp.array(self.mean, jnp.float32))
        best = targets - jax.scipy.special.xlogy(targets, targets)
        return jnp.mean(jnp.exp(log_rates) - targets * log_rates - best, axis=1)

    def losses_on_host(self, targets: NDArray, outputs: NDArray) -> NDArray[np.float64]:
        targets = np.asarray(targets, np.float64)
        log_rates = np.asarray(outputs, np.float64) + np.log(self.mean)
        known = np.log(np.where(targets > 0, targets, 1))  # nothing times its logarithm is nothing
        return np.exp(log_rates) - targets * log_rates - (targets - targets * known)

    def predicted(self, outputs: NDArray) -> NDArray[np.float64]:
        return np.array(self.mean) * np.exp(np.asarray(outputs, np.float64))

    def outputs_for(self, values: NDArray) -> NDArray[np.float64]:
        return np.log(values) - np.log(self.mean)

    def additive(self, outputs: NDArray) -> dict[str, NDArray]:
        log_rates = np.asarray(outputs, np.float64) + np.log(self.mean)
        return {f"log_{name}": log_rates[:, i] for i, name in enumerate(self.names)}

    def chance_loss(self, targets: NDArray) -> float:
        rates = np.maximum(np.mean(targets, axis=0, dtype=np.float64), _LEAST_COUNT)
        outputs = np.log(rates) - np.log(self.mean)
        return float(self.losses_on_host(targets, np.tile(outputs, (len(targets), 1))).mean())

    def check(self, targets: NDArray, where: str) -> None:
        super().check(targets, where)
        if (targets < 0).any():
            wrong = int((targets < 0).any(axis=1).sum())
            raise UserError(
                f"{where}: {wrong} of {len(targets)} examples have a negative target; "
                "legal for counts: 0 or more (data.task=regression takes any)"
            )


def _alike(values: NDArray, swaps: tuple[int, ...]) -> NDArray:
    """Gives outputs that the other strand exchanges one unit."""
    return (values + values[list(swaps)]) / 2 if swaps else values


def _standard(values: NDArray) -> NDArray[np.float64]:
    centred = np.asarray(values, np.float64) - np.mean(values, dtype=np.float64)
    return centred / centred.std()
