"""Labelled sequences from a table of two columns."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.records import Records
from jaxdna.data.sequences import encode
from jaxdna.data.streams import STREAMED, display, read_lines
from jaxdna.errors import UserError

_BLOCK_ROWS, _BLOCK_BASES = 10_000, 8 * 2**20
_LEGAL = "legal: a sequence, a tab, and 0 or 1"


@dataclass(frozen=True)
class LabelledRecords:
    """Sequences with their classes.

    Attributes:
      records: the sequences; ids are `line3` for the row on line 3.
      labels: int32 [records], 1 or 0.
    """

    records: Records
    labels: NDArray[np.int32]


def read_table(path: str | Path, ambiguous: str = "zero") -> Iterator[LabelledRecords]:
    """Yields rows of sequence, tab, label (0 or 1), in order, many at a time.

    A first line whose second column is no label is a header. Blank lines and lines that begin with
    `#` are passed over.

    Args:
      path: plain or gzipped, or `-` for stdin.
      ambiguous: what N and the other IUPAC letters become: `zero`, `uniform` or `error`.

    Raises:
      UserError: a row has not two columns, no sequence, another label or a letter that is no base;
        the sentence has its line.
    """
    rows: list[_Row] = []
    bases = 0
    empty = True
    for row in _read_rows(path):
        rows.append(row)
        bases += len(row.sequence)
        empty = False
        if len(rows) >= _BLOCK_ROWS or bases >= _BLOCK_BASES:
            yield _labelled(path, rows, ambiguous)
            rows, bases = [], 0
    if empty:
        raise UserError(f"{display(path)} holds no labelled sequence; {_LEGAL}")
    if rows:
        yield _labelled(path, rows, ambiguous)


class _Row(NamedTuple):
    line: int
    sequence: str
    label: str


def _read_rows(path: str | Path) -> Iterator[_Row]:
    header_possible = True
    for number, line in read_lines(path, STREAMED):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [field.strip(" ") for field in line.split("\t")]
        is_header = header_possible and len(fields) == 2 and not _is_number(fields[1])
        header_possible = False
        if is_header:
            continue
        if len(fields) != 2 or not fields[0] or fields[1] not in ("0", "1"):
            raise UserError(f"{display(path)}, line {number}: {_wrong(fields)}; {_LEGAL}")
        yield _Row(number, *fields)


def _labelled(path: str | Path, rows: list[_Row], ambiguous: str) -> LabelledRecords:
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
    ids = [f"line{row.line}" for row in rows]
    return LabelledRecords(
        Records(ids, codes, offsets), np.array([int(row.label) for row in rows], dtype=np.int32)
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _wrong(fields: list[str]) -> str:
    if len(fields) != 2:
        return f"{len(fields)} column{'s' * (len(fields) != 1)} where two are needed"
    return f"label {fields[1]!r}" if fields[0] else "no sequence"
