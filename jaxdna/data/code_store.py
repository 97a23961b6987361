"""FASTA files converted once to a memory-mapped array of codes, found again by their digests."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from jaxdna.data.fasta import FastaStats, read_fasta_blocks
from jaxdna.data.records import LENGTH_POLICIES, Records, check_choice, fit_length
from jaxdna.data.sequences import Codes
from jaxdna.data.streams import display, reason
from jaxdna.errors import UserError

ANY_LENGTH = "any"
_FORMAT = 3  # part of the key: a change of the files' meaning makes new stores


@dataclass(frozen=True)
class CodeStore:
    """Converted sequences on disk; nothing is in memory until it is indexed.

    Attributes:
      folder: holds codes.npy, lengths.npy, ids.txt and store.json.
      codes: uint8 [records, length] memory-mapped; [bases] with lengths `any`.
      counts: records of each input, in the order given.
      digests: SHA-256 of each input's bytes, in the order given.
      notes: for each input, what a person should know (ambiguous letters, repeated ids, ...).
      shortest: bases of each input's shortest sequence, before any padding or cropping.
    """

    folder: Path
    codes: Codes
    counts: tuple[int, ...]
    digests: tuple[str, ...]
    notes: tuple[tuple[str, ...], ...]
    shortest: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.counts)

    @cached_property
    def ids(self) -> list[str]:
        """The records' ids in order; read from disk when first asked for."""
        return (self.folder / "ids.txt").read_text(encoding="utf-8").split("\n")[:-1]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """int64 [records], bases of each sequence before any padding or cropping."""
        return np.load(self.folder / "lengths.npy")

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """int64 [records + 1], where each record begins among all bases."""
        if self.codes.ndim == 2:
            return np.arange(len(self) + 1, dtype=np.int64) * self.codes.shape[1]
        return np.concatenate([[0], np.cumsum(self.lengths)])

    def records(self) -> Records:
        """Returns the sequences as `Records` over the memory-mapped codes."""
        return Records(self.ids, self.codes.reshape(-1), self.offsets)


def convert(
    paths: Sequence[str | Path],
    cache: str | Path,
    ambiguous: str = "zero",
    lengths: str = "error",
    length: int = 0,
    width: int = 1,
) -> CodeStore:
    """Converts FASTA files, or finds the store that an earlier call made from the same bytes.

    Any number of processes may call it at once with one cache: a store appears whole or not at all.

    Args:
      paths: FASTA files, plain or gzipped; records follow each other in this order.
      cache: folder of all stores; made if absent. Each store is a folder in it, named by its key.
      ambiguous: `zero`, `uniform` or `error`, see `read_fasta`.
      lengths: `any` (ragged), or a policy of `fit_length`.
      length: bases of each row; 0 takes the common length (`error`), the shortest (`center_crop`)
        or the longest (`pad`).
      width: bases that a filter spans; see `fit_length`.

    Raises:
      UserError: an input is no FASTA, is stdin, or has lengths that the policy refuses.
    """
    check_choice("--config.data.lengths", lengths, (ANY_LENGTH, *LENGTH_POLICIES))
    digests = tuple(file_digest(path) for path in paths)
    settings = [_FORMAT, digests, ambiguous, lengths, length]
    target = Path(cache) / hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:20]
    if (target / "store.json").is_file():
        return open_store(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
        try:
            partial.chmod(0o755)  # mkdtemp hides it from the other users of a shared cache
            _write(partial, paths, digests, ambiguous, lengths, length, width)
            partial.rename(target)
        except OSError:
            if not (target / "store.json").is_file():  # else another process was faster
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"the converted sequences cannot be written to {target.parent} "
            f"({(error.strerror or str(error)).lower()}); legal: a folder with enough free space"
        ) from error
    return open_store(target)


def default_cache() -> Path:
    """Returns the user's folder of stores."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "jaxdna" / "codes"


def open_store(folder: str | Path) -> CodeStore:
    """Returns the store in `folder`, as `convert` made it."""
    folder = Path(folder)
    meta = json.loads((folder / "store.json").read_text(encoding="utf-8"))
    return CodeStore(
        folder,
        np.load(folder / "codes.npy", mmap_mode="r"),
        tuple(meta["counts"]),
        tuple(meta["digests"]),
        tuple(tuple(notes) for notes in meta["notes"]),
        tuple(meta["shortest"]),
    )


def file_digest(path: str | Path) -> str:
    """Returns the SHA-256 of a file's bytes; raises UserError for stdin or an unreadable file."""
    if str(path) == "-":
        raise UserError("stdin cannot be trained on, a rerun must find it again; legal: a file")
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({reason(error, path)}); legal: a file, plain or gzipped"
        ) from error


def _write(
    folder: Path,
    paths: Sequence[str | Path],
    digests: Sequence[str],
    ambiguous: str,
    lengths: str,
    length: int,
    width: int,
) -> None:
    if lengths != ANY_LENGTH and length == 0:
        length = _common_length(paths, ambiguous, lengths)
    all_stats = [FastaStats() for _ in paths]
    sizes: list[NDArray[np.int64]] = []
    with _synced(folder / "codes.npy") as codes_file, _synced(folder / "ids.txt") as ids_file:
        _write_header(codes_file, (0,) if lengths == ANY_LENGTH else (0, length))
        for path, stats in zip(paths, all_stats, strict=True):
            for block in read_fasta_blocks(path, ambiguous, stats):
                sizes.append(block.lengths)
                if lengths == ANY_LENGTH:
                    codes_file.write(block.codes.data)
                else:
                    fitted = fit_length(block, length, lengths, display(path), width)
                    codes_file.write(np.ascontiguousarray(fitted).data)
                ids_file.write("".join(f"{name}\n" for name in block.ids).encode())
        records, bases = (sum(getattr(s, key) for s in all_stats) for key in ("records", "bases"))
        codes_file.seek(0)
        _write_header(codes_file, (bases,) if lengths == ANY_LENGTH else (records, length))
    with _synced(folder / "lengths.npy") as file:
        np.save(file, np.concatenate(sizes))
    meta = {
        "counts": [stats.records for stats in all_stats],
        "digests": list(digests),
        "shortest": [stats.shortest for stats in all_stats],
        "notes": [stats.notes() + _fit_notes(stats, length, lengths) for stats in all_stats],
    }
    with _synced(folder / "store.json") as file:
        file.write(json.dumps(meta, indent=1).encode())


def _common_length(paths: Sequence[str | Path], ambiguous: str, lengths: str) -> int:
    """One more pass over the inputs, which costs less than keeping them."""
    shortest, longest = [], []
    for path in paths:
        stats = FastaStats()
        for block in read_fasta_blocks(path, ambiguous, stats):
            if lengths == "error":
                return int(block.lengths[0])
        shortest.append(stats.shortest)
        longest.append(stats.longest)
    return min(shortest) if lengths == "center_crop" else max(longest)


def _fit_notes(stats: FastaStats, length: int, lengths: str) -> list[str]:
    if lengths == ANY_LENGTH or stats.shortest == stats.longest == length:
        return []
    done = "padded" if lengths == "pad" else "cropped to their middle"
    return [f"sequences of {stats.shortest} to {stats.longest} bases are {done}: {length} bases"]


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    """Numpy leaves room in the header for the first axis to grow, so it can be rewritten."""
    header: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(file, header)


@contextmanager
def _synced(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file to write, and leaves it on the disk, not only in the system's memory."""
    with open(path, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
