"""Unbound stretches of a genome with the GC content of the bound ones."""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from jaxdna.data.genome import Genome
from jaxdna.data.intervals import Intervals, Windows
from jaxdna.data.sequences import UNKNOWN, Codes
from jaxdna.errors import UserError

GC_TOLERANCE = 0.02  # matches that differ by more are counted as loose
_ROUNDS = 24
_STRICT_ROUNDS = 12  # after these the tolerance doubles every third round
_DRAWS_PER_WINDOW = 10
_CHUNK_BASES = 4_000_000


@dataclass(frozen=True)
class GcMatched:
    """Windows that avoid the positives and have their GC content.

    Attributes:
      windows: on the forward strand, each on the chromosome of its partner.
      partners: int64 [negatives], the positive window that each one matches.
      loose: negatives whose GC fraction differs by more than `GC_TOLERANCE`.
      missing: positives for which the chromosome has no place left.
    """

    windows: Windows
    partners: NDArray[np.int64]
    loose: int
    missing: int

    def notes(self) -> list[str]:
        """Returns one sentence for each thing that a person should know."""
        total = len(self.partners) + self.missing
        notes = []
        if self.loose:
            notes.append(
                f"{self.loose} of {total} negatives differ from their positives by more than "
                f"{GC_TOLERANCE:g} in GC"
            )
        if self.missing:
            notes.append(
                f"{self.missing} of {total} positives have no negative, since none with their GC "
                "content was found"
            )
        return notes


def gc_fraction(codes: Codes) -> NDArray[np.float64]:
    """Returns the share of C and G among the known bases of each row; 0 where none is known.

    Args:
      codes: uint8 [sequences, length], in memory or memory-mapped.
    """
    fractions = np.empty(len(codes))
    rows = max(1, _CHUNK_BASES // max(1, codes.shape[1]))
    for first in range(0, len(codes), rows):
        part = codes[first : first + rows]
        known = np.count_nonzero(part < UNKNOWN, axis=1)
        rich = np.count_nonzero((part == 1) | (part == 2), axis=1)
        fractions[first : first + rows] = rich / np.maximum(known, 1)
    return fractions


def gc_matched(
    positives: Windows, wanted: NDArray[np.float64], genome: Genome, seed: int, avoid: Intervals
) -> GcMatched:
    """Draws one negative for each positive, on the same chromosome and without N.

    Places are drawn at random and matched within bins of GC. The same chromosome, so that a split
    by chromosome keeps the classes in balance.

    Args:
      positives: the windows to match; the negatives overlap none of them.
      wanted: float64 [positives], their GC fractions.
      genome: where to draw from.
      seed: the same seed gives the same negatives.
      avoid: intervals that no negative overlaps either, such as all the peaks.

    Raises:
      UserError: not a single negative can be found.
    """
    length = positives.length
    partners, starts, fractions = [], [], []
    for name in np.unique(positives.chromosomes).tolist():
        rows = np.flatnonzero(positives.chromosomes == name)
        near = avoid.chromosomes == name
        taken = _Taken(
            np.concatenate([positives.starts[rows], avoid.starts[near]]),
            np.concatenate([positives.starts[rows] + length, avoid.stops[near]]),
        )
        rng = np.random.default_rng([seed, 0x6C, *name.encode()])
        bases = genome.codes(name, 0, genome.lengths[name])
        matched, places, found = _match(wanted[rows], bases, length, taken, rng)
        partners.append(rows[matched])
        starts.append(places)
        fractions.append(found)
    order = np.argsort(np.concatenate(partners), kind="stable")
    partner, start = np.concatenate(partners)[order], np.concatenate(starts)[order]
    if not partner.size:
        raise UserError(
            f"{genome.path} has no room for a GC-matched negative of {length} bases; "
            "legal: --config.data.negatives=dinucleotide_shuffle, or a BED file"
        )
    chromosomes = positives.chromosomes[partner]
    ids = [
        f"{name}:{first}-{first + length}"
        for name, first in zip(chromosomes.tolist(), start.tolist(), strict=True)
    ]
    windows = Windows(chromosomes, start, np.zeros(start.size, dtype=bool), ids, length)
    difference = np.abs(np.concatenate(fractions)[order] - wanted[partner])
    loose = int((difference > GC_TOLERANCE).sum())
    return GcMatched(windows, partner, loose, len(wanted) - partner.size)


class _Taken:
    """Stretches of one chromosome that are not free."""

    def __init__(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> None:
        order = np.argsort(starts)
        self.starts = starts[order]
        # The largest end so far: whatever begins before x overlaps it if this exceeds x.
        self.reach = np.concatenate([[-1], np.maximum.accumulate(stops[order])])

    def overlaps(self, places: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
        """Whether [place, place + length) touches one of them: bool [places]."""
        return self.reach[np.searchsorted(self.starts, places + length)] > places


def _match(
    wanted: NDArray[np.float64],
    bases: Codes,
    length: int,
    taken: _Taken,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Returns which of `wanted` (GC fractions) got a place, its first base and its GC fraction."""
    windows = sliding_window_view(bases, length)
    open_rows = np.arange(wanted.size)
    matched, chosen, measured = [open_rows[:0]], [open_rows[:0]], [wanted[:0]]
    for attempt in range(_ROUNDS):
        if not open_rows.size:
            break
        draws = rng.integers(0, len(windows), _DRAWS_PER_WINDOW * open_rows.size + 100)
        draws = np.setdiff1d(draws, np.concatenate(chosen))
        draws = rng.permutation(draws[~taken.overlaps(draws, length)])
        fractions, clean = _measure(windows, draws)
        draws, fractions = draws[clean], fractions[clean]
        width = GC_TOLERANCE * 2.0 ** (max(0, attempt - _STRICT_ROUNDS) // 3)
        # Pair the k-th open positive of each bin of GC with the k-th free place of that bin.
        one = _bin_and_rank(wanted[open_rows], width)
        other = _bin_and_rank(fractions, width)
        _, found, place = np.intersect1d(one, other, assume_unique=True, return_indices=True)
        matched.append(open_rows[found])
        chosen.append(draws[place])
        measured.append(fractions[place])
        open_rows = np.delete(open_rows, found)
    return np.concatenate(matched), np.concatenate(chosen), np.concatenate(measured)


def _measure(
    windows: NDArray[np.uint8], places: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Returns the GC fraction at each place, and whether all its bases are known."""
    fractions = np.empty(places.size)
    clean = np.empty(places.size, dtype=bool)
    rows = max(1, _CHUNK_BASES // windows.shape[1])
    for first in range(0, places.size, rows):
        part = slice(first, first + rows)
        codes = windows[places[part]]
        fractions[part] = gc_fraction(codes)
        clean[part] = (codes < UNKNOWN).all(axis=1)
    return fractions, clean


def _bin_and_rank(fractions: NDArray[np.float64], width: float) -> NDArray[np.int64]:
    """Returns one number per fraction: its bin, and how many of the bin stand before it."""
    bins = np.floor(fractions / width).astype(np.int64)
    order = np.argsort(bins, kind="stable")
    _, first, sizes = np.unique(bins[order], return_index=True, return_counts=True)
    ranks = np.empty(bins.size, dtype=np.int64)
    ranks[order] = np.arange(bins.size) - np.repeat(first, sizes)
    return bins * 2**40 + ranks
