"""Whether a run has learnt anything, told with the noise that its examples leave."""

import numpy as np
from numpy.typing import NDArray

from jaxdna.tasks.metrics import auroc, auroc_noise

LEARNT_NOTHING = "This run never left the plateau of chance: it has learnt nothing."
_RARE = 0.25  # a smaller share of the rarer class makes ranks decide beside the loss
_FEW = 10  # examples of a class that are too few to tell a loss from that of chance


def chance_auroc(labels: NDArray) -> float:
    """Returns the AUROC that chance does not exceed in any epoch; 1 where the loss alone decides.

    Where one class is rare, a network can rank well and yet be too sure, so that its loss stays
    above that of chance. Where the classes are of similar size the loss tells, and ranks leave 0.5
    long before a network for motifs has begun to learn.

    Args:
      labels: integer [examples], of the validation split.
    """
    sizes = np.bincount(labels, minlength=2)
    if sizes.size > 2 or sizes.min() == 0 or sizes.min() >= _RARE * sizes.sum():
        return 1.0
    return min(1.0, 0.5 + 4 * auroc_noise(labels))


def verdict(left_plateau: bool, validation: NDArray, labels: NDArray, logits: NDArray) -> str:
    """Returns one sentence.

    Args:
      left_plateau: whether the validation split has ever been better than chance.
      validation: integer [examples], its labels.
      labels: integer [examples], those of the test split.
      logits: [examples, outputs], what the run says of the test split.
    """
    if left_plateau:
        return "This run left the plateau of chance."
    sizes = np.bincount(validation)
    fewest = int(sizes[sizes > 0].min())
    area = auroc(labels, logits[:, 0]) if logits.shape[1] == 1 else None
    if area is not None and area > 0.5 + 3 * auroc_noise(labels):
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
