"""Which examples make a batch: a pure function of (seed, step), the same for any layout."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# (first step, steps) -> numbers of the examples int32 [..., steps, batch], and float32 weights
Rows = Callable[[int, int], tuple[NDArray[np.int32], NDArray[np.float32]]]


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Batches in one pass over `examples`; the last one may be partly filled."""
    return -(-examples // batch_size)


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, examples: int) -> NDArray[np.int64]:
    """Returns a permutation of 0..examples-1 that depends on (seed, epoch) only."""
    order = np.random.default_rng([seed, 0xBA7C4, epoch]).permutation(examples)
    order.setflags(write=False)  # shared by every caller through the cache
    return order


def batch_rows(
    seed: int, first_step: int, steps: int, examples: int, batch_size: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Returns the examples of `steps` batches from `first_step` on, within one epoch.

    Args:
      seed: the run's seed.
      first_step: global step counter, from 0.
      steps: how many batches.
      examples: size of the training split.
      batch_size: global batch.

    Returns:
      rows int32 [steps, batch_size] and weights float32 [steps, batch_size]; where an epoch's last
      batch is partly filled, the rest is row 0 with weight 0.

    Raises:
      ValueError: the steps reach into the next epoch.
    """
    epoch, start = divmod(first_step, steps_per_epoch(examples, batch_size))
    if start + steps > steps_per_epoch(examples, batch_size):
        raise ValueError(f"steps {first_step}..{first_step + steps - 1} span two epochs")
    chosen = epoch_order(seed, epoch, examples)[start * batch_size : (start + steps) * batch_size]
    rows = np.zeros(steps * batch_size, dtype=np.int32)
    weights = np.zeros(steps * batch_size, dtype=np.float32)
    rows[: len(chosen)] = chosen
    weights[: len(chosen)] = 1
    return rows.reshape(steps, batch_size), weights.reshape(steps, batch_size)
