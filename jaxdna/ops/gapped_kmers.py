"""Weights of gapped k-mers, added up over all windows of a sequence.

A gapped k-mer is k letters at chosen places of a window, whatever stands between them (Ghandi, Lee,
Mohammad-Noori and Beer 2014, Enhanced regulatory sequence prediction using gapped k-mer features,
PLoS Computational Biology 10:e1003711). A pattern is such a choice of places. Each of its 4^k words
has a weight for every output.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxdna.ops.one_hot import one_hot

Pattern = tuple[int, ...]
Sums = tuple[jax.Array, jax.Array]  # of weights [batch, outputs], of squared counts [batch]
# The counts of a sequence have a norm of 1 before it. A step of 0.01 on the mean gradient of 64
# examples then moves the score of each of them by 96**2 * 0.01 / 64 = 1.44 times its error.
SCALE = 96.0


def gap_patterns(span: int, letters: int, most: int) -> list[Pattern]:
    """Returns choices of `letters` of `span` places, of which the first is always one.

    Others would be the same words, read some places further on.

    Args:
      span: bases of a window.
      letters: 2 to `span`.
      most: how many; where there are more, every so many of their alphabetical order.
    """
    every = list(itertools.combinations(range(1, span), letters - 1))
    count = min(most, len(every))
    return [(0, *every[i * len(every) // count]) for i in range(count)]


def kmer_scores(x: jax.Array, table: jax.Array, patterns: Sequence[Pattern]) -> jax.Array:
    """Adds up all windows' words' weights, times a constant over the norm of the words' counts.

    A kernel of gapped k-mers divides by that norm (Ghandi et al. 2014, equation 2): a sequence
    whose words come back, such as a repeat, would otherwise count as their square. The norm is
    taken from four of the patterns. A word in which a letter is unknown is none.

    Args:
      x: uint8 codes [batch, length], or their one-hot form [batch, length, 4], by which attribution
        takes derivatives.
      table: float [patterns, 4**k, outputs], a word's letters being digits, the first the highest.
      patterns: as many, of k places each.

    Returns:
      float32 [batch, outputs].
    """
    windows = x.shape[1] - _reach(patterns)
    if jnp.issubdtype(x.dtype, jnp.floating):
        total, squares = _products(x, table, patterns, windows, loop=False)
    else:
        # On an accelerator a matrix product is faster than a gather, and adds in a fixed order.
        total, squares = jax.lax.platform_dependent(
            x,
            cpu=lambda x: _looked_up(x, table, patterns, windows),
            default=lambda x: _products(
                one_hot(x, table.dtype), table, patterns, windows, loop=True
            ),
        )
    share = len(patterns) / _in_norm(len(patterns)).sum()
    return SCALE * total / jnp.sqrt(jnp.maximum(share * squares, 1))[:, None]


def _reach(patterns: Sequence[Pattern]) -> int:
    """The furthest place of any pattern."""
    return max(pattern[-1] for pattern in patterns)


def _in_norm(patterns: int) -> NDArray[np.bool_]:
    """Which patterns' counts make the norm, bool [patterns]: at most four, evenly spread."""
    return np.arange(patterns) % -(-patterns // 4) == 0


def _looked_up(
    codes: jax.Array, table: jax.Array, patterns: Sequence[Pattern], windows: int
) -> Sums:
    count, words, outputs = table.shape
    # A word's number is the sum of its digits: a product of letters with powers of four, exact in
    # float32 below 2**24. An unknown letter makes it larger than any word's.
    powers = np.zeros((count, _reach(patterns) + 1), np.float32)
    for row, pattern in zip(powers, patterns, strict=True):
        row[list(pattern)] = 4.0 ** np.arange(len(pattern))[::-1]
    digits = jnp.where(codes > 3, np.float32(words), codes.astype(jnp.float32))
    letters = jnp.stack([digits[:, at : at + windows] for at in range(powers.shape[1])])
    numbers = jnp.einsum("ps,sbw->pbw", powers, letters).astype(jnp.int32)
    # Pattern by pattern: a pattern's own weights stay in a core's cache.
    first = words * np.arange(count, dtype=np.int32)[:, None, None]
    rows = jnp.where(numbers < words, numbers + first, count * words)
    found = jnp.take(table.reshape(-1, outputs), rows, axis=0, mode="fill", fill_value=0)
    # In order, the r-th of equal words adds 2 r + 1: those that are there n times n**2. XLA sorts
    # integers in a quarter of the time of floats, which may be NaN.
    each = jnp.sort(numbers[_in_norm(count)], axis=2)
    place = jnp.arange(windows)
    begins = jnp.pad(
        each[..., 1:] != each[..., :-1], ((0, 0), (0, 0), (1, 0)), constant_values=True
    )
    rank = place - jax.lax.cummax(jnp.where(begins, place, 0), axis=2)
    squares = jnp.where(each < words, 2 * rank + 1, 0).sum(axis=(0, 2))
    return found.astype(jnp.float32).sum(axis=(0, 2)), squares.astype(jnp.float32)


def _products(
    x: jax.Array, table: jax.Array, patterns: Sequence[Pattern], windows: int, loop: bool
) -> Sums:
    # In a loop a pattern need not be compiled for itself; DeepLIFT has no rule for one.
    # What all four letters share tells nothing of the base: an unknown letter has no word either
    # where it is 0.25 of each.
    x = x - x.min(axis=-1, keepdims=True)
    letters, outputs = len(patterns[0]), table.shape[2]

    def words(places: jax.Array | NDArray) -> jax.Array:
        """Which word stands at the places of each window: [batch, windows, 4**places]."""
        each = jnp.ones((), x.dtype)
        for place in places:
            letter = jax.lax.dynamic_slice_in_dim(x, place, windows, axis=1)
            each = (each[..., None] * letter[..., None, :]).reshape(*letter.shape[:2], -1)
        return each

    def add(sums: Sums, each: tuple[Any, Any, Any]) -> tuple[Sums, None]:
        places, weights, in_norm = each
        first, last = words(places[: letters // 2]), words(places[letters // 2 :])
        counts = jnp.einsum("bwi,bwj->bij", first, last, preferred_element_type=jnp.float32)
        counts = counts.reshape(x.shape[0], -1)
        total = sums[0] + counts @ weights.astype(jnp.float32)
        return (total, sums[1] + in_norm * (counts * counts).sum(axis=1)), None

    sums = jnp.zeros((x.shape[0], outputs), jnp.float32), jnp.zeros(x.shape[0], jnp.float32)
    each = np.array(patterns), table, _in_norm(len(patterns)).astype(np.float32)
    if loop:
        return jax.lax.scan(add, sums, jax.tree.map(jnp.asarray, each))[0]
    for pattern in zip(*each, strict=True):
        sums, _ = add(sums, pattern)
    return sums
