"""Whether probabilities mean what they say: calibration error, and the temperature that mends it.

Source: Guo, Pleiss, Sun and Weinberger (2017), On calibration of modern neural networks,
arXiv 1706.04599.
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
      `loss` and `reliability`; None where the answers are not probabilities of classes.
    """
    if not task.classes:
        return None
    temperature = fitted_temperature(task, *validation)
    targets, outputs = test

    def one(logits: NDArray) -> dict[str, Any]:
        bins = reliability(*task.told(targets, logits))
        return {
            "error": calibration_error(bins),
            "loss": task.loss(targets, logits),
            "reliability": bins,
        }

    logits = np.asarray(outputs, np.float64)
    return {
        "temperature": temperature,
        "before": one(logits),
        "after": one(logits / temperature),
    }
