"""What attribution compares a sequence with: references that have nothing to say."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.sequences import ONE_HOT_ROWS, UNKNOWN, Codes
from jaxdna.data.shuffle import dinucleotide_shuffle


def shuffles(codes: Codes, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Shuffles that keep every dinucleotide; letters that are no base stay where they are."""
    shuffled = np.repeat(codes[:, None], count, axis=1)
    whole = (codes < UNKNOWN).all(axis=1)
    if whole.any():
        rows = shuffled[whole].reshape(-1, codes.shape[1])
        shuffled[whole] = dinucleotide_shuffle(rows, rng).reshape(-1, count, codes.shape[1])
    for row in np.flatnonzero(~whole):
        known = codes[row] < UNKNOWN
        shuffled[row][:, known] = dinucleotide_shuffle(shuffled[row][:, known], rng)
    return ONE_HOT_ROWS[shuffled]


def zeros(codes: Codes, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """No base anywhere: an empty column in each place."""
    return np.zeros((len(codes), 1, codes.shape[1], 4), np.float32)


def background(codes: Codes, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """In each place the shares of the four bases in the sequence itself."""
    counts = (codes[..., None] == np.arange(4)).sum(axis=1, dtype=np.float32)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return np.broadcast_to(shares[:, None, None], (len(codes), 1, codes.shape[1], 4))


KINDS: dict[str, Callable[[Codes, int, np.random.Generator], NDArray[np.float32]]] = {
    "dinucleotide_shuffle": shuffles,
    "zeros": zeros,
    "background": background,
}


def make_references(
    kind: str, codes: Codes, count: int, rng: np.random.Generator, together: int = 1
) -> NDArray[np.float32]:
    """Returns the references of some sequences in one-hot form.

    Where a sequence has no known base its references are as it is, so that this place adds nothing.

    Args:
      kind: a key of `KINDS`.
      codes: uint8 [sequences, length].
      count: how many each has, where they are drawn; else there is one.
      rng: the source of chance.
      together: how many that follow one another have the references of their first: 2 for the
        alleles of a variant. Their scores then differ by the alleles, and not by chance.

    Returns:
      float32 [sequences, references, length, 4].
    """
    made = np.repeat(KINDS[kind](codes[::together], count, rng), together, axis=0)
    known = (codes < UNKNOWN)[:, None, :, None]
    return np.where(known, made, ONE_HOT_ROWS[codes][:, None])
