"""Every measure that a classifier of sequences is judged by, with bootstrap intervals."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxdna.tasks.metrics import losses

FDRS = (0.05, 0.1, 0.2)
NAMES = {
    "loss": "loss (nats)",
    "accuracy": "accuracy at 0.5",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    **{f"recall_at_{fdr * 100:.0f}_fdr": f"recall at {fdr:.0%} FDR" for fdr in FDRS},
}
_RESAMPLES = 1000
_CHUNK = 4_000_000  # weights in memory at once
_FEW = 100_000  # of them at once through the sums, which hold a dozen arrays of that size


class Measure(NamedTuple):
    """One measure.

    Attributes:
      value: on the examples as they are.
      low: 2.5th percentile over resampled examples.
      high: 97.5th percentile.
    """

    value: float
    low: float
    high: float


def measure(
    labels: NDArray, logits: NDArray, seed: int = 0, resamples: int = _RESAMPLES
) -> dict[str, Measure]:
    """Returns every measure of `NAMES` with its 95 % percentile bootstrap interval.

    Recall at a false discovery rate is the largest share of the positives above any threshold at
    which at most that share of what is called is negative; 0 where no threshold is so good. Equal
    scores are one threshold. Resamples are drawn within each class (stratified bootstrap; Efron
    and Tibshirani, 1993), so that each of them has both.

    Args:
      labels: integer [examples], 0 or 1, both present.
      logits: float [examples].
      seed: of the resampling.
      resamples: how many.

    Raises:
      ValueError: only one class is present.
    """
    order = np.argsort(-logits, kind="stable")
    positive = labels[order] == 1
    count = len(order)
    if not 0 < positive.sum() < count:
        raise ValueError("measures need examples of both classes")
    ranked = logits[order]
    ties = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    each_loss = losses(positive.astype(np.int32), ranked[:, None])
    right = (ranked > 0) == positive

    def all_measures(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """[resamples, examples] to [resamples, measures], in the order of `NAMES`."""
        ones, zeros = weights * positive, weights * ~positive
        true, false = (np.cumsum(part, axis=1)[:, ties] for part in (ones, zeros))
        positives, negatives = true[:, -1:], false[:, -1:]
        steps = [np.diff(part, axis=1, prepend=0) for part in (true, false)]
        called = np.maximum(true + false, 1)
        precision, recall = true / called, true / positives
        hits = [(part * right).sum(axis=1, keepdims=True) for part in (ones, zeros)]
        columns = [
            weights @ each_loss / count,
            (weights @ right) / count,
            ((hits[0] / positives + hits[1] / negatives) / 2)[:, 0],
            (steps[1] * (true - steps[0] / 2)).sum(axis=1) / (positives * negatives)[:, 0],
            (steps[0] * precision).sum(axis=1) / positives[:, 0],
            *(
                # A share of exactly the rate counts, whatever its rounding.
                np.where(false <= fdr * called * (1 + 1e-12), recall, 0).max(axis=1)
                for fdr in FDRS
            ),
        ]
        return np.stack(columns, axis=1)

    values = all_measures(np.ones((1, count)))[0]
    rng = np.random.default_rng([seed, 0xB007])
    classes = [np.flatnonzero(positive), np.flatnonzero(~positive)]
    drawn = []
    rows = max(1, _CHUNK // count)
    for first in range(0, resamples, rows):
        weights = np.zeros((min(rows, resamples - first), count))
        for members in classes:
            shares = np.full(members.size, 1 / members.size)
            weights[:, members] = rng.multinomial(members.size, shares, size=len(weights))
        parts = -(-weights.size // _FEW)
        drawn += [all_measures(part) for part in np.array_split(weights, parts) if len(part)]
    low, high = np.percentile(np.concatenate(drawn), [2.5, 97.5], axis=0)
    return {
        name: Measure(*map(float, triple))
        for name, *triple in zip(NAMES, values, low, high, strict=True)
    }
