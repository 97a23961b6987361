"""How a code store is filled: part after part, in memory that the sequences do not make grow."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from jaxdna.data.duplicates import sequence_keys
from jaxdna.data.records import SHOWN, Records, fit_rows, misfit_error, misfits
from jaxdna.data.sequence_stats import SequenceStats
from jaxdna.data.sequences import Codes
from jaxdna.data.streams import display
from jaxdna.errors import UserError

KEYS = "keys"  # the column of `sequence_keys` before any padding or cropping
_CHUNK_BASES = 8 * 2**20  # that are fitted at once


class StoreWriter:
    """Writes sequences of any lengths one after the other, and at the end gives them one length.

    Attributes:
      counts: records of each part so far.
    """

    def __init__(self, folder: Path, policy: str, length: int, width: int) -> None:
        """Begins a store.

        Args:
          folder: where; it is there and empty.
          policy: of `fit_length`.
          length: bases of each row; 0 takes the length of the first record (`error`), of the
            shortest (`center_crop`) or of the longest (`pad`).
          width: bases that a filter spans, for the sentence of `fit_length`.
        """
        self.counts: list[int] = []
        self._folder, self._policy, self._length, self._width = folder, policy, length, width
        self._named = length > 0
        self._parts: list[tuple[SequenceStats, list[str]]] = []
        self._lengths = [np.empty(0, dtype=np.int64)]
        self._columns: dict[str, NDArray] = {}
        self._made: dict[str, Callable[[Codes], NDArray]] = {}
        self._open = ExitStack()
        self._codes = self._open.enter_context((folder / "codes.npy").open("wb"))
        self._ids = self._open.enter_context((folder / "ids.txt").open("wb"))
        _write_header(self._codes, (0,))
        self._begin = self._codes.tell()

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def add(self, name: str, blocks: Iterable[Records], notes: Sequence[str] = ()) -> None:
        """Writes one more part.

        Args:
          name: the file or the kind of its sequences, for the sentence.
          blocks: its records, in order.
          notes: what a person should know about it, beside what is counted here.

        Raises:
          UserError: a length that the policy does not mend.
        """
        stats, before, refused = SequenceStats(), len(self._lengths), list[str]()
        for block in blocks:
            stats.add(block)
            self._lengths.append(block.lengths)
            if self._policy == "error" and not self._length:
                self._length = int(block.lengths[0])
            if self._length:
                wrong = misfits(block.lengths, self._length, self._policy)
                refused += [block.ids[i] for i in wrong[: SHOWN - len(refused)]]
            if refused:
                continue  # to the end, since the sentence is about the whole file
            self._codes.write(np.ascontiguousarray(block.codes).data)
            self._ids.write("".join(f"{one}\n" for one in block.ids).encode())
        if refused:
            lengths = np.concatenate(self._lengths[before:])
            source, width, named = display(name), self._width, self._named
            raise misfit_error(refused, lengths, self._length, self._policy, source, width, named)
        self._parts.append((stats, [*notes, *stats.notes()]))
        self.counts.append(stats.records)

    def add_changed(
        self, suffix: str, change: Callable[[Records, Codes, int | None], None]
    ) -> None:
        """Writes a part that has, for each record so far, another one of the same length.

        What is cropped away at the end is not seen by a network: a shuffle over more than the
        middle that stays would have another composition there than its original.

        Args:
          suffix: what is added to the records' ids.
          change: takes the records so far, fills uint8 [bases], theirs in the same places, and is
            told how many bases of the middle of each are kept (None: all of them).
        """
        records = self.records()
        cropped = self._policy == "center_crop"
        if cropped and not self._length:
            self._length = int(records.lengths.min())
        # A full disk fails a write; a mapped page that has no place on it yet kills the process.
        for first in range(0, records.codes.size, _CHUNK_BASES):
            self._codes.write(bytes(min(_CHUNK_BASES, records.codes.size - first)))
        self._codes.flush()
        changed = self._map(records.codes.size, records.codes.size)
        change(records, changed, self._length if cropped else None)
        changed.flush()
        self._ids.flush()
        with open(self._ids.name, "rb") as ids:
            end = os.fstat(ids.fileno()).st_size
            while ids.tell() < end:
                self._ids.write(ids.readline().removesuffix(b"\n") + suffix.encode() + b"\n")
        given = [stats for stats, _ in self._parts]
        stats = SequenceStats(
            records=len(records),
            bases=records.codes.size,
            shortest=min(part.shortest for part in given),
            longest=max(part.longest for part in given),
        )
        self._lengths.append(records.lengths)
        self._parts.append((stats, []))
        self.counts.append(stats.records)

    def add_column(self, name: str, values: NDArray) -> None:
        """Stores an array beside the sequences, such as their classes."""
        self._columns[name] = values

    def add_made_column(self, name: str, make: Callable[[Codes], NDArray]) -> None:
        """Stores an array that `make` gets from all sequences once they have one length.

        Args:
          name: of the column.
          make: takes uint8 [records, length], memory-mapped.
        """
        self._made[name] = make

    def records(self) -> Records:
        """Returns what was written so far, memory-mapped, with numbers in place of the ids."""
        lengths = np.concatenate(self._lengths)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        self._codes.flush()
        return Records(range(len(lengths)), self._map(0, int(offsets[-1])), offsets)  # type: ignore[arg-type]

    def finish(self) -> None:
        """Gives all sequences one length, and writes what else a store has."""
        records = self.records()
        self.add_column(KEYS, sequence_keys(records))
        stats = [part for part, _ in self._parts]
        if not self._length:
            shortest, longest = min(s.shortest for s in stats), max(s.longest for s in stats)
            self._length = shortest if self._policy == "center_crop" else longest
        if (records.lengths == self._length).all():
            self._codes.seek(0)
            _write_header(self._codes, (len(records), self._length))
            assert self._codes.tell() == self._begin, "numpy's header has not left its place"
            self._open.close()
        else:
            self._open.close()
            self._fit(records)
        for name, make in self._made.items():
            self.add_column(name, make(np.load(self._folder / "codes.npy", mmap_mode="r")))
        with (self._folder / "lengths.npy").open("wb") as file:
            np.save(file, records.lengths)
        with (self._folder / "columns.npz").open("wb") as file:
            np.savez(file, **self._columns)  # type: ignore[arg-type]
        meta = {
            "counts": self.counts,
            "shortest": [part.shortest for part in stats],
            "notes": [notes + self._fit_notes(part) for part, notes in self._parts],
        }
        with (self._folder / "store.json").open("wb") as file:
            file.write(json.dumps(meta, indent=1).encode())

    def _fit(self, records: Records) -> None:
        """Replaces the sequences as they came by those of one length."""
        length, offsets = self._length, records.offsets
        needed, free = len(records) * length, shutil.disk_usage(self._folder).free
        if needed > free:
            raise UserError(
                f"--config.data.lengths={self._policy} makes {len(records):,} rows of {length:,} "
                f"bases, {needed / 1e9:,.1f} GB, but only {free / 1e9:,.1f} GB are free in "
                f"{self._folder.parent}; give a smaller --config.data.length, or another "
                "--config.runtime.data_cache"
            )
        rows = max(1, _CHUNK_BASES // max(length, int(records.lengths.max())))
        with (self._folder / "fitted.npy").open("wb") as file:
            _write_header(file, (len(records), length))
            for first in range(0, len(records), rows):
                cuts = offsets[first : first + rows + 1]
                codes, ids = records.codes[cuts[0] : cuts[-1]], records.ids[first : first + rows]
                file.write(fit_rows(Records(ids, codes, cuts - cuts[0]), length).data)
        os.replace(self._folder / "fitted.npy", self._folder / "codes.npy")

    def _fit_notes(self, stats: SequenceStats) -> list[str]:
        length, done = self._length, {"pad": "padded"}.get(self._policy, "cropped to their middle")
        if stats.shortest == stats.longest == length:
            return []
        return [
            f"sequences of {stats.shortest} to {stats.longest} bases are {done}: {length} bases"
        ]

    def _map(self, first: int, bases: int) -> Any:
        if not bases:
            return np.empty(0, dtype=np.uint8)
        return np.memmap(self._codes.name, np.uint8, "r+", self._begin + first, (bases,))


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    """Numpy leaves room in the header for the first axis to grow, so it can be rewritten."""
    header: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(file, header)
