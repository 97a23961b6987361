"""Labelled sequences from a table of two columns."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.records import Records
from jaxdna.data.sequences import encode
from jaxdna.data.streams import display, read_lines
from jaxdna.errors import UserError

_ROWS_AT_ONCE = 10_000
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


def read_table(path: str | Path, ambiguous: str = "zero") -> LabelledRecords:
    """Reads rows of sequence, tab, label (0 or 1).

    A first line whose second column is no label is a header. Blank lines and lines that begin with
    `#` are passed over.

    Args:
      path: plain or gzipped, or `-` for stdin.
      ambiguous: what N and the other IUPAC letters become: `zero`, `uniform` or `error`.

    Raises:
      UserError: a row has not two columns, no sequence, another label or a letter that is no base;
        the sentence has its line.
    """
    sequences: list[str] = []
    labels: list[str] = []
    lines: list[int] = []
    header_possible = True
    for number, line in read_lines(path):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [field.strip() for field in line.split("\t")]
        is_header = header_possible and len(fields) == 2 and not _is_number(fields[1])
        header_possible = False
        if is_header:
            continue
        if len(fields) != 2 or not fields[0] or fields[1] not in ("0", "1"):
            raise UserError(f"{display(path)}, line {number}: {_wrong(fields)}; {_LEGAL}")
        sequences.append(fields[0])
        labels.append(fields[1])
        lines.append(number)
    if not sequences:
        raise UserError(f"{display(path)} holds no labelled sequence; {_LEGAL}")
    codes = []
    for first in range(0, len(sequences), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        codes.append(_encode_rows(path, sequences[rows], lines[rows], ambiguous))
    offsets = np.zeros(len(sequences) + 1, dtype=np.int64)
    np.cumsum([len(text) for text in sequences], out=offsets[1:])
    ids = [f"line{number}" for number in lines]
    return LabelledRecords(
        Records(ids, np.concatenate(codes), offsets), np.array(labels, dtype=np.int32)
    )


def _encode_rows(path: str | Path, rows: list[str], lines: list[int], ambiguous: str) -> NDArray:
    """Encodes all rows at once; only an error looks at them one by one."""
    try:
        return encode("".join(rows), ambiguous)
    except UserError:
        for row, number in zip(rows, lines, strict=True):
            try:
                encode(row, ambiguous)
            except UserError as error:
                raise UserError(f"{display(path)}, line {number}: {error}") from None
        raise


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
