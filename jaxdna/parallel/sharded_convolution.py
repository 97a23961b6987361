"""Image convolutions on a mesh, rows split over `seq` or not."""

from functools import reduce

import jax
import jax.numpy as jnp

from jaxdna.ops.convolution import convolve, pad, plain


def convolve_on_mesh(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """`convolve`, right for every sharding of its arguments.

    The mesh is that of the context (`jax.sharding.use_abstract_mesh`). Where it splits rows, the
    convolution is written as one matrix product for each place of the kernel, because XLA's
    partitioner gives wrong numbers, without a word, for a convolution whose rows are split (jaxlib
    0.10.2: the gradient of the kernel; with split filters the value itself).
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return convolve(x, kernel, padding)
    if mesh.shape.get("seq", 1) == 1:
        return plain(x, kernel, padding)
    rows, columns = kernel.shape[:2]
    x = pad(x, kernel, padding)
    height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    products = [
        x[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(rows)
        for j in range(columns)
    ]
    return reduce(jnp.add, products)
