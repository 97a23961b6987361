"""Shuffled sequences that keep every dinucleotide: negatives with the composition of their peaks.

Source: Altschul and Erickson (1985), Significance of nucleotide sequence alignments: a method for
random sequence permutation that preserves dinucleotide and codon usage, Mol. Biol. Evol. 2:526-538.
A sequence is a path that uses each of its dinucleotides as an edge once (Euler). A shuffle is
another such path, drawn like this: draw for each letter the edge by which the path leaves it for
the last time, such that these edges lead from every letter to the final one (a tree); permute the
other edges of each letter; walk. Drawn like this, every sequence with the same dinucleotides and
ends is equally likely.
"""

from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.records import Records, middles
from jaxdna.data.sequences import UNIFORM, UNKNOWN, Codes

_BASES = UNKNOWN  # letters of a sequence without ambiguous ones
_ALL = UNIFORM + 1
_NO_LETTER = 255
_CHUNK_LETTERS = 4_000_000  # keeps the sort keys near 32 MB
_CHUNK_ROWS = 8_192  # and the weights of all trees of six letters near 85 MB


def dinucleotide_shuffle(codes: Codes, rng: np.random.Generator) -> Codes:
    """Shuffles sequences of one length.

    The first and the last letter stay. `UNKNOWN` and `UNIFORM` count as letters of their own, so
    their dinucleotides are kept too; pad after shuffling, not before.

    Args:
      codes: uint8 [sequences, length].
      rng: the source of chance; the same state gives the same shuffles.

    Returns:
      uint8 [sequences, length], in each row exactly the dinucleotides of that row of `codes`.
    """
    sequences, length = codes.shape
    shuffled = codes.copy()
    if length > 3:  # shorter ones have no other order
        rows = _rows_at_once(length)
        for first in range(0, sequences, rows):
            shuffled[first : first + rows] = _shuffle(codes[first : first + rows], rng)
    return shuffled


def shuffle_records(
    records: Records, rng: np.random.Generator, shuffled: Codes, most: int | None = None
) -> None:
    """Shuffles sequences of any lengths; see `dinucleotide_shuffle`.

    Args:
      records: any number of them; memory does not grow with it.
      rng: the source of chance.
      shuffled: uint8 [bases], filled with the shuffles, in the places of their sequences.
      most: bases of the middle of a longer record that are shuffled, those that are kept when it
        is cropped; what lies beside them is left as it is in `shuffled`. None: all bases.
    """
    longest = int(records.lengths.max(initial=0))
    starts, lengths = middles(records, longest if most is None else most)
    for length in np.unique(lengths).tolist():
        chosen = starts[lengths == length]
        rows = _rows_at_once(length)
        for first in range(0, chosen.size, rows):
            places = chosen[first : first + rows, None] + np.arange(length)
            shuffled[places] = dinucleotide_shuffle(records.codes[places], rng)


def _rows_at_once(length: int) -> int:
    return min(_CHUNK_ROWS, max(1, _CHUNK_LETTERS // max(1, length)))


def _shuffle(codes: Codes, rng: np.random.Generator) -> Codes:
    letters = _BASES if codes.max() < _BASES else _ALL
    sequences, length = codes.shape
    rows = np.arange(sequences)
    sources, targets = codes[:, :-1], codes[:, 1:]
    last_target = _draw_trees(_count_edges(codes, letters), codes[:, -1], rng)

    # Sorting by the keys puts the edges of each letter together, in a random order, with the edge
    # of the last exit (any of those to that target: they are alike) at the end.
    keys = 2 * sources + rng.random(sources.shape)
    for letter in range(letters):
        fitting = (sources == letter) & (targets == last_target[:, letter, None])
        exits = np.flatnonzero(fitting.any(axis=1))
        keys[exits, fitting[exits].argmax(axis=1)] = 2 * letter + 1.5
    order = np.argsort(keys, axis=1)
    targets = np.take_along_axis(targets, order, axis=1)
    departures = np.stack([(sources == letter).sum(axis=1) for letter in range(letters)], axis=1)
    following = np.cumsum(departures, axis=1) - departures  # next unused edge of each letter

    shuffled = np.empty_like(codes)
    shuffled[:, 0] = present = codes[:, 0]
    for position in range(1, length):
        edge = following[rows, present]
        following[rows, present] += 1
        shuffled[:, position] = present = targets[rows, edge]
    return shuffled


def _count_edges(codes: Codes, letters: int) -> NDArray[np.int64]:
    """Counts dinucleotides: int64 [sequences, letters, letters]."""
    pairs = letters * letters
    kind = codes[:, :-1].astype(np.int64) * letters + codes[:, 1:]
    kind += np.arange(len(codes))[:, None] * pairs
    return np.bincount(kind.ravel(), minlength=len(codes) * pairs).reshape(-1, letters, letters)


def _draw_trees(
    edges: NDArray[np.int64], roots: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Draws for each letter the target of its last exit, each tree as often as it has edges.

    With so few letters all trees can be listed, so no draw is ever rejected.

    Returns:
      uint8 [sequences, letters]; `_NO_LETTER` for the root, where the path ends: its exits are
      all alike.
    """
    sequences, letters, _ = edges.shape
    targets = np.zeros((sequences, letters), dtype=np.uint8)
    for root in np.unique(roots):
        rows = np.flatnonzero(roots == root)
        counts = edges[rows].astype(np.float64)
        absent = counts.sum(axis=2) == 0
        counts[..., root] += absent  # one edge to the root: changes no weight of the other letters
        trees = _trees(letters, int(root))
        weights = np.ones((rows.size, len(trees)))
        for letter in range(letters):
            if letter != root:
                weights *= counts[:, letter, trees[:, letter]]
        cumulative = np.cumsum(weights, axis=1)
        point = rng.random(rows.size) * cumulative[:, -1]
        targets[rows] = trees[(cumulative[:, :-1] <= point[:, None]).sum(axis=1)]
        targets[rows, root] = _NO_LETTER
    return targets


@cache
def _trees(letters: int, root: int) -> NDArray[np.uint8]:
    """Lists every way to give each letter a successor such that all lead to `root`.

    Returns:
      uint8 [letters ** (letters - 2), letters] (Cayley's formula), each row one tree; the root's
      entry is the root.
    """
    others = [
        [root] if i == root else [j for j in range(letters) if j != i] for i in range(letters)
    ]
    candidates = np.array(list(product(*others)), dtype=np.uint8)
    reached = candidates
    for _ in range(letters):
        reached = np.take_along_axis(candidates, reached, axis=1)
    return candidates[(reached == root).all(axis=1)]
