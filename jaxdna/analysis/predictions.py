"""From a stream of sequences to a stream of scored rows: records, or windows along them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxdna.analysis.scorer import Scorer
from jaxdna.data.fasta import Piece
from jaxdna.data.records import Records
from jaxdna.data.sequences import UNKNOWN, Codes
from jaxdna.training.dispatch import few_ahead

_IN_FLIGHT = 2  # pieces that the devices work on while the host reads the next
_PADDED_BASES = 2**26  # of the records that are padded at once
_MUCH_UNKNOWN = 0.1  # share of letters from which on a row says so


@dataclass
class Rows:
    """Some scored rows, in order.

    Attributes:
      ids: the record of each row.
      starts: int64 [rows], where the row's stretch begins in its record.
      stops: int64 [rows].
      outputs: float32 [rows, answers of the scorer]; NaN for what cannot be scored.
      notes: for some rows, by their number, why not, or what a person should know.
    """

    ids: Sequence[str]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    outputs: NDArray[np.float32]
    notes: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Lengths:
    """How records get the length that a model knows.

    Attributes:
      policy: `error` (they are taken as they are), `pad` (shorter ones get `UNKNOWN` on both
        sides) or `center_crop` (of longer ones the middle is scored), as in training.
      length: bases of the sequences that the model was trained on.
    """

    policy: str
    length: int


def score_records(pieces: Iterable[Piece], scorer: Scorer, lengths: Lengths) -> Iterator[Rows]:
    """Returns one row per record, in order.

    Args:
      pieces: the sequences; a record may come in several pieces unless the policy crops.
      scorer: the model.
      lengths: how records get the model's length.
    """
    state = _RecordState(scorer, lengths)
    if lengths.policy == "pad":
        pieces = _of_few_records(pieces, max(1, _PADDED_BASES // lengths.length))
    return map(state.finish, few_ahead(map(state.submit, pieces), _IN_FLIGHT))


def score_windows(
    pieces: Iterable[Piece], scorer: Scorer, window: int, stride: int
) -> Iterator[Rows]:
    """Returns one row per window, in order.

    The windows of a record begin at 0, stride, 2 * stride and so on. Where the last of them ends
    before the record does, one more ends with it. A shorter record is one window.

    Args:
      pieces: the sequences.
      scorer: the model.
      window: bases of each window.
      stride: bases from one window to the next, at most `window`.
    """
    state = _WindowState(scorer, window, stride)
    return map(state.finish, few_ahead(map(state.submit, pieces), _IN_FLIGHT))


@dataclass
class _RecordJob:
    piece: Piece
    lengths: NDArray[np.int64]  # bases of each record, as far as they are in this piece
    unknown: NDArray[np.int64]  # of them, letters that are no base
    scored: NDArray[np.int64]  # records that have windows here
    pending: Any  # of the scorer


class _RecordState:
    """What one piece must hand to the next: when it is sent, and when it comes back."""

    def __init__(self, scorer: Scorer, lengths: Lengths):
        self.scorer, self.policy = scorer, lengths
        self.tail = np.empty(0, dtype=np.uint8)  # last width - 1 bases of the open record
        self.best: NDArray[np.float32] | None = None  # of the open record so far
        self.bases = self.unknown = 0  # of the open record so far

    def submit(self, piece: Piece) -> _RecordJob:
        records, width = piece.records, self.scorer.width
        lengths = records.lengths
        unknown = _count_unknown(records.codes, records.offsets[:-1], records.offsets[1:])
        if piece.begun:
            records = _extended(self.tail, records)
        if piece.open:
            last = records[len(records) - 1]
            self.tail = last[last.size - width + 1 :].copy()
        if self.policy.policy == "pad":
            records = _padded(
                records, self.policy.length, self.scorer.least, keep_first=piece.begun
            )
        starts, inside = records.offsets[:-1], records.lengths
        if self.policy.policy == "center_crop":
            starts = starts + np.maximum(inside - self.policy.length, 0) // 2
            inside = np.minimum(inside, self.policy.length)
        scored = np.flatnonzero(self.scorer.fits(inside))
        pending = self.scorer.submit(records.codes, starts[scored], inside[scored] - width + 1)
        return _RecordJob(piece, lengths, unknown, scored, pending)

    def finish(self, job: _RecordJob) -> Rows:
        features, whole = self.scorer.features(job.pending), self.scorer.whole
        lengths, unknown = job.lengths, job.unknown
        present = np.zeros(len(lengths), dtype=bool)
        present[job.scored] = True
        best = np.full((len(lengths), features.shape[1]), -np.inf, dtype=np.float32)
        best[job.scored] = features
        if job.piece.begun:
            assert self.best is not None
            best[0] = np.maximum(best[0], self.best)
            lengths[0] += self.bases
            unknown[0] += self.unknown
            # A record in several pieces is longer than any network that reads one length.
            present[0] = not whole
        ids = job.piece.records.ids
        if job.piece.open:
            self.best, self.bases, self.unknown = best[-1], int(lengths[-1]), int(unknown[-1])
            ids, best, present = ids[:-1], best[:-1], present[:-1]
            lengths, unknown = lengths[:-1], unknown[:-1]
        known = present & (unknown < lengths)
        outputs = _unscored(len(ids), self.scorer)
        outputs[known] = self.scorer.finish(best[known])
        notes = _notes(lengths, unknown, present, self.scorer)
        return Rows(ids, np.zeros_like(lengths), lengths, outputs, notes)


@dataclass
class _WindowJob:
    rows: Rows  # without outputs
    unknown: NDArray[np.int64]
    regular: NDArray[np.int64]  # rows that lie on the grid of strides
    others: NDArray[np.int64]
    pending: tuple[Any, Any]


class _WindowState:
    """What one piece must hand to the next: the open record from its last scored window on."""

    def __init__(self, scorer: Scorer, window: int, stride: int):
        self.scorer, self.window, self.stride = scorer, window, stride
        self.tail = np.empty(0, dtype=np.uint8)
        self.start = 0  # where the tail begins in its record
        self.scored = False  # whether the window at the tail's beginning has had its row

    def submit(self, piece: Piece) -> _WindowJob:
        records, origin = piece.records, np.zeros(len(piece.records), dtype=np.int64)
        if piece.begun:
            records, origin[0] = _extended(self.tail, records), self.start
        lengths = records.lengths
        counts = np.maximum((lengths - self.window) // self.stride + 1, 0)
        extra = (counts == 0) | ((lengths - self.window) % self.stride > 0)
        if piece.open:
            extra[-1] = False
        total = counts + extra
        record = np.repeat(np.arange(len(records)), total)
        number = np.arange(total.sum()) - np.repeat(np.cumsum(total) - total, total)
        if piece.begun and self.scored:
            record, number = record[1:], number[1:]
        on_grid = number < counts[record]
        last = np.maximum(lengths[record] - self.window, 0)
        begin = np.where(on_grid, number * self.stride, last)
        size = np.minimum(self.window, lengths[record])
        at = records.offsets[:-1][record] + begin
        positions = size - self.scorer.width + 1
        fits = self.scorer.fits(size)
        regular, others = np.flatnonzero(on_grid), np.flatnonzero(~on_grid & fits)
        pending = (
            self.scorer.submit(records.codes, at[regular], positions[regular], self.stride),
            self.scorer.submit(records.codes, at[others], positions[others]),
        )
        rows = Rows(
            [records.ids[i] for i in record.tolist()],
            begin + origin[record],
            begin + origin[record] + size,
            _unscored(len(record), self.scorer),
        )
        if piece.open:
            keep = max(int(counts[-1]) - 1, 0) * self.stride
            self.tail = records[len(records) - 1][keep:].copy()
            self.start, self.scored = int(origin[-1]) + keep, bool(counts[-1])
        return _WindowJob(
            rows, _count_unknown(records.codes, at, at + size), regular, others, pending
        )

    def finish(self, job: _WindowJob) -> Rows:
        rows = job.rows
        size = rows.stops - rows.starts
        for chosen, pending in zip((job.regular, job.others), job.pending, strict=True):
            rows.outputs[chosen] = self.scorer.finish(self.scorer.features(pending))
        rows.outputs[job.unknown >= size] = np.nan
        rows.notes.update(_notes(size, job.unknown, self.scorer.fits(size), self.scorer))
        return rows


def _unscored(rows: int, scorer: Scorer) -> NDArray[np.float32]:
    return np.full((rows, scorer.answer_count), np.nan, dtype=np.float32)


def _notes(
    lengths: NDArray, unknown: NDArray, fits: NDArray[np.bool_], scorer: Scorer
) -> dict[int, str]:
    notes = {}
    for row in np.flatnonzero(~fits | (unknown > _MUCH_UNKNOWN * lengths)).tolist():
        size, letters = int(lengths[row]), int(unknown[row])
        if size == 0:
            notes[row] = "no sequence"
        elif not fits[row]:
            notes[row] = scorer.misfit(size)
        elif letters == size:
            notes[row] = "no known base"
        else:
            notes[row] = f"{letters} of {size} letters unknown"
    return notes


def _count_unknown(
    codes: Codes, starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Counts letters that are no base in codes[start:stop] of every stretch."""
    unknown = np.flatnonzero(codes >= UNKNOWN)
    return np.searchsorted(unknown, stops) - np.searchsorted(unknown, starts)


def _extended(tail: Codes, records: Records) -> Records:
    """Puts bases before the first record."""
    offsets = records.offsets + tail.size
    offsets[0] = 0
    return Records(records.ids, np.concatenate([tail, records.codes]), offsets)


def _of_few_records(pieces: Iterable[Piece], most: int) -> Iterator[Piece]:
    """Cuts pieces of more than `most` records between them."""
    for piece in pieces:
        records, count = piece.records, len(piece.records)
        for first in range(0, count, most):
            cuts = records.offsets[first : first + most + 1]
            part = Records(
                records.ids[first : first + most], records.codes[cuts[0] : cuts[-1]], cuts - cuts[0]
            )
            yield Piece(part, piece.begun and not first, piece.open and first + most >= count)


def _padded(records: Records, length: int, width: int, keep_first: bool) -> Records:
    """Pads as `records.fit_length` does; what is shorter than a filter stays so."""
    lengths = records.lengths
    target = np.where((lengths >= width) & (lengths < length), length, lengths)
    if keep_first:
        target[0] = lengths[0]
    if (target == lengths).all():
        return records
    offsets = np.concatenate([[0], np.cumsum(target)])
    codes = np.full(offsets[-1], UNKNOWN, dtype=np.uint8)
    shift = offsets[:-1] + (target - lengths) // 2 - records.offsets[:-1]
    codes[np.arange(records.codes.size) + np.repeat(shift, lengths)] = records.codes
    return Records(records.ids, codes, offsets)
