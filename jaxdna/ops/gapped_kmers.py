"""Weights of gapped k-mers, added up over all windows of a sequence.

A gapped k-mer is k letters at chosen places of a window, whatever stands between them (Ghandi, Lee,
Mohammad-Noori and Beer 2014, Enhanced regulatory sequence prediction using gapped k-mer features,
PLoS Computational Biology 10:e1003711). A pattern is such a choice of places. Each of its 4^k words
has a weight for every output.
"""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxdna.ops.one_hot import one_hot

Pattern = tuple[int, ...]
# The weights of a sequence have a norm of 1 before it. A step of 0.01 on the mean gradient of 64
# examples then moves the score of each of them by 64**2 * 0.01 / 64 = 0.64 times its error.
SCALE = 64.0


def gap_patterns(span: int, letters: int, most: int) -> list[Pattern]:
    """Returns choices of `letters` of `span` places, among them the first and the last.

    Args:
      span: bases of a window.
      letters: 2 to `span`.
      most: how many; where there are more, every so many of their alphabetical order.
    """
    every = list(itertools.combinations(range(1, span - 1), letters - 2))
    count = min(most, len(every))
    return [(0, *every[i * len(every) // count], span - 1) for i in range(count)]


def kmer_scores(x: jax.Array, table: jax.Array, patterns: Sequence[Pattern]) -> jax.Array:
    """Adds up all windows' words' weights, times 64 over the root of how many words there are.

    Where words are unlike each other, that root is the norm of their counts, by which a kernel of
    gapped k-mers divides. A word in which a letter is unknown is none.

    Args:
      x: uint8 codes [batch, length], or their one-hot form [batch, length, 4], by which attribution
        takes derivatives.
      table: float [patterns, 4**k, outputs], a word's letters being digits, the first the highest.
      patterns: as many, of k places each.

    Returns:
      float32 [batch, outputs].
    """
    windows = x.shape[1] - patterns[0][-1]
    if jnp.issubdtype(x.dtype, jnp.floating):
        total = _products(x, table, patterns, windows, loop=False)
    else:
        # On an accelerator a matrix product is faster than a gather, and adds in a fixed order.
        total = jax.lax.platform_dependent(
            x,
            cpu=lambda x: _looked_up(x, table, patterns, windows),
            default=lambda x: _products(
                one_hot(x, table.dtype), table, patterns, windows, loop=True
            ),
        )
    return SCALE * total / math.sqrt(windows * len(patterns))


def _looked_up(
    codes: jax.Array, table: jax.Array, patterns: Sequence[Pattern], windows: int
) -> jax.Array:
    count, words, outputs = table.shape
    # A word's number is the sum of its digits: a product of letters with powers of four, exact in
    # float32 below 2**24. An unknown letter makes it larger than any word's.
    powers = np.zeros((count, patterns[0][-1] + 1), np.float32)
    for row, pattern in zip(powers, patterns, strict=True):
        row[list(pattern)] = 4.0 ** np.arange(len(pattern))[::-1]
    digits = jnp.where(codes > 3, np.float32(words), codes.astype(jnp.float32))
    letters = jnp.stack([digits[:, at : at + windows] for at in range(powers.shape[1])])
    numbers = jnp.einsum("ps,sbw->pbw", powers, letters)
    # Pattern by pattern: a pattern's own weights stay in a core's cache.
    first = words * np.arange(count, dtype=np.int32)[:, None, None]
    rows = jnp.where(numbers < words, numbers.astype(jnp.int32) + first, count * words)
    found = jnp.take(table.reshape(-1, outputs), rows, axis=0, mode="fill", fill_value=0)
    return found.astype(jnp.float32).sum(axis=(0, 2))


def _products(
    x: jax.Array, table: jax.Array, patterns: Sequence[Pattern], windows: int, loop: bool
) -> jax.Array:
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

    def add(
        total: jax.Array, each: tuple[jax.Array | NDArray, jax.Array]
    ) -> tuple[jax.Array, None]:
        places, weights = each
        first, last = words(places[: letters // 2]), words(places[letters // 2 :])
        by_last = first @ weights.reshape(first.shape[2], -1)
        by_last = by_last.reshape(*last.shape, outputs).astype(jnp.float32)
        return total + (by_last * last[..., None]).sum(axis=(1, 2)), None

    total, each = jnp.zeros((x.shape[0], outputs), jnp.float32), np.array(patterns)
    if loop:
        return jax.lax.scan(add, total, (jnp.asarray(each), table))[0]
    for pattern in zip(each, table, strict=True):
        total, _ = add(total, pattern)
    return total
