"""Which known motif a motif resembles, with p-values: Tomtom's method.

Sources: Gupta, Stamatoyannopoulos, Bailey and Noble (2007), Quantifying similarity between motifs,
Genome Biology 8:R24 (null by dynamic programming over the library's columns, all offsets);
Tanaka, Bailey, Grant and Noble (2011), Improved similarity scores for comparing motifs,
Bioinformatics 27:1603-1609 (a query column without a partner scores that column's median, so that
a short overlap gains nothing).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.motifs import Motif
from jaxdna.errors import UserError

MIN_OVERLAP = 5
LIKELY_E_VALUE = 0.05  # a match beyond it would come up by chance in more than 5 of 100 filters
FEW_TARGETS = 25  # below this, p-values depend much on which targets are given
_BINS = 100  # steps of a column's score (`t` in the paper)


@dataclass(frozen=True)
class Hit:
    """How a query motif lies on a target motif.

    Attributes:
      target: name of the target, and its protein where the library tells.
      strand: `+`, or `-` where the query resembles the target's reverse complement.
      offset: position of the query's first column on the target as seen from `strand`; negative
        where the query begins before it.
      overlap: columns that lie on each other.
      p_value: chance that a random target of this width, columns drawn from the library, has an
        offset and a strand that score as high.
      e_value: targets of the library expected to score as high by chance.
      q_value: false discovery rate if all hits up to this one are called (Benjamini-Hochberg).
    """

    target: str
    strand: str
    offset: int
    overlap: int
    p_value: float
    e_value: float
    q_value: float


def match_motif(
    query: Motif, library: Sequence[Motif], min_overlap: int = MIN_OVERLAP
) -> list[Hit]:
    """Compares a motif with every motif of a library, on both strands, at all offsets.

    Columns are compared by Euclidean distance, as Tomtom's default does.

    Args:
      query: e.g. a filter's frequency matrix.
      library: the known motifs; their columns are the null distribution, see `library_note`.
      min_overlap: columns that must lie on each other (fewer where a motif is narrower).

    Returns:
      One hit per target: its best strand and offset; smallest p-value first.

    Raises:
      UserError: the library is empty.
    """
    if not library:
        raise UserError(
            "there is no motif to compare with; give a motif file with at least one motif"
        )
    forward = [motif.probabilities for motif in library]
    columns = np.concatenate([*forward, *(rows[::-1, ::-1] for rows in forward)])
    scores = _integer_scores(query.probabilities, columns)
    ends = np.cumsum([len(rows) for rows in forward])
    null = _Null(scores, sorted({motif.width for motif in library}), min_overlap)
    best = []
    for motif, end in zip(library, ends.tolist(), strict=True):
        candidates = []
        for strand, stop in (("+", end), ("-", end + ends[-1])):
            sums, offsets, overlaps = _align(scores[:, stop - motif.width : stop], min_overlap)
            top = int(np.lexsort((overlaps, sums))[-1])
            candidates.append((int(sums[top]), int(overlaps[top]), strand, int(offsets[top])))
        total, overlap, strand, offset = max(candidates, key=lambda found: found[:2])
        best.append((null.p_value(total, motif.width), motif.label, strand, offset, overlap))
    order = sorted(range(len(best)), key=lambda i: best[i][0])
    p_values = np.array([best[i][0] for i in order])
    e_values = p_values * len(library)
    q_values = np.minimum.accumulate((e_values / np.arange(1, len(order) + 1))[::-1])[::-1]
    return [
        Hit(*best[i][1:], float(p), float(e), float(min(q, 1.0)))
        for i, p, e, q in zip(order, p_values, e_values, q_values, strict=True)
    ]


def likely(hits: Sequence[Hit]) -> Hit | None:
    """Returns the hit that a motif is named after, of `match_motif`'s; None where all are chance.

    Every output follows this rule: no name where more than `LIKELY_E_VALUE` of the library's motifs
    would fit as well by chance.
    """
    return hits[0] if hits and hits[0].e_value <= LIKELY_E_VALUE else None


def library_note(library: Sequence[Motif]) -> str:
    """Returns a sentence where the library is too small for its p-values to mean much, else ''."""
    if len(library) >= FEW_TARGETS:
        return ""
    return (
        f"p-values come from the columns of only {len(library)} motifs and depend on which motifs "
        f"those are; a library of {FEW_TARGETS} or more makes them reliable"
    )


def _integer_scores(query: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns int64 [query columns, library columns]: similarity above the column's median."""
    similarity = -np.linalg.norm(query[:, None] - columns, axis=2)
    similarity -= np.median(similarity, axis=1, keepdims=True)
    step = max(np.ptp(similarity, axis=1).max() / _BINS, np.finfo(np.float64).tiny)
    return np.rint(similarity / step).astype(np.int64)


def _align(
    scores: NDArray[np.int64], min_overlap: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Returns summed score, offset and overlap of each way to lay the query on one target."""
    query_width, width = scores.shape
    sums = np.zeros(query_width + width - 1, dtype=np.int64)
    for column, row in enumerate(scores):
        sums[query_width - 1 - column :][:width] += row
    offsets = np.array(_offsets(query_width, width, min_overlap))
    overlaps = np.minimum(query_width, width - offsets) - np.maximum(0, -offsets)
    return sums[offsets + query_width - 1], offsets, overlaps


def _offsets(query_width: int, width: int, min_overlap: int) -> range:
    least = min(min_overlap, query_width, width)
    return range(least - query_width, width - least + 1)


def _spans(query_width: int, width: int, min_overlap: int) -> Iterable[tuple[int, int]]:
    """Yields which columns of the query lie on a target of `width`, for each offset."""
    for offset in _offsets(query_width, width, min_overlap):
        yield max(0, -offset), min(query_width, width - offset)


class _Null:
    """Distribution of the best score against random targets of each width."""

    def __init__(self, scores: NDArray[np.int64], widths: Sequence[int], min_overlap: int) -> None:
        self.spans = {width: list(_spans(len(scores), width, min_overlap)) for width in widths}
        wanted = {span for spans in self.spans.values() for span in spans}
        lows = scores.min(axis=1)
        columns = [np.bincount(row - low) / row.size for row, low in zip(scores, lows, strict=True)]
        # Chance to score at least low + index, for each span: sums of independent columns.
        self.tails: dict[tuple[int, int], tuple[int, NDArray[np.float64]]] = {}
        for start in {first for first, _ in wanted}:
            total = np.ones(1)
            for stop in range(start + 1, max(last for first, last in wanted if first == start) + 1):
                total = np.convolve(total, columns[stop - 1])
                if (start, stop) in wanted:
                    tail = np.cumsum(total[::-1])[::-1]
                    self.tails[start, stop] = int(lows[start:stop].sum()), tail

    def p_value(self, score: int, width: int) -> float:
        """Chance that any offset on any of two strands reaches `score`, offsets independent."""
        chances = np.array([self._tail(span, score) for span in self.spans[width]])
        with np.errstate(divide="ignore"):  # a chance of 1 makes p 1
            return float(-np.expm1(2 * np.log1p(-np.minimum(chances, 1)).sum()))

    def _tail(self, span: tuple[int, int], score: int) -> float:
        low, tail = self.tails[span]
        index = score - low
        return float(tail[max(index, 0)]) if index < tail.size else 0.0
