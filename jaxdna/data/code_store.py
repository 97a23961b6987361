"""Sequences converted once to a memory-mapped array of codes, found again by their digests."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.records import LENGTH_POLICIES, Records, check_choice, check_minimum
from jaxdna.data.sequences import Codes
from jaxdna.data.store_writer import StoreWriter
from jaxdna.errors import UserError
from jaxdna.storage.disk import DiskFolder
from jaxdna.storage.home import user_cache
from jaxdna.storage.made_once import made_once
from jaxdna.storage.manifest import damage
from jaxdna.storage.places import disk_path

_FORMAT = 6  # part of the key: a change of the files' meaning makes new stores


@dataclass(frozen=True)
class CodeStore:
    """Converted sequences on disk; nothing is in memory until it is indexed.

    Attributes:
      folder: holds codes.npy, lengths.npy, columns.npz, ids.txt, store.json and a manifest.
      codes: uint8 [records, length] memory-mapped.
      counts: records of each part, in the order in which they were added.
      notes: for each part, what a person should know (ambiguous letters, repeated ids, ...).
      shortest: bases of each part's shortest sequence, before any padding or cropping.
      columns: other arrays, by the names under which they were added.
    """

    folder: Path
    codes: Codes
    counts: tuple[int, ...]
    notes: tuple[tuple[str, ...], ...]
    shortest: tuple[int, ...]
    columns: dict[str, NDArray]

    def __len__(self) -> int:
        return sum(self.counts)

    @cached_property
    def ids(self) -> list[str]:
        """The records' ids in order; read from disk when first asked for."""
        return (self.folder / "ids.txt").read_bytes().decode("utf-8").split("\n")[:-1]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """int64 [records], bases of each sequence before any padding or cropping."""
        return np.load(self.folder / "lengths.npy")

    def check_minimum(self, width: int, names: Sequence[str]) -> None:
        """Raises UserError where a sequence is shorter than a filter of `width` bases.

        Args:
          width: bases that a filter spans.
          names: of the parts, for the sentence.
        """
        ends = np.cumsum(self.counts).tolist()
        for name, end, count, shortest in zip(names, ends, self.counts, self.shortest, strict=True):
            if shortest < width:
                lengths = self.lengths[end - count : end]
                offsets = np.concatenate([[0], np.cumsum(lengths)])
                records = Records(self.ids[end - count : end], self.codes[:0, 0], offsets)
                check_minimum(records, width, name)


def find_or_make(
    key: Any,
    cache: str | Path,
    fill: Callable[[StoreWriter], None],
    lengths: str = "error",
    length: int = 0,
    width: int = 1,
) -> CodeStore:
    """Returns the store that an earlier call made for the same key, or makes it.

    Any number of processes may call it at once with one cache: one of them makes the store while
    the others wait, and a store appears whole or not at all.

    Args:
      key: all that decides what `fill` writes, the digests of its inputs among it, as JSON has it.
      cache: folder of all stores; made if absent. Each store is a folder in it, named by its key.
      fill: writes the sequences.
      lengths: a policy of `fit_length`.
      length: bases of each row; 0 takes the common length (`error`), the shortest (`center_crop`)
        or the longest (`pad`).
      width: bases that a filter spans; see `fit_length`.

    Raises:
      UserError: `fill` does, or a sequence has a length that the policy refuses.
    """
    check_choice("--config.data.lengths", lengths, LENGTH_POLICIES)
    settings = [_FORMAT, key, lengths, length]
    target = Path(cache) / hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:20]

    def make(folder: Path) -> None:
        with StoreWriter(folder, lengths, length, width) as writer:
            fill(writer)
            writer.finish()

    try:
        made_once(target, make)
    except OSError as error:
        raise UserError(
            f"the converted sequences cannot be written to {target.parent} "
            f"({(error.strerror or str(error)).lower()}); give a folder with enough free space"
        ) from error
    return open_store(target)


def cache_folder(setting: str) -> Path:
    """Returns the folder of stores that `runtime.data_cache` names; `auto` is the user's own.

    Raises:
      UserError: it is `auto`, and the user has no folder; or it is a URL.
    """
    if setting != "auto":
        return disk_path(setting, "--config.runtime.data_cache")
    own = user_cache()
    if own is None:
        raise UserError(
            "--config.runtime.data_cache=auto needs a home folder, and there is none; give a "
            "folder, or set HOME or XDG_CACHE_HOME"
        )
    return own / "codes"


def open_store(folder: str | Path) -> CodeStore:
    """Returns the store in `folder`, as `find_or_make` made it.

    Raises:
      UserError: a file of it is not as it was written: codes out of range would be trained on.
    """
    folder = Path(folder)
    cause = damage(DiskFolder(folder))
    if cause is not None:
        raise UserError(
            f"the converted sequences in {folder} are damaged ({cause}); remove that folder, and "
            "they will be converted again"
        )
    meta = json.loads((folder / "store.json").read_text(encoding="utf-8"))
    with np.load(folder / "columns.npz") as columns:
        return CodeStore(
            folder,
            np.load(folder / "codes.npy", mmap_mode="r"),
            tuple(meta["counts"]),
            tuple(tuple(notes) for notes in meta["notes"]),
            tuple(meta["shortest"]),
            dict(columns),
        )
