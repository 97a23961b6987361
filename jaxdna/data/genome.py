"""Any stretch of a genome, read at random places through an index."""

import hashlib
import os
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jaxdna.data.sequences import UNKNOWN, AmbiguousLetter, Codes, encode
from jaxdna.data.streams import read_blocks
from jaxdna.errors import UserError, nearest

_GZIP = b"\x1f\x8b"


class Genome:
    """A FASTA file of chromosomes, its `.fai` index, and one open handle per process.

    The index is made where it is absent or older than the file: beside the file, or in the user's
    cache folder where that cannot be written to. A handle that is inherited by fork shares its file
    position with the parent and gives wrong bases, hence one for each process.

    Attributes:
      path: the FASTA file.
      ambiguous: what N and the other IUPAC letters become: `zero`, `uniform` or `error`.
      lengths: bases of each chromosome, in the order of the file.
    """

    def __init__(self, path: str | Path, ambiguous: str = "zero") -> None:
        """Opens `path`; raises UserError where it is no plain FASTA file."""
        self.path = Path(path)
        self.ambiguous = ambiguous
        self._handle: Any = None
        self._process = -1
        self.lengths: dict[str, int] = {
            name: int(entry.rlen) for name, entry in self._faidx().index.items()
        }

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handle": None, "_process": -1}

    def codes(self, chromosome: str, start: int, stop: int) -> Codes:
        """Returns uint8 [stop - start]; `UNKNOWN` where that lies beyond an end of the chromosome.

        Args:
          chromosome: a key of `lengths`.
          start: first base, from 0.
          stop: the base after the last one.

        Raises:
          UserError: the genome has no such chromosome, or a letter is no base; AmbiguousLetter
            as `encode`.
        """
        self.require([chromosome], str(self.path))
        first, last = max(start, 0), min(stop, self.lengths[chromosome])
        if first >= last:
            return np.full(stop - start, UNKNOWN, dtype=np.uint8)
        try:
            letters = str(self._faidx().fetch(chromosome, first + 1, last))
            inside = encode(letters, self.ambiguous)
        except (UserError, UnicodeDecodeError) as error:
            cause = error if isinstance(error, UserError) else "this is no text; legal: FASTA"
            kind = AmbiguousLetter if isinstance(error, AmbiguousLetter) else UserError
            raise kind(f"{self.path}, {chromosome}:{first}-{last}: {cause}") from None
        if inside.size != last - first:
            raise UserError(
                f"the index of {self.path} promises {self.lengths[chromosome]} bases of "
                f"{chromosome}, which are not there; legal: delete it, and it is made anew"
            )
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

    def _faidx(self) -> Any:
        if self._process != os.getpid():
            self._handle, self._process = _open_indexed(self.path), os.getpid()
        return self._handle


def naming_hint(name: str, present: Collection[str]) -> str:
    """Returns the part of a sentence that shows both naming styles, or the closest name.

    Args:
      name: a chromosome that is not there.
      present: those that are.
    """
    if other := other_style(name, present):
        return f"there it is called {other}; legal: one style in both, {name} or {other}"
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


def _open_indexed(path: Path) -> Any:
    try:
        from pyfaidx import Faidx
    except ImportError as error:
        raise UserError(
            f"genome {path} needs pyfaidx, which is not installed; legal: pip install pyfaidx"
        ) from error
    head = next(read_blocks(path), b"")  # its errors are sentences
    with open(path, "rb") as file:
        packed = file.read(2) == _GZIP
    if packed or not head:
        state = "compressed: windows are read at random places, so unpack it" if packed else "empty"
        raise UserError(f"genome {path} is {state}; legal: a plain FASTA file")
    try:
        index = _index_path(path)
        if not _is_fresh(index, path):
            # Built under another name first: a second process must never see half an index.
            handle, partial = tempfile.mkstemp(prefix=index.name, dir=index.parent)
            os.close(handle)
            os.unlink(partial)
            Faidx(str(path), indexname=partial).close()
            os.chmod(partial, 0o644)
            os.replace(partial, index)
        return Faidx(str(path), indexname=str(index), as_raw=True, rebuild=False)
    except Exception as error:  # pyfaidx has many kinds, for what is always the user's file
        cause = " ".join(str(error).split())
        raise UserError(
            f"genome {path} cannot be indexed ({cause}); legal: FASTA with lines of one length in "
            "each record and names that differ"
        ) from error


def _index_path(path: Path) -> Path:
    beside = path.with_name(path.name + ".fai")
    if _is_fresh(beside, path) or os.access(path.parent, os.W_OK):
        return beside
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxdna" / "fai"
    caches.mkdir(parents=True, exist_ok=True)
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return caches / f"{path.name}-{place}.fai"


def _is_fresh(index: Path, path: Path) -> bool:
    return index.exists() and index.stat().st_mtime >= path.stat().st_mtime
