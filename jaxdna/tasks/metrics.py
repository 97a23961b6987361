"""Scores of a set of predictions, exact and in float64 on the host."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxdna.tasks.logits import log_sum_exp

SMALLER_IS_BETTER = frozenset({"loss", "mse"})


def auroc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Area under the ROC curve, ties counted half: the Mann-Whitney statistic.

    Args:
      labels: [examples], 1 or 0.
      scores: [examples], larger means more likely 1.

    Returns:
      The area, or None where only one class is present.
    """
    positive = np.asarray(labels).astype(bool)
    positives = int(positive.sum())
    pairs = positives * (len(positive) - positives)
    if pairs == 0:
        return None
    return float((ranks(scores)[positive].sum() - positives * (positives + 1) / 2) / pairs)


def auroc_noise(labels: ArrayLike) -> float:
    """Standard deviation of the AUROC of scores that know nothing of the labels.

    Source: Mann and Whitney (1947), On a test of whether one of two random variables is
    stochastically larger than the other, Ann. Math. Stat. 18:50-60.

    Args:
      labels: [examples], 1 or 0.

    Returns:
      The deviation; infinity where only one class is present.
    """
    positive = np.asarray(labels).astype(bool)
    pairs = int(positive.sum()) * int((~positive).sum())
    return float(np.sqrt((len(positive) + 1) / (12 * pairs))) if pairs else float("inf")


def auprc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Average precision: sum over thresholds of (recall step) * precision, no interpolation.

    Args:
      labels: [examples], 1 or 0.
      scores: [examples], larger means more likely 1.

    Returns:
      The area, or None where there is no positive.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    order = np.argsort(-scores, kind="stable")
    true_positives = np.cumsum(labels[order] == 1)
    if true_positives[-1] == 0:
        return None
    ranked = scores[order]
    last_of_tie = np.append(ranked[1:] != ranked[:-1], True)
    found = true_positives[last_of_tie]
    precision = found / (np.flatnonzero(last_of_tie) + 1)
    return float(np.sum(np.diff(found, prepend=0) * precision) / true_positives[-1])


def macro(
    score: Callable[[NDArray, NDArray], float | None], labels: NDArray, scores: NDArray
) -> float | None:
    """Mean of a score over columns; None where it is defined for none of them.

    Args:
      score: (labels, scores), each [examples], to a number, or None where it is not defined.
      labels: [examples, columns].
      scores: [examples, columns].
    """
    each = (score(*columns) for columns in zip(labels.T, scores.T, strict=True))
    found = [value for value in each if value is not None]
    return float(np.mean(found)) if found else None


def binary_losses(labels: NDArray, logits: NDArray) -> NDArray[np.float64]:
    """Cross-entropy in nats of labels 0 and 1 and logits of the same shape, element by element."""
    logits = np.asarray(logits, dtype=np.float64)
    return np.logaddexp(0.0, logits) - logits * labels


def class_losses(labels: NDArray, logits: NDArray) -> NDArray[np.float64]:
    """Cross-entropy of every example in nats.

    Args:
      labels: integer [examples].
      logits: [examples, classes].
    """
    logits = np.asarray(logits, dtype=np.float64)
    return log_sum_exp(logits) - logits[np.arange(len(labels)), labels]


def entropy(shares: NDArray) -> float:
    """Entropy in nats of a distribution, or of counts that are one but for their sum."""
    shares = np.asarray(shares, np.float64)
    shares = shares[shares > 0] / shares.sum()
    return float(-(shares * np.log(shares)).sum())


def pearson(x: NDArray, y: NDArray) -> float | None:
    """Pearson's correlation of two [examples]; None where one of them is constant."""
    x, y = (np.asarray(each, np.float64) - np.mean(each, dtype=np.float64) for each in (x, y))
    norm = np.sqrt((x @ x) * (y @ y))
    return float(np.clip(x @ y / norm, -1, 1)) if norm > 0 else None


def ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks from 1 of [examples] finite values, equal ones at the mean of their ranks."""
    # `scipy.stats.rankdata` does it too, in a module that takes a quarter of a command's start.
    _, value, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[value]


def spearman(x: NDArray, y: NDArray) -> float | None:
    """Spearman's correlation of two [examples]: Pearson's of their ranks, ties at their mean."""
    return pearson(ranks(x), ranks(y))
