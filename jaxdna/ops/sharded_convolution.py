"""Image convolutions on a mesh: batch and filters split over devices, rows too or not."""

from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxdna.ops.convolution import convolve, pad
from jaxdna.parallel.mesh import BATCH_AXES


def convolve_on_mesh(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """`convolve`, right for every sharding of its arguments.

    The mesh is that of the context (`jax.sharding.use_abstract_mesh`). Without one, or inside
    `shard_map`, this is `convolve` itself. Elsewhere XLA's partitioner is not left to itself with a
    convolution, since it gives wrong numbers without a word (jaxlib 0.10.2): the gradient of the
    input, where batch, channels and filters are all split; the gradient of the kernel, where rows
    are; the value itself, where rows and filters are.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.manual_axes:
        return convolve(x, kernel, padding)
    if mesh.shape.get("seq", 1) == 1:
        own = jax.shard_map(
            partial(convolve, padding=padding),
            mesh=mesh,
            in_specs=(P(BATCH_AXES), P(None, None, None, "model")),
            out_specs=P(BATCH_AXES, None, None, "model"),
            check_vma=False,
        )
        return own(x, kernel)
    # With rows split, as one matrix product for each place of the kernel.
    rows, columns = kernel.shape[:2]
    x = pad(x, kernel, padding)
    height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    products = [
        x[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(rows)
        for j in range(columns)
    ]
    return reduce(jnp.add, products)
