"""Bases as one byte each, and as the four numbers that a convolution sees."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxdna.data.sequences import UNIFORM


def one_hot(codes: Array, dtype: jax.typing.DTypeLike = jnp.float32, axis: int = -1) -> Array:
    """Expands codes to four numbers per base.

    Args:
        codes: [...] uint8, 0..3 for A C G T, 4 for unknown or padding, 5 for uniform; or the four
            numbers themselves, float [..., 4], by which attribution takes derivatives.
        dtype: of the result.
        axis: where the result has its axis of four.

    Returns:
        [..., 4] for the last axis: the unit row of a base, zeros for code 4, and 0.25 in each
        place for code 5.
    """
    if jnp.issubdtype(codes.dtype, jnp.floating):
        return jnp.moveaxis(codes.astype(dtype), -1, axis)
    codes = jnp.expand_dims(codes, axis)
    shape = [1] * codes.ndim
    shape[axis] = 4
    bases = jnp.arange(4, dtype=codes.dtype).reshape(shape)
    return (codes == bases).astype(dtype) + jnp.where(codes == UNIFORM, 0.25, 0.0).astype(dtype)
