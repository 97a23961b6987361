"""Sequences with their targets from a table."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.records import Records
from jaxdna.data.separated import splitter
from jaxdna.data.sequences import encode
from jaxdna.data.streams import STREAMED, display, read_lines
from jaxdna.data.targets import AUTO, FORMS
from jaxdna.errors import UserError, nearest
from jaxdna.tasks.classes import Multiclass

SEQUENCE = "sequence"
_SEQUENCES, NAMES = (SEQUENCE, "seq"), ("id", "name", "eventid")  # DeepBind: EventID, seq
TARGET = "target"  # the name of targets without one
_BLOCK_ROWS, _BLOCK_BASES = 10_000, 8 * 2**20
_MISSING = ("", ".", "-", "na", "n/a", "null", "none")


@dataclass(frozen=True)
class LabelledRecords:
    """Sequences with what is known of them.

    Attributes:
      records: the sequences; ids are those of the table, or `line3` for the row on line 3.
      names: of the columns of targets.
      targets: [records, columns], what `targets.Form.read` returned: float64, or text.
    """

    records: Records
    names: tuple[str, ...]
    targets: NDArray


def read_table(
    path: str | Path, ambiguous: str = "zero", kind: str = AUTO, wanted: Sequence[str] = ()
) -> Iterator[LabelledRecords]:
    """Yields the rows of a table, in order, many at a time; see `splitter` for what separates.

    A header has a column `sequence` or `seq`, perhaps `id`, `name` or `EventID`, and columns of
    targets: DeepBind's `.seq.gz` files (FoldID, EventID, seq, Bound) are such tables. Without a
    header a row is a sequence and a target, and a first line whose second column is no number is
    passed over. So are blank lines and lines that begin with `#`.

    Args:
      path: plain or gzipped, or `-` for stdin.
      ambiguous: what N and the other IUPAC letters become: `zero`, `uniform` or `error`.
      kind: of the task, a key of `targets.FORMS`.
      wanted: the columns of targets; those whose first row is a number if empty.

    Raises:
      UserError: columns are missing, or a row has not all of them, no sequence, a target that the
        kind of task does not take, or a letter that is not a base; the sentence has its line.
    """
    rows: list[_Row] = []
    bases = 0
    columns: _Columns | None = None
    for columns, row in _read_rows(path, kind, wanted):
        rows.append(row)
        bases += len(row.sequence)
        if len(rows) >= _BLOCK_ROWS or bases >= _BLOCK_BASES:
            yield _labelled(path, rows, ambiguous, columns)
            rows, bases = [], 0
    if columns is None:
        raise UserError(f"{display(path)} contains no labelled sequences; {_legal(kind)}")
    if rows:
        yield _labelled(path, rows, ambiguous, columns)


class _Row(NamedTuple):
    name: str
    line: int
    sequence: str
    targets: list[float | str]


class _Columns(NamedTuple):
    """Where things stand in a row.

    Attributes:
      sequence: column of the sequence.
      name: of the name; None where rows have none.
      targets: of the targets.
      names: of those.
      header: whether the file says so; else rows have these columns and no other.
    """

    sequence: int
    name: int | None
    targets: Sequence[int]
    names: tuple[str, ...]
    header: bool


def _read_rows(
    path: str | Path, kind: str, wanted: Sequence[str]
) -> Iterator[tuple[_Columns, _Row]]:
    form = FORMS[kind]
    header: list[str] | None = None
    columns: _Columns | None = None
    split: Callable[[str], list[str]] | None = None
    for line_number, line in read_lines(path, STREAMED):
        if not line.strip() or line.startswith("#"):
            continue
        split = split or splitter(line)
        fields = [field.strip(" ") for field in split(line)]
        if not any(fields):  # as spreadsheets write empty rows
            continue
        where = f"{display(path)}, line {line_number}"
        if columns is None and header is None:
            header = fields if _is_header(fields) else []
            if header:
                continue
        if columns is None:
            assert header is not None
            if _sequence_columns(header):
                columns = _by_header(header, fields, kind, wanted, display(path))
            else:
                columns = _two(header, kind, wanted, display(path))
        if not columns.header and len(fields) != 2:
            many = f"{len(fields)} column{'s' * (len(fields) != 1)} where two are needed"
            raise UserError(f"{where}: {many}; {_legal(kind)}")
        if len(fields) <= max(columns.sequence, columns.name or 0, *columns.targets):
            raise UserError(f"{where}: {len(fields)} columns; legal: as many as the header has")
        if not fields[columns.sequence]:
            raise UserError(f"{where}: no sequence; {_legal(kind)}")
        targets = []
        for place, name in zip(columns.targets, columns.names, strict=True):
            value = form.read(fields[place])
            if value is None:
                what = f"column '{name}' is" if columns.header else "label"
                legal = f"legal: {form.legal}" if columns.header else _legal(kind)
                raise UserError(f"{where}: {what} {fields[place]!r}; {legal}")
            if isinstance(value, str) and not value.isdigit() and not columns.header:
                raise UserError(
                    f"{where}: class {value!r} in a table without a header; legal: integers from "
                    f"0, or a header with a column {SEQUENCE} and one of classes"
                )
            targets.append(value)
        name = fields[columns.name] if columns.name is not None else ""
        yield columns, _Row(name, line_number, fields[columns.sequence], targets)


def _sequence_columns(header: list[str]) -> list[int]:
    return [i for i, name in enumerate(header) if name.lower() in _SEQUENCES]


def _is_header(fields: list[str]) -> bool:
    if _sequence_columns(fields):
        return True
    return len(fields) == 2 and not _is_number(fields[1])


def _by_header(
    header: list[str], first: list[str], kind: str, wanted: Sequence[str], path: str
) -> _Columns:
    """Returns the columns of a table that names them, by its header and its first row."""
    lower = [name.lower() for name in header]
    twice = next((name for i, name in enumerate(header) if name in header[:i] and name), None)
    sequence, *more = _sequence_columns(header)
    if twice is not None or more:
        raise UserError(
            f"{path} has two columns '{twice or SEQUENCE}'; give each column a different name"
        )
    name = next((lower.index(one) for one in NAMES if one in lower), None)
    others = [n for n, low in zip(header, lower, strict=True) if low not in (*_SEQUENCES, *NAMES)]
    if unknown := [one for one in wanted if one not in others]:
        raise UserError(f"{path} has no column '{unknown[0]}'; {nearest(unknown[0], others)}")
    row = dict(zip(header, first, strict=False))
    # A missing number is one that its row is refused for, rather than a column passed over.
    chosen = list(wanted) or [
        n for n in others if _is_number(row.get(n, "")) or row.get(n, "").lower() in _MISSING
    ]
    if not chosen and kind == Multiclass.kind and len(others) == 1:
        chosen = others
    given = "has the columns " + ", ".join(f"'{one}'" for one in chosen or others)
    if not chosen:
        raise UserError(
            f"{path} {given if others else 'has no column'} beside the sequence, and none of "
            "numbers; give columns of numbers, or --config.data.task=multiclass with a column of "
            "names (--config.data.targets)"
        )
    if FORMS[kind].single and len(chosen) > 1:
        legal = f"--config.data.targets with one of them for --config.data.task={kind}"
        if kind == AUTO:
            legal = (
                "--config.data.task=multilabel, regression or counts, or --config.data.targets "
                "with one of them"
            )
        raise UserError(f"{path} {given}, but only one was expected; legal: {legal}")
    return _Columns(sequence, name, [header.index(n) for n in chosen], tuple(chosen), header=True)


def _two(header: list[str], kind: str, wanted: Sequence[str], path: str) -> _Columns:
    """Returns the columns of a table of sequence and target."""
    name = header[1] if header else TARGET
    if wanted and (len(wanted) > 1 or (header and wanted[0] != name)):
        unknown = next(one for one in wanted if not header or one != name)
        raise UserError(
            f"{path} has no column '{unknown}'; give a header with a column {SEQUENCE} and "
            "those of the targets"
        )
    return _Columns(0, None, [1], (wanted[0] if wanted else name,), header=False)


def _labelled(
    path: str | Path, rows: list[_Row], ambiguous: str, columns: _Columns
) -> LabelledRecords:
    """Encodes all rows at once; only an error looks at them one by one."""
    try:
        codes = encode("".join(row.sequence for row in rows), ambiguous)
    except UserError:
        for row in rows:
            try:
                encode(row.sequence, ambiguous)
            except UserError as error:
                raise UserError(f"{display(path)}, line {row.line}: {error}") from None
        raise
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row.sequence) for row in rows], out=offsets[1:])
    ids = [row.name or f"line{row.line}" for row in rows]
    targets = np.array([row.targets for row in rows])
    return LabelledRecords(Records(ids, codes, offsets), columns.names, targets)


def _is_number(text: str) -> bool:
    """Whether a text is a number, NaN among them."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _legal(kind: str) -> str:
    return f"legal: a sequence, a tab or comma, and {FORMS[kind].legal}"
