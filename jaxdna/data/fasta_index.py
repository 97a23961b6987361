"""Where the bases of each record lie in a FASTA file, so that any of them can be read at once."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from jaxdna.data.fasta import record_id
from jaxdna.data.streams import BOM, read_text
from jaxdna.errors import UserError

_SPECIAL_LINE = re.compile(rb"\n[>;]")
_BLANKS = b" \t\r\v\f"
_MAX_HEADER_BYTES = 2**20


class Entry(NamedTuple):
    """One record; its lines have one length, but for the last, which may be shorter.

    Attributes:
      bases: letters of the record.
      offset: of its first letter in the file, in bytes.
      line: letters of a line, each of which ends with one byte more.
    """

    bases: int
    offset: int
    line: int

    def place(self, base: int) -> int:
        """Returns where in the file the letter `base` (from 0) lies, in bytes."""
        lines, rest = divmod(base, self.line)
        return self.offset + lines * (self.line + 1) + rest


Index = dict[str, Entry]


def index_fasta(path: Path) -> Index | None:
    """Returns the records of a plain FASTA file by their ids.

    Returns:
      None where letters cannot be found by counting: lines of different lengths within a record,
      blanks, CR, comments, or a file that is compressed. `write_plain` mends that.

    Raises:
      UserError: the file cannot be read, holds no FASTA, or has an id twice.
    """
    with path.open("rb") as file:
        head = file.read(len(BOM))
    if head.startswith(b"\x1f\x8b"):
        return None
    begin = len(BOM) if head == BOM else 0  # which is in the file, and not in its blocks
    index: Index = {}
    name, lines = "", _Lines(0)
    for position, header, letters in _split(path, begin):
        if header is None:
            if not lines.add(letters):
                return None
        elif header.startswith(b";"):
            return None
        else:
            index[name] = lines.entry()
            name, lines = _new_id(header, index, path), _Lines(position)
    if lines.begun and not lines.add(b"\n"):  # a last line without its end
        return None
    index[name] = lines.entry()
    index.pop("", None)
    return index


def write_plain(path: Path, output: IO[bytes]) -> Index:
    """Writes a FASTA file, plain or compressed, with each record's letters in one line.

    Args:
      path: with lines of any lengths, blanks, any line ends, comments.
      output: where to, from its beginning.

    Raises:
      UserError: as `index_fasta`.
    """
    index: Index = {}
    name, offset, place = "", 0, 0
    for _, header, letters in _split(path):
        if header is None:
            place += output.write(letters.translate(None, _BLANKS + b"\n"))
        elif not header.startswith(b";"):
            index[name] = Entry(place - offset, offset, max(place - offset, 1))
            name = _new_id(header, index, path)
            offset = place = place + output.write(b"\n>" + name.encode() + b"\n")
    index[name] = Entry(place - offset, offset, max(place - offset, 1))
    index.pop("")
    return index


class _Lines:
    """Whether the lines of a record have one length, told from blocks that are cut anywhere."""

    def __init__(self, offset: int) -> None:
        self.offset, self.bases = offset, 0
        self.width = 0  # letters of a line, and its end
        self.begun = 0  # letters of the line that goes on in the next block
        self.ended = False  # whether a shorter line has been seen

    def add(self, letters: bytes) -> bool:
        """Takes the next bytes of the record; False where they do not fit."""
        if len(letters.translate(None, _BLANKS)) < len(letters):
            return False
        ends = np.flatnonzero(np.frombuffer(letters, dtype=np.uint8) == ord("\n"))
        if not ends.size:
            self.begun += len(letters)
            return True
        widths = np.diff(ends, prepend=-1)
        widths[0] += self.begun
        self.begun = len(letters) - int(ends[-1]) - 1
        self.bases += int(widths.sum()) - widths.size
        self.width = self.width or int(widths[0])
        other = np.flatnonzero(widths != self.width)
        # Blank lines at the end are no harm.
        late = widths if self.ended else widths[other[0] + 1 :] if other.size else widths[:0]
        longer = other.size and not self.ended and widths[other[0]] > self.width
        self.ended |= bool(other.size)
        return not longer and not (late > 1).any() and self.width > 1

    def entry(self) -> Entry:
        """Returns the record, all of whose lines have been added."""
        return Entry(self.bases, self.offset, max(self.width - 1, 1))


def _new_id(header: bytes, index: Index, path: Path) -> str:
    if b"\r" in header:
        raise UserError(
            f"genome {path} has a header with CR in it, so some lines end with CR alone, as on "
            "old Macs, and others with LF; convert them all to LF"
        )
    name = record_id(header[1:], len(index))
    if name in index:
        raise UserError(
            f"genome {path} cannot be indexed ({name} occurs twice); give each sequence a "
            "different name"
        )
    return name


def _split(path: Path, position: int = 0) -> Iterator[tuple[int, bytes | None, bytes]]:
    """Yields each header or comment line, and the letters between them in parts of any size.

    Args:
      path: the file.
      position: of its first block in it, in bytes.

    Yields:
      The place in the file behind the header or of the first letter, in bytes (decompressed ones);
      the line with its > or ; but without its end, or None; the letters with their line ends.
    """
    held, line_begins, seen = b"", True, False
    for block in read_text(path):
        text, at, held = held + block, 0, b""
        while at < len(text):
            if line_begins and text[at] in b">;":
                end = text.find(b"\n", at)
                if end < 0:
                    held = text[at:]
                    if len(held) > _MAX_HEADER_BYTES:
                        raise UserError(
                            f"genome {path} has a header of more than {_MAX_HEADER_BYTES >> 20} "
                            "MiB; legal: FASTA, with lines that end with LF"
                        )
                    break
                yield position + end + 1, text[at:end].rstrip(), b""
                seen |= text[at] == ord(">")
                at = end + 1
                continue
            special = _SPECIAL_LINE.search(text, at)
            stop = special.start() + 1 if special else len(text)
            letters = text[at:stop]
            if not seen and letters.strip():
                found = letters.strip().split(b"\n")[0][:20].decode("ascii", "replace")
                raise UserError(
                    f"genome {path}: {found!r} comes before the first header; legal: FASTA, whose "
                    "first line begins with >, plain, gzip or bgzip, or .2bit"
                )
            if seen:
                yield position + at, None, letters
            line_begins = letters.endswith(b"\n")
            at = stop
        position += len(text) - len(held)
    if held:
        yield position + len(held), held.rstrip(), b""
        seen |= held.startswith(b">")
    if not seen:
        raise UserError(f"genome {path} contains no records; legal: FASTA, plain or compressed")
