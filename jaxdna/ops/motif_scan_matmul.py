"""The motif scan as one matrix product over groups of neighbouring positions, for CPUs.

XLA's CPU convolution is slow on four channels and loses its threads inside a loop; a matrix
product does neither. `group` neighbouring positions share one column of one-hot bases, against a
matrix that holds the filters once for each of them, shifted:

    [filters * group, (group + width - 1) * 4] @ [(group + width - 1) * 4, batch * groups]

That copies every base (group + width - 1) / group times instead of `width` times, and pays with
the products by the zeros around the shifted filters. With the columns' axis last, each row of the
right side is one slice of the codes compared with one base, which becomes vector code.
"""

import jax.numpy as jnp
from jax import Array, lax

from jaxdna.data.sequences import UNKNOWN
from jaxdna.ops.one_hot import one_hot

# Rows of the left matrix that fill the matrix product's register tile on AVX-512.
TILE_ROWS = 48


def _group_size(positions: int, filters: int) -> int:
    return max(1, min(TILE_ROWS // filters, positions))


def _columns(codes: Array, width: int, group: int, dtype: jnp.dtype) -> Array:
    """One-hot bases of each group: [(group + width - 1) * 4, batch * groups]."""
    batch, length = codes.shape
    groups = -(-(length - width + 1) // group)
    bases = group + width - 1
    padded = (groups - 1 + -(-bases // group)) * group
    codes = jnp.pad(
        codes, ((0, 0), (0, max(0, padded - length))), constant_values=jnp.uint8(UNKNOWN)
    )
    # [group, batch, padded / group]: base number `i` of all the groups is then one slice.
    # The barriers keep each copy on bytes: fused into the comparison it would run four times.
    lanes = codes[:, :padded].reshape(batch, -1, group)
    lanes = lax.optimization_barrier(jnp.moveaxis(lanes, 2, 0))
    slices = [lanes[i % group, :, i // group :][:, :groups] for i in range(bases)]
    slices = lax.optimization_barrier(jnp.stack(slices))
    return one_hot(slices, dtype, axis=1).reshape(bases * 4, batch * groups)


def _shifted(kernel: Array, group: int) -> Array:
    """The filters once for each position of a group: [(group + width - 1) * 4, filters * group]."""
    width, _, filters = kernel.shape
    shifts = [
        jnp.pad(kernel, ((shift, group - 1 - shift), (0, 0), (0, 0))) for shift in range(group)
    ]
    return jnp.stack(shifts, axis=3).reshape((group + width - 1) * 4, filters * group)


def _grouped_scores(codes: Array, kernel: Array, group: int) -> Array:
    """Scores without bias, float32: [filters, group, batch, groups].

    The score of position `column * group + shift` is at [:, shift, :, column]. Filters and
    sequences are the outer axes of their products, so that sharding either moves no data.
    """
    width, _, filters = kernel.shape
    # Behind a barrier the left side stays transposed, and that product is a fifth faster.
    left = lax.optimization_barrier(_shifted(kernel, group))
    right = _columns(codes, width, group, kernel.dtype)
    # The highest precision, because accelerators round float32 factors otherwise.
    scores = lax.dot_general(
        left,
        right,
        (((0,), (0,)), ((), ())),
        precision="highest",
        preferred_element_type=jnp.float32,
    )
    return scores.reshape(filters, group, codes.shape[0], -1)


def _best_of_groups(scores: Array, positions: int) -> Array:
    """Largest score of each group: [filters, batch, groups]."""
    _, group, _, groups = scores.shape
    if group * groups > positions:
        shift, column = (lax.broadcasted_iota(jnp.int32, scores.shape, axis) for axis in (1, 3))
        scores = jnp.where(column * group + shift < positions, scores, -jnp.inf)

    def larger(a: Array, b: Array) -> Array:
        return jnp.where((a > b) | jnp.isnan(a), a, b)

    # Spelled out, because XLA hands a plain max to a library that is slow on an outer axis, and
    # computes a chain of `maximum` again for each use.
    return lax.reduce(scores, -jnp.inf, larger, (1,))


def _sole_index(equal: Array, axis: int) -> tuple[Array, Array]:
    """The only true place along an axis, and whether there are more than one.

    One pass finds both: every true place adds size + index, and only one alone stays below
    2 * size. float32 holds these sums without wrapping round, and a single one exactly.
    """
    size = equal.shape[axis]
    places = lax.broadcasted_iota(jnp.float32, equal.shape, axis) + size
    total = jnp.sum(jnp.where(equal, places, 0.0), axis)
    return jnp.clip(total - size, 0, size - 1).astype(jnp.int32), total >= 2 * size


def search(codes: Array, kernel: Array) -> tuple[Array, Array, Array]:
    """Finds each filter's best window in each sequence; see `motif_scan.Search`."""
    positions = codes.shape[1] - kernel.shape[0] + 1
    group = _group_size(positions, kernel.shape[2])
    scores = _grouped_scores(codes, kernel, group)
    of_groups = _best_of_groups(scores, positions)
    best = jnp.max(of_groups, axis=2)

    column, tied_groups = _sole_index(of_groups == best[:, :, None], 2)
    inside = jnp.take_along_axis(scores, column[:, None, :, None], axis=3)[..., 0]
    shift = lax.broadcasted_iota(jnp.int32, inside.shape, 1)
    real = column[:, None] * group + shift < positions
    shift, tied_shifts = _sole_index((inside == best[:, None]) & real, 1)
    position = jnp.minimum(column * group + shift, positions - 1)
    return best.T, position.T, (tied_groups | tied_shifts).T


def window_scores(codes: Array, kernel: Array) -> Array:
    """Scores every filter against every window, float32: [filters, batch, positions]."""
    positions = codes.shape[1] - kernel.shape[0] + 1
    group = _group_size(positions, kernel.shape[2])
    scores = _grouped_scores(codes, kernel, group)
    in_order = jnp.moveaxis(scores, 1, 3).reshape(kernel.shape[2], codes.shape[0], -1)
    return in_order[:, :, :positions]


def best_scores(codes: Array, kernel: Array) -> Array:
    """The best score alone, differentiable, a tie's cotangent split evenly: [batch, filters]."""
    return jnp.max(window_scores(codes, kernel), axis=2).T
