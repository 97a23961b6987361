"""BED files of every kind, and the windows of a genome that they name."""

import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.genome import Genome
from jaxdna.data.records import Records
from jaxdna.data.sequences import reverse_complement
from jaxdna.data.streams import display, read_lines
from jaxdna.errors import UserError

_BLOCK_BASES = 4 * 2**20
_MAX_POSITION = 2**48  # far beyond any genome, and no sum of positions overflows
_SUMMIT = 9  # narrowPeak's tenth column
_NO_SUMMIT_COLUMN = -2  # beside narrowPeak's own -1: a peak without a summit


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
      summits: how many of the centers are summits.
      others: how many rows have something else in column 10.
    """

    chromosomes: NDArray[np.str_]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    centers: NDArray[np.int64]
    reverse: NDArray[np.bool_]
    ids: list[str]
    summits: int
    others: int

    def __len__(self) -> int:
        return len(self.ids)

    def notes(self) -> list[str]:
        """Returns one sentence for each thing that a person should know."""
        midpoints = len(self) - self.summits
        if not self.summits:
            why = "column 10 holds no summits" if self.others else "no summits"
            return [f"windows are centred on the midpoints of the intervals ({why})"]
        rest = f" of {self.summits} intervals, and the midpoints of {midpoints}" * (midpoints > 0)
        return [f"windows are centred on the summits (column 10){rest}"]


@dataclass(frozen=True)
class Windows:
    """Stretches of one length on a genome.

    Attributes:
      chromosomes: text [windows].
      starts: int64 [windows], first base on the forward strand, from 0.
      reverse: bool [windows], whether the strand is `-`.
      ids: their names.
      length: bases of each.
      dropped: intervals whose window would leave its chromosome.
    """

    chromosomes: NDArray[np.str_]
    starts: NDArray[np.int64]
    reverse: NDArray[np.bool_]
    ids: Sequence[str]
    length: int
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def notes(self) -> list[str]:
        """Returns one sentence for each thing that a person should know."""
        if not self.dropped:
            return []
        return [
            f"{self.dropped} of {len(self) + self.dropped} windows of {self.length} bases reach "
            "beyond their chromosome (dropped)"
        ]


def read_intervals(path: str | Path) -> Intervals:
    """Reads BED3 to BED12 and what extends them, plain or gzipped, or `-` for stdin.

    Comment, `track` and `browser` lines are passed over. The summit is narrowPeak's tenth column,
    counted from the start, or -1 for none. IDR and others write more columns behind it, while other
    files have something else there: BED12 the number of its blocks, BED6+4 anything.

    Raises:
      UserError: a row is not BED, or some rows of ten columns have a summit and others have not;
        the sentence has its line.
    """
    chromosomes, names = [], []
    rows = array("q")  # a tuple a row takes ten times the memory
    first_of: dict[bool, int] = {}  # the first line of ten columns with a summit, and without
    for number, line in read_lines(path):
        if not line.strip() or line.startswith("#") or _is_setting(line):
            continue
        fields = line.split("\t") if "\t" in line else list(filter(None, line.split(" ")))
        try:
            start, stop, summit, minus = _parse(fields)
            if len(fields) == _SUMMIT + 1:
                has = summit != _NO_SUMMIT_COLUMN
                first_of.setdefault(has, number)
                if other := first_of.get(not has):
                    raise ValueError(
                        f"column 10 ({fields[_SUMMIT]!r}) is {'' if has else 'not '}a "
                        f"narrowPeak summit, but in line {other} it is {'not ' if has else ''}one"
                    )
        except ValueError as error:
            raise UserError(
                f"{display(path)}, line {number}: {error}; legal: BED, that is chromosome, start "
                "(from 0) and end, optionally name, score, strand (+ - .)"
            ) from None
        name = fields[3] if len(fields) > 3 else "."
        chromosomes.append(sys.intern(fields[0]))
        names.append(f"{fields[0]}:{start}-{stop}" if name in (".", "") else name)
        beyond = max(0, len(fields) - _SUMMIT)
        rows.extend((start, stop, summit, minus, beyond, beyond > 1 and _has_blocks(fields)))
    if not rows:
        raise UserError(f"{display(path)} contains no intervals; give BED with at least one row")
    table = np.frombuffer(rows, dtype=np.int64).reshape(-1, 6)
    starts, stops, summits, reverse, more, blocks = table.T
    wide = more > 1  # all of these extend narrowPeak, or none does
    if (summits[wide] == _NO_SUMMIT_COLUMN).any() or blocks[wide].all():
        summits = np.where(wide, _NO_SUMMIT_COLUMN, summits)
    centers = np.where(summits < 0, (starts + stops) // 2, starts + summits)
    return Intervals(
        np.array(chromosomes),
        starts,
        stops,
        centers,
        reverse == 1,
        names,
        summits=int((summits >= 0).sum()),
        others=int(((more > 0) & (summits == _NO_SUMMIT_COLUMN)).sum()),
    )


def place_windows(intervals: Intervals, genome: Genome, length: int, source: str) -> Windows:
    """Places one window of `length` bases around each interval's center.

    Args:
      intervals: where.
      genome: on what.
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
            f"{source}: every window of {length} bases reaches beyond its chromosome in "
            f"{genome.path}; give intervals on this genome, or a smaller --config.data.length"
        )
    return Windows(
        intervals.chromosomes[rows],
        starts[rows],
        intervals.reverse[rows],
        [intervals.ids[row] for row in rows.tolist()],
        length,
        dropped=len(intervals) - rows.size,
    )


def read_windows(windows: Windows, genome: Genome) -> Iterator[Records]:
    """Yields what the genome has in the windows, in order, many at a time.

    Where the strand is `-`, that is the reverse complement.

    Raises:
      UserError: a letter is not a base.
    """
    length = windows.length
    rows = max(1, _BLOCK_BASES // max(1, length))
    for first in range(0, len(windows), rows):
        part = slice(first, first + rows)
        names, starts = windows.chromosomes[part].tolist(), windows.starts[part].tolist()
        codes = np.empty((len(names), length), dtype=np.uint8)
        for row, name, start in zip(codes, names, starts, strict=True):
            row[:] = genome.codes(name, start, start + length)
        turned = windows.reverse[part]
        codes[turned] = reverse_complement(codes[turned])
        offsets = np.arange(len(codes) + 1, dtype=np.int64) * length
        yield Records(windows.ids[part], codes.reshape(-1), offsets)


def _is_setting(line: str) -> bool:
    """Whether it is a `track` or `browser` line; a chromosome may be called so, or track2."""
    first, *rest = line.split(None, 3)
    return first in ("track", "browser") and not all(map(str.isdecimal, rest[:2] or "-"))


def _parse(fields: list[str]) -> tuple[int, int, int, bool]:
    """Returns start, stop, summit (from the start) and whether the strand is `-`.

    Raises:
      ValueError: says what is wrong.
    """
    if len(fields) < 3:
        raise ValueError(f"{len(fields)} column{'s' * (len(fields) != 1)} where three are needed")
    start, stop = _integer(fields[1], "start"), _integer(fields[2], "end")
    if not 0 <= start <= stop <= _MAX_POSITION:
        raise ValueError(f"start {start} and end {stop} are not an interval")
    strand = fields[5] if len(fields) > 5 else "."
    if strand not in ("+", "-", "."):
        raise ValueError(f"strand {strand!r} in column 6")
    summit = _NO_SUMMIT_COLUMN
    if _looks_like_narrow_peak(fields):
        summit = int(fields[_SUMMIT])
        if not -1 <= summit <= stop - start:
            if len(fields) == _SUMMIT + 1:
                raise ValueError(
                    f"summit {summit} lies outside its interval of {stop - start} bases"
                )
            summit = _NO_SUMMIT_COLUMN
    return start, stop, summit, strand == "-"


def _looks_like_narrow_peak(fields: list[str]) -> bool:
    """Whether the columns behind the strand are three numbers (or . or NA) and an integer.

    A list in column 11 is that of BED12's blocks.
    """
    if len(fields) <= _SUMMIT or "," in "".join(fields[_SUMMIT + 1 : _SUMMIT + 2]):
        return False
    try:
        int(fields[_SUMMIT])
        return all(one in (".", "NA") or float(one) is not None for one in fields[6:_SUMMIT])
    except ValueError:
        return False


def _has_blocks(fields: list[str]) -> bool:
    """Whether columns 10 to 12 can be those of BED12: a count, as many sizes and as many starts."""
    if len(fields) < 12:
        return False
    try:
        sizes, starts = ([int(n) for n in f.rstrip(",").split(",")] for f in fields[10:12])
        return int(fields[9]) == len(sizes) == len(starts)
    except ValueError:
        return False


def _integer(text: str, what: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{what} {text!r} is not an integer") from None
