"""What logits mean, in NumPy.

`scipy.special` has these functions too, in a module that takes a fifth of a command's start.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def sigmoid(logits: ArrayLike) -> NDArray[np.float64]:
    """Returns 1 / (1 + exp(-logits)), for logits of any shape and size."""
    logits = np.asarray(logits, np.float64)
    small = np.exp(-np.abs(logits))
    return np.where(logits < 0, small, 1.0) / (1 + small)


def log_sum_exp(logits: ArrayLike) -> NDArray[np.float64]:
    """Returns the logarithm of the sum of exponentials [rows] of finite logits [rows, classes]."""
    logits = np.asarray(logits, np.float64)
    largest = logits.max(axis=1)
    return largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))


def softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Returns the shares [rows, classes] that finite logits of that shape stand for."""
    logits = np.asarray(logits, np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
