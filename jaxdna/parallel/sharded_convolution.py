"""Image convolutions on a mesh, rows split over `seq` or not."""

import jax
import jax.numpy as jnp
from jax import lax


def convolve_on_mesh(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """A convolution with stride 1 that is right for every sharding of its arguments.

    The mesh is that of the context (`jax.sharding.use_abstract_mesh`). Where it splits rows, the
    convolution is written as one matrix product for each place of the kernel, because XLA's
    partitioner gives wrong numbers, without a word, for a convolution whose rows are split (jaxlib
    0.10.2: the gradient of the kernel; with split filters the value itself).

    Args:
      x: [batch, height, width, channels].
      kernel: [rows, columns, channels, filters], in the type of `x`.
      padding: `SAME` or `VALID`.

    Returns:
      [batch, height', width', filters].
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape.get("seq", 1) == 1:
        return lax.conv_general_dilated(
            x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    rows, columns = kernel.shape[:2]
    if padding == "SAME":
        edges = [((n - 1) // 2, n // 2) for n in (rows, columns)]
        x = jnp.pad(x, ((0, 0), *edges, (0, 0)))
    height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    return sum(
        (x[:, i : i + height, j : j + width] @ kernel[i, j])
        for i in range(rows)
        for j in range(columns)
    )
