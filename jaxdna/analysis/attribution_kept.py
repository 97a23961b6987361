"""What a stopped attribution has scored, so that the same command goes on from there."""

import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np

from jaxdna.analysis.attributed import Attributed
from jaxdna.data.sequences import Codes

_ARRAYS = ("codes", "hypothetical", "outputs", "change", "size")
_LENGTH_BYTES = 8
Draws = Iterable[tuple[list[str], Codes]]


class Kept:
    """Scores in the order of their sequences, in a file beside the output until that is whole.

    Each record is an NPZ file after its length; NPZ has checksums, which tell what a kill or a
    power cut has torn. The first record says what the scores depend on.

    Attributes:
      path: the file.
      used: sequences whose scores were kept.
    """

    def __init__(self, output: str, of: dict[str, Any]):
        """Names the file, beside `output`; nothing is written.

        Args:
          output: the file that the scores are for.
          of: whatever they depend on beside the sequences; those of something else are not used.
        """
        self.path = Path(output).with_name(f".{Path(output).name}.kept")
        self.used = 0
        self._of = json.dumps(of, sort_keys=True)
        self._file: IO[bytes] | None = None

    def resumed(
        self, draws: Draws, score: Callable[[Draws, int], Iterator[Attributed]]
    ) -> Iterator[Attributed]:
        """Yields the scores of all sequences: the kept ones, then those that `score` finds.

        A kept score is used only with the sequence that it belongs to.

        Args:
          draws: names and uint8 [sequences, length]; what is kept of a part of one is not used.
          score: (the draws from some one on, how many came before) -> their scores.
        """
        left, number = iter(draws), 0
        self._open()
        try:
            for ids, codes in left:
                parts = self._next(ids, codes)
                if not parts:
                    left = chain([(ids, codes)], left)
                    break
                yield from parts
                self.used += len(ids)
                number += 1
            for part in score(left, number):
                yield part
                self._add(part)
        finally:
            if self._file:
                self._file.close()

    def remove(self) -> None:
        """Removes the file, once the output is whole."""
        self.path.unlink(missing_ok=True)

    def _open(self) -> None:
        with suppress(OSError):
            self._file = self.path.open("r+b")
            if str(self._read().get("of")) != self._of:
                self._file.close()
                self._file = None

    def _read(self) -> dict[str, Any]:
        """The arrays of the next record; none where no whole one is."""
        assert self._file
        size = int.from_bytes(self._file.read(_LENGTH_BYTES), "little")
        with suppress(OSError, ValueError, BadZipFile, KeyError, EOFError):
            packed = self._file.read(size)
            if size and len(packed) == size:
                with np.load(io.BytesIO(packed)) as arrays:
                    return dict(arrays)
        return {}

    def _next(self, ids: list[str], codes: Codes) -> list[Attributed]:
        """The kept scores of these sequences; none, and no later ones, where they are of others."""
        if not self._file:
            return []
        begin, parts, count = self._file.tell(), list[Attributed](), 0
        while count < len(ids):
            found = self._read()
            own = slice(count, count + len(found.get("codes", ())))
            if not (
                own.stop > own.start
                and found["ids"].tolist() == ids[own]
                and np.array_equal(found["codes"], codes[own])
            ):
                self._file.seek(begin)
                self._file.truncate()
                return []
            count = own.stop
            arrays = {name: found[name] for name in _ARRAYS}
            parts.append(Attributed(ids[own], answers=tuple(found["answers"].tolist()), **arrays))
        return parts

    def _add(self, part: Attributed) -> None:
        with suppress(OSError):  # a full disk is what the output itself will tell of
            if not self._file:
                self._file = self.path.open("wb")
                self._write(of=np.array(self._of))
            own = {name: getattr(part, name) for name in _ARRAYS}
            self._write(ids=np.array(part.ids), answers=np.array(part.answers), **own)

    def _write(self, **arrays: Any) -> None:
        assert self._file
        packed = io.BytesIO()
        np.savez(packed, **arrays)
        self._file.write(packed.tell().to_bytes(_LENGTH_BYTES, "little") + packed.getvalue())
        self._file.flush()
