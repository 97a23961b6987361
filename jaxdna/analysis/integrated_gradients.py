"""Integrated gradients: the mean of a network's gradients on the straight line from a reference.

Source: Sundararajan, Taly and Yan 2017, arXiv 1703.01365, with steps where they are needed. A
network of rectifiers is full of bends, and a normalisation puts nearly all of the change beside a
reference without contrast, such as zeros: even steps, and those of Gauss, miss both. What the
gradients of a piece of the line must add up to is known from its ends, so the pieces that miss it
most are cut into three.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

_EVEN = 8  # one in so many pieces is there before any is cut
_ROUNDS = 64  # of cutting; with more pieces, several in each


def mean_gradient(
    output: Callable[[jax.Array], jax.Array], sequence: jax.Array, reference: jax.Array, steps: int
) -> jax.Array:
    """Returns the mean gradient between two inputs: float [outputs, *input].

    Args:
      output: maps an array to [outputs].
      sequence: float, any shape.
      reference: float, of the same shape.
      steps: gradients that the mean is made of, each of the middle of a piece of the line.
    """
    step = sequence - reference

    @jax.vmap
    def values(way: jax.Array) -> jax.Array:
        return output(reference + way * step)

    @jax.vmap
    def gradients(way: jax.Array) -> jax.Array:
        return jax.jacrev(output)(reference + way * step)

    cuts = (steps - -(-steps // _EVEN)) // 2
    each = -(-cuts // _ROUNDS)
    rounds = cuts // max(1, each)
    even = steps - 2 * each * rounds

    def cut(number: jax.Array, pieces: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        left, right, low, high, slopes = pieces
        found = (right - left)[:, None] * jnp.tensordot(slopes, step, step.ndim)
        worst = jax.lax.top_k(abs(found - (high - low)).max(axis=1), each)[1]
        ends = [edges[worst] for edges in pieces[:4]]
        thirds = [((3 - i) * ends[0] + i * ends[1]) / 3 for i in range(4)]
        inner = values(jnp.concatenate(thirds[1:3]))
        heights = [ends[2], inner[:each], inner[each:], ends[3]]
        # The middle third keeps its gradient and its place; the others take two that are free.
        free = even + 2 * each * number + jnp.arange(2 * each)
        places = jnp.concatenate([worst, free])
        made = [
            jnp.concatenate([those[i] for i in order])
            for those in (thirds, heights)
            for order in ((1, 0, 2), (2, 1, 3))
        ]
        left, right, low, high = (
            edges.at[places].set(own) for edges, own in zip(pieces[:4], made, strict=True)
        )
        outer = gradients((left[free] + right[free]) / 2)
        return left, right, low, high, slopes.at[free].set(outer)

    edges = jnp.linspace(0, 1, even + 1)
    at = values(edges)
    begun = edges[:-1], edges[1:], at[:-1], at[1:], gradients((edges[:-1] + edges[1:]) / 2)
    left, right, _, _, slopes = jax.lax.fori_loop(0, rounds, cut, _with_room(begun, steps))
    return jnp.tensordot(right - left, slopes, 1)


def _with_room(arrays: tuple[jax.Array, ...], count: int) -> tuple[jax.Array, ...]:
    """Adds places, of pieces without length, up to `count`."""
    room = count - len(arrays[0])
    return tuple(jnp.pad(x, ((0, room), *((0, 0) for _ in x.shape[1:]))) for x in arrays)
