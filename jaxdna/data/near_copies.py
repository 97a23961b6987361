"""Sequences that share many of their k-mers, on either strand: homologues, mutants, shifted copies.

Each sequence has a sketch, those of its k-mers with the smallest hashes (bottom-s MinHash: Broder,
On the resemblance and containment of documents, 1997). Sequences that are alike have some of them
in common. Those are then compared by all of their k-mers: a sketch proposes, and never decides.
"""

import math

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.components import components
from jaxdna.data.sequences import UNKNOWN, Codes

_SKETCH = 32  # hashes of each sequence
_ROUNDS = 16  # in which the hashes are looked at, each with those that leave one remainder
_NEIGHBOURS = 4  # among all that have a hash in common, those with which each is compared
_CHUNK_KMERS = 2**17  # that are worked on at once, so that they stay in a core's cache
_SAMPLED = 1000  # sequences whose letters are counted
_MOST_BASES = 2**17  # of a longer sequence its middle stands for it
_LONGEST = 16  # bases of a k-mer, two bits each
_SEED = 0x51B5
_NONE = np.uint32(2**32 - 1)


def kmer_length(length: int) -> int:
    """Returns the k at which a k-mer of one random sequence is hardly in another one by chance.

    There are 4**k of them, and each sequence has `length` on either strand: 1 in 500 is.
    """
    return min(_long_enough(1000 * length, 0.25), _LONGEST)


def near_copies(codes: Codes, similarity: float) -> NDArray[np.int64]:
    """Finds families of sequences that are alike, directly or through others between them.

    Two sequences are alike if they have, with its number of times and on either strand, so large a
    share of the k-mers of the one that has fewer, and not so few that any two of so many random
    sequences are likely to (once in 1000 such sets). Time and memory grow with the number of bases
    and sequences, whatever they are: no sequence is compared with more than 256 others.

    Args:
      codes: uint8 [records, length]; a k-mer with an unknown base does not count.
      similarity: the share, above 0 and at most 1.

    Returns:
      int64 [records], equal for records of one family and numbered by their first records.
    """
    records = len(codes)
    excess = max(0, codes.shape[1] - _MOST_BASES) // 2
    codes = codes[:, excess : excess + _MOST_BASES]
    k = kmer_length(codes.shape[1])
    family = np.arange(records)
    if codes.shape[1] < k:
        return family
    # So long that chance alone makes no more than about one pair for each sequence.
    chance = _chance(codes)
    rare = _long_enough(2 * _SKETCH * codes.size, chance)
    sketch = _sketches(codes, min(rare, _LONGEST, codes.shape[1]))
    agreeing = 1 if rare <= _LONGEST else 2
    fewest = _long_enough(1000 * codes.size**2, chance) - k + 1
    refuted = np.empty(0, dtype=np.uint64)
    for one in range(_ROUNDS):
        first, second = _neighbours(sketch, one, family, agreeing)
        names = first.astype(np.uint64) << np.uint64(32) | second.astype(np.uint64)
        names, chosen = np.unique(names, return_index=True)
        new = ~np.isin(names, refuted)
        first, second = first[chosen[new]], second[chosen[new]]
        shared, number = _shared(codes, k, first, second)
        alike = shared >= np.maximum(similarity * number, fewest)
        refuted = np.concatenate([refuted, names[new][~alike]])
        # Families become one by the pairs among them.
        family = components(family[first[alike]], family[second[alike]], records)[family]
    return np.unique(family, return_inverse=True)[1].astype(np.int64)


def _long_enough(kmers: int, chance: float) -> int:
    """Returns a k at which so many k-mers are rare; two bases agree with probability `chance`."""
    return math.ceil(math.log(max(kmers, 4)) / -math.log(chance))


def _chance(codes: Codes) -> float:
    """Returns how probably two bases are the same, of either strand: 0.25 to 0.5 (or all alike)."""
    counts = np.bincount(codes[:: len(codes) // _SAMPLED + 1].reshape(-1), minlength=4)[:4]
    shares = (counts + counts[::-1] + 1) / (2 * counts.sum() + 4)
    return float((shares**2).sum())


def _sketches(codes: Codes, k: int) -> NDArray[np.uint32]:
    """Returns the smallest hashes of each sequence in order, uint32 [records, hashes].

    Where it has fewer k-mers that differ, the rest is `_NONE`.
    """
    size = min(_SKETCH, codes.shape[1] - k + 1)
    sketch = np.empty((len(codes), size), dtype=np.uint32)
    rows = max(1, _CHUNK_KMERS // codes.shape[1])
    for start in range(0, len(codes), rows):
        kmers, known = _kmers(codes[start : start + rows], k)
        hashes = _mix(kmers)
        hashes[~known] = _NONE
        part = np.sort(np.partition(hashes, size - 1, axis=1)[:, :size], axis=1)
        repeated = np.flatnonzero((part[:, 1:] == part[:, :-1]).any(axis=1))
        if repeated.size:
            whole = np.sort(hashes[repeated], axis=1)
            whole[:, 1:][whole[:, 1:] == whole[:, :-1]] = _NONE
            part[repeated] = np.sort(whole, axis=1)[:, :size]
        sketch[start : start + rows] = part
    return sketch


def _neighbours(
    sketch: NDArray[np.uint32], one: int, family: NDArray[np.int64], agreeing: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns pairs of two families that have a hash of round `one` in common, smaller first.

    Only those that have `agreeing` hashes in common at least.
    """
    records, values = [np.arange(0)], [sketch[:0, 0]]
    for start in range(0, len(sketch), _CHUNK_KMERS):  # the sketches of many are the most there is
        some = sketch[start : start + _CHUNK_KMERS]
        row, place = np.nonzero((some % _ROUNDS == one) & (some != _NONE))
        records.append(row + start)
        values.append(some[row, place])
    record, value = np.concatenate(records), np.concatenate(values)
    # Among many that have it, those with the same smallest hash stand side by side.
    order = np.lexsort((sketch[record, 0], value))
    record, value = record[order], value[order]
    found = []
    for apart in range(1, _NEIGHBOURS + 1):
        at = np.flatnonzero(value[:-apart] == value[apart:])
        a, b = record[at], record[at + apart]
        new = family[a] != family[b]
        a, b = a[new], b[new]
        if agreeing > 1:
            enough = _agreement(sketch, a, b) >= agreeing
            a, b = a[enough], b[enough]
        found.append(np.sort([a, b], axis=0))
    first, second = np.concatenate(found, axis=1)
    return first, second


def _agreement(
    sketch: NDArray[np.uint32], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Returns how many hashes two sequences have in common: int64 [pairs]."""
    parts = [np.empty(0, dtype=np.int64)]
    size = _CHUNK_KMERS // sketch.shape[1]
    for start in range(0, first.size, size):
        chosen = [one[start : start + size] for one in (first, second)]
        both = np.sort(np.concatenate([sketch[one] for one in chosen], axis=1), axis=1)
        same = (both[:, 1:] == both[:, :-1]) & (both[:, 1:] != _NONE)
        parts.append(np.count_nonzero(same, axis=1))
    return np.concatenate(parts)


def _shared(
    codes: Codes, k: int, first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns how many k-mers both have, and how many the one with fewer has: int64 [pairs]."""
    parts = [np.empty((2, 0), dtype=np.int64)]
    size = max(1, _CHUNK_KMERS // codes.shape[1])
    for start in range(0, first.size, size):
        sides = [one[start : start + size] for one in (first, second)]
        pairs = sides[0].size
        keys, numbers = [], []
        for side, chosen in enumerate(sides):
            kmers, valid = _kmers(codes[chosen], k)
            pair = np.broadcast_to(np.arange(pairs, dtype=np.uint64)[:, None], kmers.shape)[valid]
            keys.append(pair << np.uint64(33) | kmers[valid].astype(np.uint64) << np.uint64(1))
            keys[side] |= np.uint64(side)
            numbers.append(valid.sum(axis=1))
        both = np.sort(np.concatenate(keys))
        kmer = both >> np.uint64(1)
        begins = np.flatnonzero(np.diff(kmer, prepend=~kmer[:1]))
        total = np.diff(np.append(begins, both.size))
        of_second = np.add.reduceat((both & np.uint64(1)).astype(np.int64), begins)
        common = np.minimum(of_second, total - of_second)
        pair_of = (kmer[begins] >> np.uint64(32)).astype(np.int64)
        counted = np.bincount(pair_of, weights=common, minlength=pairs).astype(np.int64)
        parts.append(np.stack([counted, np.minimum(*numbers)]))
    shared, number = np.concatenate(parts, axis=1)
    return shared, number


def _kmers(codes: Codes, k: int) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """Returns each window's k-mer, the smaller number of both strands, and whether it is known.

    Args:
      codes: uint8 [rows, length].
      k: bases, 16 at most.
    """
    forward = _joined((codes & 3).astype(np.uint32), k, first_is_high=True)
    reverse = _joined((3 - (codes & 3)).astype(np.uint32), k, first_is_high=False)
    kmers, unknown = np.minimum(forward, reverse), codes >= UNKNOWN
    if not unknown.any():
        return kmers, np.ones(kmers.shape, dtype=bool)
    before = np.pad(np.cumsum(unknown, axis=1, dtype=np.int32), ((0, 0), (1, 0)))
    return kmers, before[:, k:] == before[:, :-k]


def _joined(digits: NDArray[np.uint32], k: int, first_is_high: bool) -> NDArray[np.uint32]:
    """Returns the numbers of base 4 that k digits make from each place on: [rows, length - k + 1].

    Numbers of 1, 2, 4, 8 and 16 digits come by doubling, and k digits are some of these in a row.
    """
    windows = digits.shape[1] - k + 1
    whole = np.zeros((len(digits), windows), dtype=np.uint32)
    size, done = 1, 0
    while True:
        if k & size:
            shift = 2 * (k - done - size if first_is_high else done)
            whole |= digits[:, done : done + windows] << np.uint32(shift)
            done += size
        if done == k:
            return whole
        left, right = digits[:, :-size], digits[:, size:]
        high, low = (left, right) if first_is_high else (right, left)
        digits, size = high << np.uint32(2 * size) | low, 2 * size


def _mix(numbers: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Scatters numbers, one to one: the finalizer of MurmurHash3 (Appleby, public domain)."""
    numbers = (numbers ^ numbers >> np.uint32(16)) * np.uint32(0x85EBCA6B)
    numbers = (numbers ^ numbers >> np.uint32(13)) * np.uint32(0xC2B2AE35)
    return numbers ^ numbers >> np.uint32(16)
