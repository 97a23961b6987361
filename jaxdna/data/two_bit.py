"""Genomes in UCSC's .2bit format: four bases a byte, each chromosome found through an index.

Source: https://genome.ucsc.edu/FAQ/FAQformat.html#format7
"""

import struct
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from jaxdna.errors import UserError

MAGIC = {b"\x43\x27\x41\x1a": "<", b"\x1a\x41\x27\x43": ">"}  # first bytes: the order of bytes
_OFFSETS = {0: "I", 1: "Q"}  # version: integers that say where a record begins
# What each byte holds, first base in its highest bits: bytes [256, 4].
_UNPACKED = np.frombuffer(b"TCAG", dtype=np.uint8)[np.arange(256)[:, None] >> [6, 4, 2, 0] & 3]

Read = Callable[[int, int], bytes]


class TwoBit:
    """The chromosomes of an open .2bit file.

    Attributes:
      lengths: bases of each chromosome, in the order of the file.
    """

    def __init__(self, read: Read, name: str) -> None:
        """Reads the index.

        Args:
          read: takes a place in the file and a number of bytes, and returns those that are there.
          name: the file, for the sentence.

        Raises:
          UserError: the file is damaged or of another version.
        """
        self._read, self._name = read, name
        self._order = MAGIC[read(0, 4)]
        version, count, _ = self._integers(4, 3)
        if version not in _OFFSETS:
            raise UserError(f"genome {name} is .2bit of version {version}; legal: version 0 or 1")
        kind = _OFFSETS[version]
        begins: dict[str, int] = {}
        place = 16
        for _ in range(count):
            size = self._bytes(place, 1)[0]
            text = self._bytes(place + 1, size)
            (begin,) = self._integers(place + 1 + size, 1, kind)
            begins[text.decode("utf-8", "replace")] = begin
            place += 1 + size + struct.calcsize(kind)
        self._begins = begins
        self.lengths = {name: self._integers(at, 1)[0] for name, at in begins.items()}
        self._unknown: dict[str, tuple[NDArray[np.int64], NDArray[np.int64], int]] = {}

    def letters(self, chromosome: str, first: int, last: int) -> bytes:
        """Returns the letters of [first, last), which lie within the chromosome, in upper case."""
        starts, stops, packed = self._blocks(chromosome)
        begin = first // 4
        raw = np.frombuffer(self._bytes(packed + begin, (last + 3) // 4 - begin), dtype=np.uint8)
        letters = _UNPACKED[raw].reshape(-1)[first - 4 * begin : last - 4 * begin]
        for block in range(np.searchsorted(stops, first + 1), np.searchsorted(starts, last)):
            letters[max(starts[block] - first, 0) : stops[block] - first] = ord("N")
        return letters.tobytes()

    def _blocks(self, chromosome: str) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """Returns starts and stops of the stretches of N, and where the packed bases begin."""
        if chromosome not in self._unknown:
            place = self._begins[chromosome] + 4
            (count,) = self._integers(place, 1)
            table = np.array(self._integers(place + 4, 2 * count), dtype=np.int64).reshape(2, -1)
            place += 4 + 8 * count
            (masked,) = self._integers(place, 1)
            self._unknown[chromosome] = table[0], table.sum(axis=0), place + 8 + 8 * masked
        return self._unknown[chromosome]

    def _integers(self, place: int, count: int, kind: str = "I") -> tuple[int, ...]:
        layout = f"{self._order}{count}{kind}"  # no padding: an order of bytes is named
        return struct.unpack(layout, self._bytes(place, struct.calcsize(layout)))

    def _bytes(self, place: int, size: int) -> bytes:
        raw = self._read(place, size)
        if len(raw) < size:
            raise UserError(
                f"genome {self._name} is a truncated .2bit file; copy or download it again"
            )
        return raw
