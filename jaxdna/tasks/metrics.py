"""Scores of a set of predictions, exact and in float64 on the host."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp
from scipy.stats import rankdata


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
    ranks = rankdata(np.asarray(scores, np.float64))  # newer SciPy ranks float32 in float32
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / pairs)


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


def losses(labels: NDArray, logits: NDArray) -> NDArray[np.float64]:
    """Cross-entropy of every example in nats, from logits.

    Args:
      labels: integer [examples].
      logits: [examples, 1] for two classes, else [examples, classes].
    """
    logits = np.asarray(logits, dtype=np.float64)
    if logits.shape[1] == 1:
        logit = logits[:, 0]
        return np.logaddexp(0.0, logit) - logit * labels
    return logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]


def scores(labels: NDArray, logits: NDArray) -> dict[str, float | None]:
    """Returns loss (nats), accuracy, and for two classes AUROC and AUPRC (else None).

    Args:
      labels: integer [examples].
      logits: [examples, 1] for two classes, else [examples, classes].
    """
    binary = logits.shape[1] == 1
    guess = logits[:, 0] > 0 if binary else logits.argmax(axis=1)
    return {
        "loss": float(losses(labels, logits).mean()),
        "accuracy": float((guess == labels).mean()),
        "auroc": auroc(labels, logits[:, 0]) if binary else None,
        "auprc": auprc(labels, logits[:, 0]) if binary else None,
    }


def chance_scores(labels: NDArray, outputs: int) -> dict[str, Any]:
    """Returns the scores of who knows how large the classes are and nothing else.

    Args:
      labels: integer [examples].
      outputs: logits of one example; 1 for two classes.

    Returns:
      `examples` of each class, `loss` (nats) of predicting their shares, `accuracy` of always
      saying the largest one, and for two classes `auroc` 0.5 and `auprc`, the share of positives.
    """
    binary = outputs == 1
    sizes = np.bincount(labels, minlength=2 if binary else outputs)
    return {
        "examples": sizes.tolist(),
        "loss": chance_loss(labels),
        "accuracy": float(sizes.max() / sizes.sum()),
        "auroc": 0.5 if binary else None,
        "auprc": float(sizes[1] / sizes.sum()) if binary else None,
    }


def weighted_loss(labels: NDArray, logits: NDArray, class_weights: Sequence[float]) -> float:
    """Mean cross-entropy (nats) where each example counts as its class does.

    Args:
      labels: integer [examples].
      logits: see `losses`.
      class_weights: of each class.
    """
    return float(np.average(losses(labels, logits), weights=np.array(class_weights)[labels]))


def chance_loss(labels: NDArray, class_weights: Sequence[float] = ()) -> float:
    """Loss (nats) of predicting the class frequencies: ln 2 for two classes of equal size.

    A network that has not begun to learn sits at this value.

    Args:
      labels: integer [examples].
      class_weights: of each class, where the loss is weighted.
    """
    shares = np.bincount(labels, minlength=len(class_weights)).astype(np.float64)
    if class_weights:
        shares *= class_weights
    shares /= shares.sum()
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())
