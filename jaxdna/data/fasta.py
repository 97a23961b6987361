"""FASTA in, codes out: block by block, so that memory does not grow with the file."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from string import ascii_uppercase
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.records import Records, check_choice
from jaxdna.data.sequence_stats import SequenceStats
from jaxdna.data.sequences import UNIFORM, UNKNOWN, Codes, encode
from jaxdna.data.streams import BLOCK_BYTES, display, read_text
from jaxdna.errors import UserError

AMBIGUOUS_POLICIES = ("zero", "uniform", "error")
_NEWLINE, _HEADER, _COMMENT = b"\n>;"
_BINARY, _SKIP, _INVALID = 253, 254, 255  # beside the codes: no text, no base, no nucleotide
_WHITESPACE = b" \t\r\n\v\f"
_JOINT = b"\x01"  # between the headers that NCBI joins into one: text in a header, nowhere else
_MAX_HEADER_BYTES = 2**20
_MOST_WHOLE_BASES = 2**28  # more than the longest human chromosome
_NO_BASES = np.empty(0, dtype=np.uint8)


def read_fasta_blocks(
    path: str | Path,
    ambiguous: str = "zero",
    stats: SequenceStats | None = None,
    allow_empty: bool = False,
    whole_headers: bool = False,
) -> Iterator[Records]:
    """Yields the records of a FASTA file in order, many at a time.

    An id is the header up to its first blank; `record7` for the seventh record if it has none.

    Args:
      path: plain, gzip or bgzip (told by the first bytes), or `-` for stdin.
      ambiguous: what N and the other IUPAC letters become: `zero`, `uniform` or `error`.
      stats: counts are added to it while reading.
      allow_empty: a header without sequence is a record without bases instead of an error.
      whole_headers: ids are whole headers, as far as they are one line of text.

    Raises:
      UserError: no FASTA, damaged, a letter that is not a nucleotide, or a record too long to be
        held; the sentence has file, record, line and offset.
    """
    for piece in _parse(path, ambiguous, stats, allow_empty, None, whole_headers):
        yield piece.records


class Piece(NamedTuple):
    """Some records; the first and the last may be parts of records too long to be held whole.

    Attributes:
      records: in the order of the file.
      begun: whether the first one goes on from the piece before.
      open: whether the last one goes on in the next piece.
    """

    records: Records
    begun: bool
    open: bool


def read_fasta_pieces(
    path: str | Path,
    ambiguous: str = "zero",
    stats: SequenceStats | None = None,
    most_bases: int | None = BLOCK_BYTES,
) -> Iterator[Piece]:
    """Yields the records of a FASTA file in order, in memory that no long record makes grow.

    A header without sequence is a record without bases. Records of more than `most_bases` come in
    pieces, which `stats` counts once; with None each is whole, and too long a one an error. Else
    the arguments are those of `read_fasta_blocks`.
    """
    return _parse(path, ambiguous, stats, True, most_bases)


def _parse(
    path: str | Path,
    ambiguous: str,
    stats: SequenceStats | None,
    allow_empty: bool,
    most_bases: int | None,
    whole_headers: bool = False,
) -> Iterator[Piece]:
    check_choice("--config.data.ambiguous", ambiguous, AMBIGUOUS_POLICIES)
    parser = _Parser(
        display(path), ambiguous, allow_empty, whole_header if whole_headers else record_id
    )
    empty = True
    for chunk in read_text(path):
        before = parser.drained, parser.drained_ambiguous
        found = parser.feed(chunk)
        empty = False
        if found:
            if stats is not None:
                stats.add(found, *before)
            yield Piece(found, before[0] > 0, open=False)
        if most_bases is None:
            parser.check_whole()
        elif parser.open_bases() > most_bases:
            begun = parser.drained > 0
            yield Piece(parser.drain(), begun, open=True)
    if empty:
        raise UserError(f"{display(path)} is empty; give a FASTA file with at least one record")
    before = parser.drained, parser.drained_ambiguous
    for found in parser.finish():
        if stats is not None:
            stats.add(found, *before)
        yield Piece(found, before[0] > 0, open=False)
        before = parser.drained, parser.drained_ambiguous


class _Parser:
    """Turns blocks cut anywhere into whole records.

    Lives between two blocks: a header line that is not complete (`carry`), and the record whose
    sequence may go on (`header`, `header_line`, `parts`).
    """

    def __init__(
        self,
        name: str,
        ambiguous: str,
        allow_empty: bool,
        record_name: Callable[[bytes, int], str],
    ) -> None:
        self.name, self.ambiguous, self.allow_empty = name, ambiguous, allow_empty
        self.record_name = record_name
        self.table = _table(ambiguous)
        self.lines = 0  # line ends before the present block
        self.records = 0  # records handed out
        self.line_start = True  # whether the next block begins a line
        self.carry = b""
        self.header: bytes | None = None
        self.header_line = 0
        self.parts: list[Codes] = []
        # Bases of the open record that were handed out before it ended; how many are no base.
        self.drained = self.drained_ambiguous = 0

    def feed(self, chunk: bytes) -> Records | None:
        """Takes the next bytes; returns the records that they complete."""
        text = self.carry + chunk if self.carry else chunk
        raw = np.frombuffer(text, dtype=np.uint8)
        newlines = np.flatnonzero(raw == _NEWLINE)
        starts = newlines + 1
        if self.line_start:
            starts = np.concatenate([[0], starts])
        starts = starts[starts < raw.size]
        special = starts[(raw[starts] == _HEADER) | (raw[starts] == _COMMENT)]
        line_of_special = np.searchsorted(newlines, special)
        self.carry = b""
        if special.size and line_of_special[-1] == newlines.size:  # its end is in the next block
            cut = int(special[-1])
            self.carry, text, raw = text[cut:], text[:cut], raw[:cut]
            special, line_of_special = special[:-1], line_of_special[:-1]
            self.line_start = True
            if len(self.carry) > _MAX_HEADER_BYTES:
                self._refuse(
                    newlines.size,
                    f"a header of more than {_MAX_HEADER_BYTES >> 20} MiB in one line",
                )
        elif text:
            self.line_start = text[-1] == _NEWLINE

        codes = np.frombuffer(bytearray(text).translate(self.table), dtype=np.uint8)
        binary = codes == _BINARY
        if binary.any():
            where = int(binary.argmax())
            line = np.searchsorted(newlines, where)
            self._refuse(line, f"the byte 0x{text[where]:02x}: this is not text")
        stops = newlines[line_of_special]
        for start, stop in zip(special.tolist(), stops.tolist(), strict=True):
            codes[start:stop] = _SKIP
        keep = codes != _SKIP
        is_header = raw[special] == _HEADER
        heads = special[is_header]
        # Where each record begins among the bases: its place less what is skipped before it.
        cuts = heads - np.searchsorted(np.flatnonzero(~keep), heads)
        bases = codes[keep]
        if self.header is None and bases.size and (not cuts.size or cuts[0] > 0):
            where = int(keep.argmax())
            self._refuse_start(np.searchsorted(newlines, where), text[where : where + 20])
        if bases.size and bases.max() > UNIFORM:
            where = int(np.flatnonzero(keep & (codes > UNIFORM))[0])
            self._refuse_letter(text, where, keep, heads, stops[is_header], newlines)
        headers = [
            text[start + 1 : stop]
            for start, stop in zip(heads.tolist(), stops[is_header].tolist(), strict=True)
        ]
        header_lines = self.lines + line_of_special[is_header] + 1
        self.lines += newlines.size
        return self._assemble(headers, header_lines, cuts, bases)

    def drain(self) -> Records:
        """Hands out what there is of the open record, which goes on."""
        codes = np.concatenate([*self.parts, _NO_BASES])
        self.parts, self.drained = [], self.drained + codes.size
        self.drained_ambiguous += int((codes >= UNKNOWN).sum())
        header = self.header or b""
        offsets = np.array([0, codes.size])
        return Records([record_id(header, self.records + 1)], codes, offsets)

    def finish(self) -> Iterator[Records]:
        """Yields what the end of the file completes."""
        if self.carry and (found := self.feed(b"\n")):  # a last line without its end
            yield found
        if self.header is None:
            raise UserError(
                f"{self.name} contains no records; legal: FASTA, that is headers that begin with "
                ">, each followed by its sequence"
            )
        yield self._hand_out([self.header], [self.header_line], self.parts, [self.open_bases()])
        self.drained = self.drained_ambiguous = 0

    def _assemble(
        self,
        headers: list[bytes],
        header_lines: NDArray[np.int64],
        cuts: NDArray[np.int64],
        bases: Codes,
    ) -> Records | None:
        if not headers:
            self.parts.append(bases)
            return None
        lengths = np.diff(cuts)
        done, lines, parts = headers[:-1], header_lines[:-1].tolist(), [bases[: cuts[-1]]]
        if self.header is not None:
            lengths = np.concatenate([[self.open_bases() + cuts[0]], lengths])
            done, lines, parts = (
                [self.header, *done],
                [self.header_line, *lines],
                self.parts + parts,
            )
        self.header, self.header_line = headers[-1], int(header_lines[-1])
        self.drained = self.drained_ambiguous = 0
        self.parts = [bases[cuts[-1] :]]
        return self._hand_out(done, lines, parts, lengths) if done else None

    def _hand_out(
        self, headers: list[bytes], lines: list[int], parts: list[Codes], lengths: NDArray | list
    ) -> Records:
        ids = [
            self.record_name(header, number)
            for number, header in enumerate(headers, self.records + 1)
        ]
        offsets = np.zeros(len(headers) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        for header, line in zip(headers, lines, strict=True):
            if b"\r" in header and b"\r" in header.rstrip():  # the records are in the header
                raise UserError(
                    f"{self.name}, line {line} is a header with CR in it, so some lines end with "
                    "CR alone, as on old Macs, and others with LF; convert them all to LF"
                )
        empty = np.flatnonzero(np.diff(offsets) == 0)
        if empty.size and not self.allow_empty:
            first = int(empty[0])
            raise UserError(
                f"{self.name}, record '{ids[first]}', line {lines[first]} has no sequence; each "
                "header needs at least one base after it"
            )
        self.records += len(headers)
        codes = parts[0] if len(parts) == 1 else np.concatenate([*parts, _NO_BASES])
        return Records(ids, codes, offsets)

    def check_whole(self) -> None:
        """Refuses an open record that no memory needs to hold."""
        if self.open_bases() > _MOST_WHOLE_BASES:
            raise UserError(
                f"{self.name}, record '{record_id(self.header or b'', self.records + 1)}', line "
                f"{self.header_line} has more than {_MOST_WHOLE_BASES:,} bases, but must be read "
                "in one piece; cut it into windows"
            )

    def open_bases(self) -> int:
        """Bases of the open record that were not handed out yet."""
        return sum(part.size for part in self.parts)

    def _refuse(self, line: int | np.integer, what: str) -> None:
        raise UserError(f"{self.name}, line {self.lines + line + 1} has {what}; give a FASTA file")

    def _refuse_start(self, line: int | np.integer, text: bytes) -> None:
        found = text.split(b"\n")[0].strip().decode("ascii", "replace")
        hint = " (a FASTQ file?)" if found.startswith("@") else ""
        if any(mark in found for mark in "\t,;"):
            hint = " (a table? `train` and `evaluate` take one as --table)"
        raise UserError(
            f"{self.name}, line {self.lines + line + 1}: {found!r} comes before the first header"
            f"{hint}; legal: FASTA, whose first line begins with >"
        )

    def _refuse_letter(
        self,
        text: bytes,
        where: int,
        keep: NDArray[np.bool_],
        heads: NDArray[np.int64],
        stops: NDArray[np.int64],
        newlines: NDArray[np.int64],
    ) -> None:
        record = int(np.searchsorted(heads, where)) - 1
        if record < 0:
            header = self.header or b""
            offset = self.drained + self.open_bases() + int(keep[:where].sum())
        else:
            header = text[heads[record] + 1 : stops[record]]
            offset = int(keep[heads[record] : where].sum())
        name = record_id(header, self.records + (self.header is not None) + record + 1)
        letter = text[where : where + 1].decode("latin-1")
        line = self.lines + int(np.searchsorted(newlines, where)) + 1
        legal = " ".join(known for known in ascii_uppercase if self.table[ord(known)] <= UNIFORM)
        raise UserError(
            f"{self.name}, record '{name}', line {line}, offset {offset}: letter {letter!r} is not "
            f"a base{self._hint(letter)}; legal: {legal}"
        )

    def _hint(self, letter: str) -> str:
        if _table("zero")[ord(letter)] == UNKNOWN:
            return ", and --config.data.ambiguous=error refuses it (legal: zero, uniform)"
        if letter in "-.":
            return " (an alignment? remove its gaps)"
        return " (a protein?)" if letter.upper() in "EFIJLOPQXZ*" else ""


def record_id(header: bytes, number: int) -> str:
    """Returns the id of the record `number` (from 1): its header, without >, up to a blank."""
    words = header.replace(_JOINT, b" ").split(None, 1)
    return words[0].decode("utf-8", "replace") if words else f"record{number}"


def whole_header(header: bytes, number: int) -> str:
    """Returns the header of a record, without > and with a blank for each stretch of them."""
    del number
    return " ".join(header.replace(_JOINT, b" ").decode("utf-8", "replace").split())


@cache
def _table(ambiguous: str) -> bytes:
    """Returns the 256 bytes that letters, white space and everything else become."""
    table = bytearray([_INVALID]) * 256
    for byte in range(256):
        if byte in _WHITESPACE:
            table[byte] = _SKIP
        elif byte in _JOINT:
            continue  # refused as a letter
        elif byte < 32 or byte == 127:
            table[byte] = _BINARY
        else:
            try:
                table[byte] = int(encode(bytes([byte]), ambiguous)[0])
            except UserError:
                continue  # stays _INVALID
    return bytes(table)
