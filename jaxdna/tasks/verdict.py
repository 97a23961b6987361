"""Whether a run has learnt anything, told with the noise that its examples leave."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jaxdna.tasks.metrics import auroc, auroc_noise

LEARNT_NOTHING = "This run never left the plateau of chance: it has learnt nothing."
UNTESTED = "There is no test split, so nothing says how well this network does on new sequences."
_RARE = 0.25  # a smaller share of the rarer class makes ranks decide beside the loss
_FEW_TESTED = 100  # test examples: with fewer the standard error of an accuracy may exceed 5%
_FEW = 10  # examples of a class that are too few to tell a loss from that of chance


def chance_auroc(labels: NDArray) -> float:
    """Returns the AUROC that chance does not exceed in any epoch; 1 where the loss alone decides.

    Where one class is rare, a network can rank well and yet be too sure, so that its loss stays
    above that of chance. Where the classes are of similar size the loss tells, and ranks leave 0.5
    long before a network for motifs has begun to learn.

    Args:
      labels: integer [examples], 0 or 1, of the validation split.
    """
    sizes = np.bincount(labels, minlength=2)
    if sizes.min() == 0 or sizes.min() >= _RARE * sizes.sum():
        return 1.0
    return min(1.0, 0.5 + 4 * auroc_noise(labels))


def with_caveats(verdict: str, caveats: Sequence[str]) -> str:
    """Returns a verdict with the reasons for which it may be too good."""
    return f"{verdict} But {'; and '.join(caveats)}." if caveats else verdict


def few_tested(examples: int) -> list[str]:
    """Returns the caveat of a test split of so many examples; nothing where they are enough."""
    if examples >= _FEW_TESTED:
        return []
    return [f"only {examples} test examples were scored, so others may score quite differently"]


def verdict_of_folds(pooled: str, left_plateau: list[bool], examples: int) -> str:
    """Returns one sentence on a cross-validation.

    Args:
      pooled: how good the predictions of all folds are.
      left_plateau: whether each fold has left the plateau of chance.
      examples: how many were predicted, in all folds together.
    """
    stuck = left_plateau.count(False)
    if stuck == len(left_plateau):
        return "No fold left the plateau of chance: nothing was learnt."
    never = [f"{stuck} of {len(left_plateau)} folds never left the plateau of chance"]
    return with_caveats(pooled, [*(never if stuck else []), *few_tested(examples)])


def nothing_of_classes(validation: NDArray, ranks: tuple[NDArray, NDArray] | None) -> str:
    """Returns one sentence on a run of classes that never left the plateau of chance.

    Args:
      validation: integer [examples], the labels of the validation split.
      ranks: labels, 0 or 1, and logits of the test split, each [examples]; None where there are
        more than two classes.
    """
    sizes = np.bincount(validation)
    fewest = int(sizes[sizes > 0].min())
    area = auroc(*ranks) if ranks else None
    if ranks and area is not None and area > 0.5 + 3 * auroc_noise(ranks[0]):
        return (
            "This run's validation loss never left the plateau of chance, yet it ranks the test "
            f"split better than chance does (AUROC {area:.2f})."
        )
    if fewest < _FEW:
        return (
            f"This run never left the plateau of chance, but the rarer class has only {fewest} of "
            f"{len(validation)} validation examples, too few to tell whether it has learnt."
        )
    return LEARNT_NOTHING


def nothing_of_losses(validation: int) -> str:
    """Returns one sentence on a run whose loss alone tells that it never left the plateau.

    Args:
      validation: examples of the validation split.
    """
    if validation < _FEW:
        return (
            f"This run never left the plateau of chance, but {validation} validation examples are "
            "too few to tell whether it has learnt."
        )
    return LEARNT_NOTHING
