"""What a person should know about sequences that were read: counted block by block."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.records import Records
from jaxdna.data.sequences import UNKNOWN


@dataclass
class SequenceStats:
    """What was seen while reading one file or other source of sequences.

    Attributes:
      records: sequences.
      bases: letters of all sequences.
      ambiguous: letters other than A C G T U.
      unknown_records: sequences without a single known base.
      empty_records: headers without sequence.
      shortest: bases of the shortest sequence; 0 before the first one.
      longest: bases of the longest.
    """

    records: int = 0
    bases: int = 0
    ambiguous: int = 0
    unknown_records: int = 0
    empty_records: int = 0
    shortest: int = 0
    longest: int = 0
    _hashes: list[NDArray[np.int64]] = field(default_factory=list, repr=False)

    @property
    def ambiguous_fraction(self) -> float:
        """Share of letters that are no known base."""
        return self.ambiguous / max(1, self.bases)

    @property
    def duplicate_ids(self) -> int:
        """Records whose id an earlier record has; compared as 64-bit hashes, 8 bytes a record."""
        return self.records - np.unique(np.concatenate([[], *self._hashes])).size

    def add(self, block: Records, bases: int = 0, ambiguous: int = 0) -> None:
        """Counts one more block, whose first record began with so many bases before it."""
        lengths = block.lengths
        lengths[0] += bases
        self.bases += bases
        self.ambiguous += ambiguous
        unknown = np.flatnonzero(block.codes >= UNKNOWN)
        shortest = int(lengths.min())
        self.shortest = min(self.shortest, shortest) if self.records else shortest
        self.longest = max(self.longest, int(lengths.max()))
        self.records += len(block)
        self.bases += block.codes.size
        self.ambiguous += unknown.size
        self.empty_records += int((lengths == 0).sum())
        if unknown.size or ambiguous:
            in_each = np.diff(np.searchsorted(unknown, block.offsets))
            in_each[0] += ambiguous
            self.unknown_records += int(((in_each == lengths) & (lengths > 0)).sum())
        self._hashes.append(np.fromiter(map(hash, block.ids), np.int64, len(block)))

    def notes(self) -> list[str]:
        """Returns one sentence for each thing that a person should know about this file."""
        notes = []
        if self.ambiguous:
            notes.append(
                f"{self.ambiguous} of {self.bases} letters ({self.ambiguous_fraction:.3g}) "
                "are N or another ambiguous letter"
            )
        if self.unknown_records:
            notes.append(f"{self.unknown_records} of {self.records} sequences contain only N")
        if self.empty_records:
            notes.append(f"{self.empty_records} of {self.records} headers have no sequence")
        if duplicates := self.duplicate_ids:
            notes.append(f"{duplicates} of {self.records} records repeat an earlier id (kept)")
        return notes
