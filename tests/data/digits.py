"""scikit-learn's handwritten digits as a data set that tensorflow-datasets prepared as MNIST."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from jaxdna.data.images import write_dataset

TRAIN = 1400


def mnist_like_digits():
    """Returns 1,400 and 397 images of 28 x 28: 8 x 8 of them, tripled, in a frame of two."""
    digits = load_digits()
    grey = np.minimum(digits.images * 16, 255).astype(np.uint8)  # 0..16 to 0..255
    pixels = np.pad(np.kron(grey, np.ones((1, 3, 3), np.uint8)), ((0, 0), (2, 2), (2, 2)))
    order = np.random.default_rng(0).permutation(len(pixels))
    x, y = pixels[order, :, :, None], digits.target[order].astype(np.int32)
    return {"train": (x[:TRAIN], y[:TRAIN]), "test": (x[TRAIN:], y[TRAIN:])}


def write_digits(root: Path) -> Path:
    """Writes them; returns the folder of the version."""
    write_dataset(root, "mnist", "3.0.1", mnist_like_digits())
    return root / "mnist" / "3.0.1"
