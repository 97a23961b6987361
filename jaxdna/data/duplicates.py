"""Sequences that occur more than once, on either strand: a leak where they are in two splits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.components import components
from jaxdna.data.records import Records
from jaxdna.data.sequences import UNIFORM, Codes, reverse_complement

_CHUNK_BASES = 2_000_000  # keeps the 8-byte products near 16 MB
_MULTIPLIER_SEED = 0xD0B1E


@dataclass(frozen=True)
class Duplicates:
    """Records that share their sequence, or its reverse complement, with another record.

    Attributes:
      repeated: records whose sequence an earlier record has.
      across: records with a copy in another split.
      conflicting: records with a copy of another class.
      examples: up to three pairs of record numbers in different splits, or of different classes.
    """

    repeated: int
    across: int
    conflicting: int
    examples: tuple[tuple[int, int], ...]

    def notes(self, ids: Sequence[str]) -> list[str]:
        """Returns one sentence for each kind that is there, for records with these ids."""
        shown = ", ".join(f"'{ids[one]}' and '{ids[other]}'" for one, other in self.examples)
        notes = []
        if self.across:
            notes.append(
                f"{self.across} sequences, or their reverse complements, are in two splits "
                f"({shown}): the score may be too good"
            )
        if self.conflicting:
            notes.append(f"{self.conflicting} sequences have a copy in another class ({shown})")
        return notes


def sequence_keys(records: Records) -> NDArray[np.uint64]:
    """Returns one number per sequence, the same for its reverse complement and for nothing else.

    Each strand's number is sum((code + 1) * m[i]) mod 2**64 with random odd m; the smaller of both
    is the key. Two sequences that differ have equal numbers with probability 2**-61 at most (codes
    differ by 5 at most, so by two factors 2 at most), and there are four pairs of strands: among a
    million sequences the chance of one false pair is about 10**-6.
    """
    lengths = records.lengths
    keys = np.empty(len(records), dtype=np.uint64)
    order = np.argsort(lengths, kind="stable")
    for same in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        length = int(lengths[same[0]]) if same.size else 0
        rows = max(1, _CHUNK_BASES // max(1, length))
        for first in range(0, same.size, rows):
            chosen = same[first : first + rows]
            keys[chosen] = _keys(records.codes, records.offsets[chosen], length)
    return keys


def same_sequences(keys: Sequence[NDArray[np.integer]]) -> NDArray[np.int64]:
    """Returns which records are the same by one key or another: int64 [records], equal for those.

    Args:
      keys: integer [records] each: of `sequence_keys`, of what the file says and of what is left
        of it once it is cropped; or groups of any kind, to be joined.
    """
    nodes, count = [], len(keys[0])
    for one in keys:
        nodes.append(count + np.unique(one, return_inverse=True)[1])
        count = int(nodes[-1].max(initial=count - 1)) + 1
    sequences = np.tile(np.arange(len(keys[0])), len(keys))
    return components(sequences, np.concatenate(nodes), count)[: len(keys[0])]


def find_duplicates(
    keys: NDArray[np.integer], split: NDArray[np.integer], labels: NDArray[np.integer]
) -> Duplicates:
    """Finds equal sequences.

    Args:
      keys: integer [records], of `sequence_keys` or `same_sequences`.
      split: integer [records], the split or fold of each.
      labels: integer [records], the classes.
    """
    _, family, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    members = np.argsort(family, kind="stable")  # family by family
    starts = np.cumsum(sizes) - sizes
    across = _differs(split[members], starts)
    conflicting = _differs(labels[members], starts)
    examples = []
    for mixed in np.flatnonzero(across | conflicting)[:3]:
        first, *rest = members[starts[mixed] : starts[mixed] + sizes[mixed]]
        other = next(i for i in rest if split[i] != split[first] or labels[i] != labels[first])
        examples.append((int(first), int(other)))
    return Duplicates(
        repeated=int(keys.size - sizes.size),
        across=int(sizes[across].sum()),
        conflicting=int(sizes[conflicting].sum()),
        examples=tuple(examples),
    )


def _differs(values: NDArray[np.integer], starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each run of `values` that begins at `starts` holds more than one value."""
    if not values.size:
        return np.zeros(0, dtype=bool)
    return np.minimum.reduceat(values, starts) != np.maximum.reduceat(values, starts)


def _keys(codes: Codes, starts: NDArray[np.int64], length: int) -> NDArray[np.uint64]:
    """Returns the keys of codes[start : start + length] for every start."""
    rng = np.random.default_rng([_MULTIPLIER_SEED, length])
    strands = np.zeros((2, starts.size), dtype=np.uint64)
    for first in range(0, length, _CHUNK_BASES):
        stop = min(first + _CHUNK_BASES, length)
        multipliers = rng.integers(0, 2**63, stop - first, dtype=np.uint64) * 2 + 1
        forward = codes[starts[:, None] + np.arange(first, stop)]
        other = codes[starts[:, None] + np.arange(length - stop, length - first)]
        for strand, part in zip(strands, (forward, reverse_complement(other)), strict=True):
            products = (np.minimum(part, UNIFORM).astype(np.uint64) + 1) * multipliers
            strand += products.sum(axis=1, dtype=np.uint64)
    return strands.min(axis=0)
