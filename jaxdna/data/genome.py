"""Any stretch of a genome, read at random places through an index."""

import json
import os
import stat
import weakref
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Protocol

import numpy as np

from jaxdna.data.code_store import cache_folder
from jaxdna.data.digests import check_unchanged, file_digest
from jaxdna.data.fasta_index import Entry, Index, index_fasta, write_plain
from jaxdna.data.memory import require_memory
from jaxdna.data.sequences import UNKNOWN, Codes, WrongLetter, encode
from jaxdna.data.streams import display, reason
from jaxdna.data.two_bit import MAGIC, TwoBit
from jaxdna.errors import UserError, nearest
from jaxdna.storage.disk import DiskFolder
from jaxdna.storage.fetched import local_path
from jaxdna.storage.made_once import made_once
from jaxdna.storage.manifest import damage
from jaxdna.storage.places import Place, input_place

_MANY_BASES = 2**26
_MOST_BYTES = 2**30  # of one read: Linux gives no more than 2 GiB


class Genome:
    """A file of chromosomes, FASTA or .2bit, of which any stretch can be read.

    A FASTA file is indexed once. The index lies in the cache of data under the digest of the
    file's bytes: an index beside the file (`.fai`) may be that of another one, and no time of
    change can tell. Where the letters cannot be found by counting, since the file is compressed or
    its lines have no common length, they are written there as well, plainly.

    Reads name their place, so that processes and threads share the open file without harm.

    Attributes:
      path: the file.
      ambiguous: what N and the other IUPAC letters become: `zero`, `uniform` or `error`.
      lengths: bases of each chromosome, in the order of the file.
    """

    def __init__(
        self, path: str | Path, ambiguous: str = "zero", cache: str | Path = "auto"
    ) -> None:
        """Opens `path`; raises UserError where it is not a genome.

        Args:
          path: FASTA (plain, gzip or bgzip) or .2bit; the first bytes tell.
          ambiguous: see the attribute.
          cache: the folder of indices; `auto` is the user's own.
        """
        self.path, self.ambiguous, self._cache = input_place(path), ambiguous, cache
        self._letters = _open(self.path, cache_folder(str(cache)))
        self.lengths = self._letters.lengths

    def __reduce__(self) -> tuple:
        return Genome, (self.path, self.ambiguous, self._cache)

    def codes(self, chromosome: str, start: int, stop: int) -> Codes:
        """Returns uint8 [stop - start]; `UNKNOWN` where that lies beyond an end of the chromosome.

        Args:
          chromosome: a key of `lengths`.
          start: first base, from 0.
          stop: the base after the last one.

        Raises:
          UserError: the genome has no such chromosome, or has changed.
          WrongLetter: as `encode`.
        """
        self.require([chromosome], str(self.path))
        first, last = max(start, 0), min(stop, self.lengths[chromosome])
        if first >= last:
            return np.full(stop - start, UNKNOWN, dtype=np.uint8)
        if last - first > _MANY_BASES:
            require_memory(
                4 * (last - first),
                f"{self.path}, {chromosome}: {last - first:,} bases at once",
                "shorter stretches",
            )
        letters = self._letters.letters(chromosome, first, last)
        if len(letters) != last - first:
            raise UserError(
                f"genome {self.path} changed while it was being read; run the same command again"
            )
        try:
            inside = encode(letters, self.ambiguous)
        except WrongLetter as error:
            kind = type(error)
            raise kind(f"{self.path}, {chromosome}:{first}-{last}: {error}") from None
        if (first, last) == (start, stop):
            return inside
        return np.pad(inside, (first - start, stop - last), constant_values=UNKNOWN)

    def require(self, chromosomes: Iterable[str], source: str) -> None:
        """Raises UserError where the genome lacks one of `chromosomes`, which `source` names."""
        for name in chromosomes:
            if name not in self.lengths:
                raise UserError(
                    f"{source} names chromosome {name}, which {self.path} lacks; "
                    + naming_hint(name, self.lengths)
                )


def naming_hint(name: str, present: Collection[str]) -> str:
    """Returns the part of a sentence that shows both naming styles, or the closest name.

    Args:
      name: a chromosome that is not there.
      present: those that are.
    """
    if other := other_style(name, present):
        return f"there it is called {other}; use one style in both, {name} or {other}"
    if len(present) > 30:
        shown = ", ".join(list(present)[:5])
        return f"legal: {shown} and {len(present) - 5} more"
    return nearest(name, present)


def other_style(name: str, present: Collection[str]) -> str | None:
    """Returns the same chromosome as `present` calls it (`chr1` against `1`, `chrM`, `MT`)."""
    bare = name[3:] if name.lower().startswith("chr") else name
    candidates = [bare, f"chr{bare}", f"Chr{bare}"]
    candidates += {"M": ["MT", "chrMT"], "MT": ["M", "chrM"]}.get(bare, [])
    return next((other for other in candidates if other != name and other in present), None)


class _Letters(Protocol):
    """What a kind of file has to offer."""

    lengths: dict[str, int]

    def letters(self, chromosome: str, first: int, last: int) -> bytes: ...


class _Fasta:
    """A plain FASTA file and its index."""

    def __init__(self, file: "_File", index: Index) -> None:
        self._file, self._index = file, index
        self.lengths = {name: entry.bases for name, entry in index.items()}

    def letters(self, chromosome: str, first: int, last: int) -> bytes:
        entry = self._index[chromosome]
        start, stop = entry.place(first), entry.place(last - 1) + 1
        return self._file.read(start, stop - start).translate(None, b"\r\n")


class _File:
    """An open file that is read at places, and closed when nobody holds it any more."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._handle)

    def read(self, place: int, size: int) -> bytes:
        """Returns `size` bytes, fewer at the end of the file."""
        # A damaged file may speak of more than there is, for which memory would be taken.
        size = max(0, min(size, os.fstat(self._handle).st_size - place))
        parts = [
            os.pread(self._handle, min(_MOST_BYTES, size - done), place + done)
            for done in range(0, size, _MOST_BYTES)
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _open(name: Place, cache: Path) -> _Letters:
    try:
        path = local_path(name)
        # To open a pipe would wait for a writer.
        if str(path) == "-" or not (path.is_dir() or stat.S_ISREG(path.stat().st_mode)):
            raise UserError(
                f"genome {display(str(name))} is a pipe or a device, but windows are read at "
                "random positions; give a file, FASTA (plain, gzip or bgzip) or .2bit"
            )
        file = _File(path)
        if file.read(0, 4) in MAGIC:
            return TwoBit(file.read, str(name))
        plain, index = _indexed(path, cache)
        return _Fasta(file if plain == path else _File(plain), index)
    except OSError as error:
        raise UserError(
            f"genome {name} cannot be read ({reason(error, str(name))}); give a FASTA file, "
            "plain, gzip or bgzip, or .2bit"
        ) from error


def _indexed(path: Path, cache: Path) -> tuple[Path, Index]:
    """Returns a plain file with the letters of `path`, itself if it can be, and its index."""
    memory = cache / "digests"
    digest = file_digest(path, memory)
    folder = cache / "genomes" / digest[:20]

    def whole(at: Path) -> bool:
        return damage(DiskFolder(at)) is None

    if whole(folder):
        return _recall(folder, path)
    index = index_fasta(path)

    def fill(at: Path) -> None:
        entries = index
        if entries is None:
            with (at / "genome.fa").open("wb") as output:
                entries = write_plain(path, output)
        (at / "index.json").write_text(json.dumps(entries), encoding="utf-8")
        check_unchanged(path, digest, memory)

    try:
        made_once(folder, fill, whole)
    except OSError as error:
        if index is None:
            raise UserError(
                f"genome {path} must be unpacked once into {folder.parent}, which failed "
                f"({(error.strerror or str(error)).lower()}); give a folder with enough free "
                "space (XDG_CACHE_HOME, --config.runtime.data_cache), or plain FASTA with lines of "
                "one length"
            ) from error
        return path, index  # a cache that cannot be written costs time, nothing else
    return _recall(folder, path)


def _recall(folder: Path, path: Path) -> tuple[Path, Index]:
    entries = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    plain = folder / "genome.fa"
    return (
        plain if plain.exists() else path,
        {name: Entry(*entry) for name, entry in entries.items()},
    )
