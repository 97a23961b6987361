"""What the recipe must know of the user's sequences."""

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxdna.data.labelled import read_labelled

_MOST = 10_000  # sequences whose letters are counted


def measured(config: ConfigDict) -> dict[str, Any]:
    """Reads the files of `config.data`, into the store that training reads as well.

    Returns:
      `sequences`, about how many there are beside those to test on; `length`, their bases, padded
      or cropped where the configuration says so; `gc`, the share of G and C among A, C, G and T.

    Raises:
      UserError: a file or a setting is wrong, or they do not fit each other.
    """
    unsized = config.copy_and_resolve_references()
    if "width" in unsized.model:
        unsized.model.width = 1  # it follows from what is read here, and no sequence is too short
    data, labelled = config.data, read_labelled(unsized)
    share = 1.0
    if data.folds:
        share -= 1 / data.folds
    elif not labelled.tested:
        share -= data.test_fraction
    step = max(1, len(labelled) // _MOST)
    counts = np.bincount(labelled.codes[::step].ravel(), minlength=4)[:4]
    return {
        "sequences": max(1, round((len(labelled) - labelled.tested) * share)),
        "length": labelled.codes.shape[1],
        "gc": float((counts[1] + counts[2]) / max(1, counts.sum())),
    }
