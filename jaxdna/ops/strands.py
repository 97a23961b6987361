"""Codes of which some are to be read as their other strand."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Strands(NamedTuple):
    """Sequences, and which of them count as their other strand: whoever reads them turns them.

    Attributes:
      codes: uint8 [batch, length].
      turned: bool [batch].
    """

    codes: jax.Array
    turned: jax.Array


def complement_strand(codes: jax.Array) -> jax.Array:
    """Returns the reverse complement of codes uint8 [..., length] or one-hot [..., length, 4]."""
    if jnp.issubdtype(codes.dtype, jnp.floating):
        return codes[..., ::-1, ::-1]
    turned = codes[..., ::-1]
    return jnp.where(turned < 4, 3 - turned, turned)


def read(x: jax.Array | Strands) -> jax.Array:
    """Returns the codes uint8 [batch, length] with those turned that are to be; others as given."""
    if isinstance(x, Strands):
        return jnp.where(x.turned[:, None], complement_strand(x.codes), x.codes)
    return x
