"""Max pooling as an elementwise maximum of strided slices.

`lax.reduce_window` has select-and-scatter for a derivative, which XLA's CPU backend runs on one
thread; slices and maxima fuse with what comes before and after.
"""

from functools import reduce

import jax
import jax.numpy as jnp


def max_pool(x: jax.Array, size: int) -> jax.Array:
    """Returns the maximum of every `size` x `size` square of an image; squares do not overlap.

    Rows and columns that fill no square are left out. Where values are equal, the derivative is
    split among them.

    Args:
      x: [batch, height, width, channels].
      size: side of a square, at most height and width.

    Returns:
      [batch, height // size, width // size, channels].
    """
    rows, columns = x.shape[1] // size * size, x.shape[2] // size * size
    slices = [x[:, i:rows:size, j:columns:size] for i in range(size) for j in range(size)]
    return reduce(jnp.maximum, slices)
