"""Whether probabilities mean what they say: calibration error, and the temperature that mends it.

Sources: Guo, Pleiss, Sun and Weinberger (2017), On calibration of modern neural networks,
arXiv 1706.04599; Kumar, Liang and Ma (2019), Verified uncertainty calibration, arXiv 1909.10155;
Roelofs, Cain, Shlens and Mozer (2022), Mitigating bias in calibration error estimation,
arXiv 2012.08668.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxdna.tasks.task import Task

_BINS = 15  # as in the source
_MOST = 4.0  # of the logarithm of a temperature, on both sides


def reliability(
    predicted: NDArray[np.float64], happened: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """Returns how often it happened what was predicted, for each of 15 equal ranges of probability.

    Args:
      predicted: [examples], the probability that was said.
      happened: [examples], whether it came true.

    Returns:
      For each range with examples in it: `predicted`, their mean probability, `observed`, the share
      that came true, and how many `examples`.
    """
    place = np.minimum((predicted * _BINS).astype(int), _BINS - 1)
    return [
        {
            "predicted": float(predicted[place == i].mean()),
            "observed": float(happened[place == i].mean()),
            "examples": int((place == i).sum()),
        }
        for i in np.unique(place).tolist()
    ]


def calibration_error(bins: list[dict[str, Any]]) -> float:
    """Returns the expected calibration error of `reliability`: the mean distance of both shares."""
    sizes = [one["examples"] for one in bins]
    return float(
        np.average([abs(one["predicted"] - one["observed"]) for one in bins], weights=sizes)
    )


def corrected_error(
    predicted: NDArray[np.float64], happened: NDArray[np.bool_]
) -> tuple[float, float]:
    """Returns the calibration error corrected for chance, and what chance alone would give.

    Few examples make the error of `calibration_error` too large: a perfectly calibrated answer has
    one above 0. Here it is measured in 15 bins of equally many examples, whose bias is smaller
    (Roelofs et al.), and is reduced by its bias as resampling estimates it (Kumar et al., as their
    package does for the absolute error): to the observed share of a bin normal noise is added, of
    the share's own standard error, and what that adds to the mean distance is taken off. The mean
    of the absolute value of a normal variable is known, so nothing is drawn. Of perfectly
    calibrated answers that takes off two fifths of the bias, of errors well above the noise all of
    it, and in between a little more: beside noise of 0.07 an error of 0.1 becomes 0.094.

    Args:
      predicted: see `reliability`.
      happened: see `reliability`.

    Returns:
      The first, at least 0; and the error in these bins that examples with exactly these
      probabilities would have on average.
    """
    order = np.argsort(predicted, kind="stable")
    parts = np.array_split(order, min(_BINS, len(order)))
    sizes = np.array([len(rows) for rows in parts])
    said, share, spread = (
        np.array([values[rows].mean() for rows in parts])
        for values in (predicted, happened, predicted * (1 - predicted))
    )
    apart = np.abs(said - share)
    likely = (share * sizes + 0.5) / (sizes + 1)  # not 0 where all or none came true
    noise = np.sqrt(likely * (1 - likely) / sizes)
    found = 2 * apart - _mean_distance(apart, noise)
    alone = _mean_distance(np.zeros_like(apart), np.sqrt(spread / sizes) + np.finfo(float).tiny)
    return max(0.0, float(np.average(found, weights=sizes))), float(
        np.average(alone, weights=sizes)
    )


def _mean_distance(mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> NDArray[Any]:
    """The mean of the absolute value of normal variables (Leone, Nelson and Nottingham, 1961)."""
    from scipy.special import ndtr  # here: every start of a command would pay for it

    z = mean / deviation
    return deviation * np.sqrt(2 / np.pi) * np.exp(-(z**2) / 2) + mean * (1 - 2 * ndtr(-z))


def fitted_temperature(task: Task, targets: NDArray, outputs: NDArray) -> float:
    """Returns what logits must be divided by for the least loss.

    Args:
      task: of classes.
      targets: [examples, *target_shape].
      outputs: float [examples, outputs], logits.
    """
    from scipy.optimize import minimize_scalar  # here: every start of a command would pay for it

    logits = np.asarray(outputs, np.float64)
    found = minimize_scalar(
        lambda log: task.loss(targets, logits / np.exp(log)),
        bounds=(-_MOST, _MOST),
        method="bounded",
    )
    return float(np.exp(found.x))


def calibration(
    task: Task,
    validation: tuple[NDArray, NDArray],
    test: tuple[NDArray, NDArray],
) -> dict[str, Any] | None:
    """Returns how well calibrated the answers to a test split are, before and after a temperature.

    Args:
      task: what was asked.
      validation: targets and outputs; the temperature is fitted on them.
      test: targets and outputs.

    Returns:
      `temperature`, and `before` and `after`, each with `error` (expected calibration error),
      `corrected` and `by_chance` (see `corrected_error`), `loss` and `reliability`; None where the
      answers are not probabilities of classes.
    """
    if not task.classes:
        return None
    temperature = fitted_temperature(task, *validation)
    targets, outputs = test

    def one(logits: NDArray) -> dict[str, Any]:
        told = task.told(targets, logits)
        bins, (less, chance) = reliability(*told), corrected_error(*told)
        return {
            "error": calibration_error(bins),
            "corrected": less,
            "by_chance": chance,
            "loss": task.loss(targets, logits),
            "reliability": bins,
        }

    logits = np.asarray(outputs, np.float64)
    return {
        "temperature": temperature,
        "before": one(logits),
        "after": one(logits / temperature),
    }
