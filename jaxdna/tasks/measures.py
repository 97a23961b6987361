"""95% intervals of measures, by the bootstrap."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxdna.progress import counted

RESAMPLES = 1000
_CHUNK = 4_000_000  # weights in memory at once
_FEW = 100_000  # of them at once through the sums, which hold a dozen arrays of that size

# Weights float64 [resamples, examples] to each measure's value float64 [resamples], by name.
Statistics = Callable[[NDArray[np.float64]], Mapping[str, NDArray[np.float64]]]


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


def bootstrap(
    statistics: Statistics,
    strata: Sequence[NDArray[np.integer]],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Measure]:
    """Returns every measure with its 95% percentile bootstrap interval.

    Resamples are drawn within each stratum (stratified bootstrap; Efron and Tibshirani, 1993), so
    that each of them has all strata.

    Args:
      statistics: the measures of examples that count as their weights say.
      strata: row numbers of each; together all examples.
      seed: of the resampling.
      resamples: how many.
    """
    count = sum(rows.size for rows in strata)
    values = statistics(np.ones((1, count)))
    rng = np.random.default_rng([seed, 0xB007])
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in values}
    rows = max(1, _CHUNK // count)
    for first in counted(
        "measuring 95% intervals", range(0, resamples, rows), -(-resamples // rows)
    ):
        weights = np.zeros((min(rows, resamples - first), count))
        for members in strata:
            shares = np.full(members.size, 1 / members.size)
            weights[:, members] = rng.multinomial(members.size, shares, size=len(weights))
        parts = -(-weights.size // _FEW)
        for part in np.array_split(weights, parts):
            if len(part):
                for name, found in statistics(part).items():
                    drawn[name].append(found)
    # Of a resample that is constant, a correlation is not defined, and it tells nothing.
    bounds = {name: np.nanpercentile(np.concatenate(v), [2.5, 97.5]) for name, v in drawn.items()}
    return {name: Measure(float(values[name][0]), *map(float, bounds[name])) for name in values}
