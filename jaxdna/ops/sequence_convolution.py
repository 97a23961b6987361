"""Convolutions along sequences that keep their length, and means over them, on a mesh or not.

Where positions are split (`seq`), every device computes its own stretch, with a halo of its
neighbours' activations on both sides. What lies beyond the ends of the sequence is zero.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from jaxdna.parallel.mesh import BATCH_AXES

_STRETCHES = P(BATCH_AXES, "seq")


def convolve_along(x: jax.Array, kernel: jax.Array, dilation: int = 1) -> jax.Array:
    """Convolves sequences with filters whose taps lie `dilation` positions apart.

    The mesh is that of the context (`jax.sharding.use_abstract_mesh`): its batch axes split the
    batch and `seq` the positions; filters are whole.

    Args:
      x: float [batch, length, channels].
      kernel: float [width, channels, filters], of odd width.
      dilation: distance between two taps.

    Returns:
      float [batch, length, filters], with zeros beyond both ends.
    """
    reach = kernel.shape[0] // 2 * dilation
    own = partial(_stretch, reach=reach, dilation=dilation)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.manual_axes:
        return _valid(jnp.pad(x, [(0, 0), (reach, reach), (0, 0)]), kernel, dilation)
    return jax.shard_map(
        own, mesh=mesh, in_specs=(_STRETCHES, P()), out_specs=_STRETCHES, check_vma=False
    )(x, kernel)


def mean_along(x: jax.Array) -> jax.Array:
    """Returns the mean over positions, [batch, channels], of x [batch, length, channels].

    It is float32, or float64 of that. The mesh is that of the context, as for `convolve_along`.
    """
    mesh, exact = jax.sharding.get_abstract_mesh(), jnp.promote_types(x.dtype, jnp.float32)
    if mesh.empty or mesh.size == 1 or mesh.manual_axes:
        return jnp.mean(x.astype(exact), axis=1)

    def own(x: jax.Array) -> jax.Array:
        return lax.pmean(jnp.mean(x.astype(exact), axis=1), "seq")

    return jax.shard_map(
        own, mesh=mesh, in_specs=_STRETCHES, out_specs=P(BATCH_AXES), check_vma=False
    )(x)


def _stretch(x: jax.Array, kernel: jax.Array, reach: int, dilation: int) -> jax.Array:
    count, length = lax.axis_size("seq"), x.shape[1]
    before: list[jax.Array] = []
    after: list[jax.Array] = []
    missing = reach
    for hop in range(1, count):  # a halo may be wider than a stretch
        size = min(missing, length)
        if size == 0:
            break
        # Whoever has no neighbour so far away receives zeros.
        forward = [(i, i + hop) for i in range(count - hop)]
        backward = [(i + hop, i) for i in range(count - hop)]
        before.insert(0, lax.ppermute(x[:, length - size :], "seq", forward))
        after.append(lax.ppermute(x[:, :size], "seq", backward))
        missing -= size
    padding = jnp.zeros((x.shape[0], missing, x.shape[2]), x.dtype)
    return _valid(jnp.concatenate([padding, *before, x, *after, padding], axis=1), kernel, dilation)


def _valid(x: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (1,), "VALID", rhs_dilation=(dilation,), dimension_numbers=("NWC", "WIO", "NWC")
    )
