"""What an example of each class counts in the training loss where the classes differ in size."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray


def none(labels: NDArray[np.integer], classes: int) -> tuple[float, ...]:
    """Returns no weights: every example counts 1."""
    del labels, classes
    return ()


def balanced(labels: NDArray[np.integer], classes: int) -> tuple[float, ...]:
    """Returns weights with which all classes count the same in sum, and an example 1 on average.

    That of a class is examples / (classes that are there * its examples), as scikit-learn has it
    (King and Zeng, Logistic regression in rare events data, 2001); 1 where it has no example.

    Args:
      labels: integer [examples], of the whole training split.
      classes: how many there are.
    """
    counts = np.bincount(labels, minlength=classes)
    there = np.count_nonzero(counts)
    return tuple(float(len(labels) / (there * n)) if n else 1.0 for n in counts.tolist())


CLASS_WEIGHTS: dict[str, Callable[[NDArray[np.integer], int], tuple[float, ...]]] = {
    "none": none,
    "balanced": balanced,
}


def meaning(weights: Sequence[float]) -> str:
    """Returns what a person must know of the probabilities of a network trained with weights."""
    shown = ", ".join(f"{weight:.4g} for class {i}" for i, weight in enumerate(weights))
    if len(weights) == 2:
        shift = math.log(weights[0] / weights[1])
        back = f"for those of the training data add {shift:+.4f} to the logit"
    else:
        back = "for those of the training data subtract ln of each class's weight from its logit"
    return (
        f"train.class_weight=balanced: an example weighs {shown}, so probabilities are those for "
        f"classes of equal size; {back}. The loss of training and validation is weighted, the test "
        "loss is not"
    )
