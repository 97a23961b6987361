"""Bytes and lines of what the user names: a path, a gzip or bgzip file, or `-` for stdin."""

import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import IO

from jaxdna.data.memory import require_memory
from jaxdna.errors import UserError
from jaxdna.progress import counted
from jaxdna.storage.fetched import open_input
from jaxdna.storage.places import Url, input_place

BLOCK_BYTES = 8 * 2**20
_GZIP_READ_BYTES = 2**17  # a bgzip member is 64 KiB at most: what is left of a read is copied often
_MUCH_BYTES = BLOCK_BYTES
STREAMED = 2 * BLOCK_BYTES  # what whoever keeps no row needs: a block, and what is made of it
_KEPT = 256 * 2**20  # what the rows of a block may take as objects of Python
_MAX_LINE_BYTES = 64 * 2**20
_GZIP = b"\x1f\x8b"
_OTHER_FORMATS = {  # first bytes of what people also have lying around
    b"PK\x03\x04": "a zip archive, as an .xlsx file is",
    b"BZh": "bzip2-compressed",
    b"\xfd7zXZ": "xz-compressed",
    b"\x28\xb5\x2f\xfd": "zstd-compressed",
    b"\x1a\x41\x27\x43": "a 2bit file",
    b"\x43\x27\x41\x1a": "a 2bit file",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
_MAGIC_BYTES = max(map(len, _OTHER_FORMATS))
BOM = b"\xef\xbb\xbf"


def read_blocks(path: str | Path, spare: int = STREAMED) -> Iterator[bytes]:
    """Yields the content of a file in blocks, decompressed where its first bytes say gzip.

    Args:
      path: a file, or `-` for stdin.
      spare: bytes of memory that the caller needs to go on with one more block.

    Yields:
      `BLOCK_BYTES` bytes each, the last block fewer, and the first without the mark of UTF-8
      (`BOM`) that it may begin with; nothing for an empty file.

    Raises:
      UserError: the file cannot be read, is damaged, is in a format that must be unpacked first, or
        is so large that what was read of it has filled the memory.
    """
    try:
        with _open(path) as file:
            head = file.read(_MAGIC_BYTES)
            for magic, what in _OTHER_FORMATS.items():
                if head.startswith(magic):
                    raise UserError(
                        f"{display(path)} is {what}; legal: plain text, gzip or bgzip (convert it)"
                    )
            size = _GZIP_READ_BYTES if head.startswith(_GZIP) else BLOCK_BYTES
            read = chain([head], iter(lambda: file.read(size), b""))
            pieces = counted(f"reading {Path(display(path)).name}", read, _size(file), len)
            done = 0
            for block in _regroup(_gunzip(pieces, path) if head.startswith(_GZIP) else pieces):
                if not done:
                    block = block.removeprefix(BOM)
                done += len(block)
                if done > _MUCH_BYTES:  # whoever keeps what is read has little by little filled it
                    require_memory(
                        spare,
                        f"{display(path)}: reading on after {done / 1e9:,.1f} GB of text",
                        "a smaller file, or more memory",
                    )
                if block:
                    yield block
    except OSError as error:
        raise UserError(
            f"{display(path)} cannot be read ({reason(error, path)}); give a file that exists, or "
            "- for stdin"
        ) from error


def read_text(path: str | Path, spare: int = STREAMED) -> Iterator[bytes]:
    """Yields what `read_blocks` does, each CR as LF in a file whose lines end with CR alone.

    Old Macs wrote such files, and spreadsheets call them text. The first block in whose middle a
    line ends says which they are.
    """
    old_mac = None
    for block in read_blocks(path, spare):
        if old_mac is None:
            text = block.rstrip(b"\r\n")
            old_mac = False if b"\n" in text else b"\r" in text or None
        yield block.replace(b"\r", b"\n") if old_mac else block


def read_lines(path: str | Path, spare: int = _KEPT) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, text without its line end) of a text file, plain or gzipped.

    Lines end with LF or CR LF, or with CR as in `read_text`, and with nothing else that Unicode
    calls a line end: an id may hold any of those.

    Args:
      path: a file, or `-` for stdin.
      spare: see `read_blocks`; `STREAMED` where the caller keeps no row.

    Raises:
      UserError: as `read_blocks`; also for a file that is empty or binary.
    """
    number, carry, empty = 0, b"", True
    for block in read_text(path, spare):
        if b"\0" in block:
            raise UserError(f"{display(path)} is binary; give a text file, plain or gzipped")
        empty = False
        *lines, carry = (carry + block).split(b"\n")
        if len(carry) > _MAX_LINE_BYTES:
            raise UserError(
                f"{display(path)}, line {number + len(lines) + 1} is longer than "
                f"{_MAX_LINE_BYTES >> 20} MiB; legal: one row per line"
            )
        for line in lines:
            number += 1
            yield number, line.rstrip(b"\r").decode("utf-8", "replace")
    if empty:
        raise UserError(f"{display(path)} is empty; give a file with at least one row")
    if carry:
        yield number + 1, carry.rstrip(b"\r").decode("utf-8", "replace")


def _size(file: IO[bytes]) -> int | None:
    """Returns the bytes of a file; None for what has no size, such as a pipe."""
    try:
        return os.fstat(file.fileno()).st_size or None
    except OSError:  # what a URL names, or stdin where a program has replaced it
        return getattr(getattr(file, "raw", None), "size", None)


def display(path: str | Path) -> str:
    """Returns the name of an input for people: the path, or `stdin`."""
    return "stdin" if str(path) == "-" else str(path)


def reason(error: OSError, path: str | Path) -> str:
    """Returns why a file cannot be read, and from where a relative path was followed.

    A run keeps the paths that it was given, and may be asked from another folder.
    """
    cause = (error.strerror or str(error)).lower()
    place = input_place(path)
    whole = isinstance(place, Url) or place.is_absolute() or str(path) == "-"
    return cause if whole else f"{cause} in {Path.cwd()}"


def _open(path: str | Path) -> nullcontext[IO[bytes]] | IO[bytes]:
    return nullcontext(sys.stdin.buffer) if str(path) == "-" else open_input(path)


def _regroup(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Joins pieces of any size into blocks of `BLOCK_BYTES`."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= BLOCK_BYTES:
            joined = b"".join(held)
            yield joined[:BLOCK_BYTES]
            held = [joined[BLOCK_BYTES:]]
            size -= BLOCK_BYTES
    if size:
        yield b"".join(held)


def _gunzip(pieces: Iterable[bytes], path: str | Path) -> Iterator[bytes]:
    """Inflates gzip members one after the other (bgzip is many), in bounded memory."""
    inflate = zlib.decompressobj(wbits=31)  # 31: a gzip header, and its checksum is verified
    try:
        for piece in pieces:
            while piece:
                if inflate.eof:
                    piece = piece.lstrip(b"\0")  # tape padding between members is legal
                    if not piece:
                        break
                    inflate = zlib.decompressobj(wbits=31)
                yield inflate.decompress(piece, BLOCK_BYTES)
                piece = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
    except zlib.error as error:
        raise UserError(
            f"{display(path)} is a damaged gzip file ({error}); copy it again"
        ) from None
    if not inflate.eof:
        raise UserError(f"{display(path)} is a truncated gzip file; copy or download it again")
