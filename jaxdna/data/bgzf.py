"""Writes bgzip's format: gzip in blocks, so that tabix and bcftools can index what is in it.

A reader of gzip sees members one after the other. Each names its size in an extra field, and an
empty one ends the file (SAM specification, section 4.1).
"""

import io
import struct
import zlib
from typing import IO, Any

_BLOCK_BYTES = 0xFF00  # of text: even what does not compress stays below 64 KiB
_HEADER = struct.Struct("<4BI2BH2BHH")
_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


class BgzfWriter(io.BufferedIOBase):
    """A binary file to write to; closing it writes the end and leaves `raw` open."""

    def __init__(self, raw: IO[bytes], level: int):
        """Writes into `raw`, compressed at a level of zlib."""
        self._raw, self._level, self._held = raw, level, bytearray()

    def writable(self) -> bool:
        """Returns True."""
        return True

    def write(self, data: Any) -> int:
        """Takes bytes; whole blocks are written at once."""
        self._held += data
        full = len(self._held) - len(self._held) % _BLOCK_BYTES
        for first in range(0, full, _BLOCK_BYTES):
            self._write_block(self._held[first : first + _BLOCK_BYTES])
        del self._held[:full]
        return len(data)

    def close(self) -> None:
        """Writes what is held back, and the empty block."""
        if not self.closed:
            if self._held:
                self._write_block(self._held)
            self._raw.write(_END)
        super().close()

    def _write_block(self, text: bytearray) -> None:
        deflate = zlib.compressobj(self._level, zlib.DEFLATED, -15)
        packed = deflate.compress(text) + deflate.flush()
        size = _HEADER.size + len(packed) + 8
        # gzip's magic, deflate, an extra field; no time, no flags, no system; 6 bytes: BC, 2, size
        self._raw.write(_HEADER.pack(31, 139, 8, 4, 0, 0, 255, 6, 66, 67, 2, size - 1))
        self._raw.write(packed)
        self._raw.write(struct.pack("<II", zlib.crc32(text), len(text)))
