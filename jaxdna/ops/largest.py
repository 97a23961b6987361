"""The largest of some numbers, with a derivative that belongs to one of them."""

from functools import partial

import jax
import jax.numpy as jnp


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def largest(x: jax.Array, axis: int) -> jax.Array:
    """Returns the maximum along an axis; of equal values the first has the derivative.

    That of `jax.numpy.max` goes to whatever equals the maximum. XLA may compute a number once for
    the maximum and again for the comparison, with other roundings: then nothing equals it, and the
    derivative is lost, or NaN. (XLA for CPUs with `--xla_backend_optimization_level` below 3 did
    so, with jaxlib 0.10.2.) A place is the same however often it is looked for.

    Args:
      x: float, any shape.
      axis: from 0.
    """
    return x.max(axis)


@largest.defjvp
def _at_winner(axis: int, values: tuple, changes: tuple) -> tuple[jax.Array, jax.Array]:
    (x,), (change,) = values, changes
    places = jax.lax.broadcasted_iota(jnp.int32, x.shape, axis)
    won = places == jnp.expand_dims(jax.lax.argmax(x, axis, jnp.int32), axis)
    return x.max(axis), jnp.where(won, change, 0).sum(axis)
