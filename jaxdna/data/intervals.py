"""BED and narrowPeak files, and the windows of a genome that they name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.genome import Genome
from jaxdna.data.sequences import UNKNOWN, Codes, reverse_complement
from jaxdna.data.streams import display, read_lines
from jaxdna.errors import UserError

_MAX_POSITION = 2**48  # far beyond any genome, and no sum of positions overflows
_NARROW_PEAK_COLUMNS = 10  # BED12 has a tenth column too, which is no summit


@dataclass(frozen=True)
class Intervals:
    """Rows of a BED file, in order; positions count from 0, stops are excluded.

    Attributes:
      chromosomes: text [rows].
      starts: int64 [rows].
      stops: int64 [rows].
      centers: int64 [rows], the summit, or the midpoint where there is none.
      reverse: bool [rows], whether the strand is `-`.
      ids: the name of column 4, or `chr1:100-200`.
    """

    chromosomes: NDArray[np.str_]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    centers: NDArray[np.int64]
    reverse: NDArray[np.bool_]
    ids: list[str]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Windows:
    """Stretches of one length, read from a genome.

    Attributes:
      codes: uint8 [windows, length], reverse-complemented where the strand is `-`.
      chromosomes: text [windows].
      starts: int64 [windows], first base on the forward strand, from 0.
      reverse: bool [windows].
      rows: int64 [windows], which interval each window belongs to.
      dropped: intervals whose window would leave its chromosome.
      unknown: windows without a single known base.
    """

    codes: Codes
    chromosomes: NDArray[np.str_]
    starts: NDArray[np.int64]
    reverse: NDArray[np.bool_]
    rows: NDArray[np.int64]
    dropped: int
    unknown: int

    def notes(self) -> list[str]:
        """Returns one sentence for each thing that a person should know."""
        total, length = len(self.rows) + self.dropped, self.codes.shape[1]
        notes = []
        if self.dropped:
            notes.append(
                f"{self.dropped} of {total} windows of {length} bases leave their chromosome"
                " (dropped)"
            )
        if self.unknown:
            notes.append(f"{self.unknown} of {total} windows are all N")
        return notes


def read_intervals(path: str | Path) -> Intervals:
    """Reads BED3 to BED12 or narrowPeak, plain or gzipped, or `-` for stdin.

    Comment, `track` and `browser` lines are passed over. With exactly ten columns the tenth is
    narrowPeak's summit, counted from the start, or -1 for none.

    Raises:
      UserError: a row is not BED; the sentence has its line.
    """
    chromosomes, names = [], []
    rows = []
    for number, line in read_lines(path):
        if not line.strip() or line.startswith(("#", "track", "browser")):
            continue
        fields = line.split("\t") if "\t" in line else line.split()
        try:
            start, stop, center, reverse = _parse(fields)
        except ValueError as error:
            raise UserError(
                f"{display(path)}, line {number}: {error}; legal: BED, that is chromosome, start "
                "(from 0) and end, optionally name, score, strand (+ - .)"
            ) from None
        name = fields[3] if len(fields) > 3 else "."
        chromosomes.append(fields[0])
        names.append(f"{fields[0]}:{start}-{stop}" if name in (".", "") else name)
        rows.append((start, stop, center, reverse))
    if not rows:
        raise UserError(f"{display(path)} holds no interval; legal: BED with at least one row")
    table = np.array(rows, dtype=np.int64)
    return Intervals(
        np.array(chromosomes), table[:, 0], table[:, 1], table[:, 2], table[:, 3] == 1, names
    )


def read_windows(intervals: Intervals, genome: Genome, length: int, source: str) -> Windows:
    """Reads one window of `length` bases around each interval's center.

    Args:
      intervals: where.
      genome: from what.
      length: bases of each window; an even one has one more base before the center than after.
      source: the BED file, for the sentence.

    Raises:
      UserError: the genome lacks a chromosome, or no window lies within its chromosome.
    """
    genome.require(dict.fromkeys(intervals.chromosomes.tolist()), source)
    sizes = np.array([genome.lengths[name] for name in intervals.chromosomes.tolist()])
    starts = intervals.centers - length // 2
    rows = np.flatnonzero((starts >= 0) & (starts + length <= sizes))
    if not rows.size:
        raise UserError(
            f"{source}: every window of {length} bases leaves its chromosome in {genome.path}; "
            "legal: intervals of this genome, or a smaller --config.data.length"
        )
    codes = read_codes(genome, intervals.chromosomes[rows].tolist(), starts[rows], length)
    turned = intervals.reverse[rows]
    codes[turned] = reverse_complement(codes[turned])
    return Windows(
        codes,
        intervals.chromosomes[rows],
        starts[rows],
        turned,
        rows,
        dropped=len(intervals) - rows.size,
        unknown=int((codes >= UNKNOWN).all(axis=1).sum()),
    )


def read_codes(
    genome: Genome, chromosomes: Sequence[str], starts: NDArray[np.int64], length: int
) -> Codes:
    """Returns the forward strand from each of `starts` on: uint8 [windows, length]."""
    codes = np.empty((len(starts), length), dtype=np.uint8)
    for row, name, start in zip(codes, chromosomes, starts.tolist(), strict=True):
        row[:] = genome.codes(name, start, start + length)
    return codes


def _parse(fields: list[str]) -> tuple[int, int, int, bool]:
    """Returns start, stop, center and whether the strand is `-`; ValueError says what is wrong."""
    if len(fields) < 3:
        raise ValueError(f"{len(fields)} column{'s' * (len(fields) != 1)} where three are needed")
    start, stop = _integer(fields[1], "start"), _integer(fields[2], "end")
    if not 0 <= start <= stop <= _MAX_POSITION:
        raise ValueError(f"start {start} and end {stop} are no interval")
    strand = fields[5] if len(fields) > 5 else "."
    if strand not in ("+", "-", "."):
        raise ValueError(f"strand {strand!r} in column 6")
    center = (start + stop) // 2
    if len(fields) == _NARROW_PEAK_COLUMNS:
        summit = _integer(fields[9], "summit")
        if not -1 <= summit <= stop - start:
            raise ValueError(f"summit {summit} lies outside its interval of {stop - start} bases")
        center = center if summit == -1 else start + summit
    return start, stop, center, strand == "-"


def _integer(text: str, what: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{what} {text!r} is no integer") from None
