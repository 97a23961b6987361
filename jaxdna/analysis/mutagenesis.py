"""In-silico mutagenesis: what every single substitution does to the logit."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from jaxdna.analysis.scorer import Scorer
from jaxdna.data.sequences import LETTERS, Codes, decode

_ZOOM = 30  # positions on each side of the strongest one in the heat-map


def mutate(scorer: Scorer, codes: Codes) -> NDArray[np.float32]:
    """Returns the change of the logit for each position and base: float32 [length, 4].

    The entry of the base that is there is 0.

    Args:
      scorer: the model.
      codes: uint8 [length], at least as long as a filter.
    """
    length = codes.size
    mutants = np.broadcast_to(codes, (length, 4, length)).copy()
    at = np.arange(length)
    mutants[at, :, at] = np.arange(4)
    everything = np.concatenate([codes, mutants.reshape(-1)])
    starts = np.arange(1 + 4 * length, dtype=np.int64) * length
    positions = np.full(len(starts), length - scorer.width + 1)
    logits = scorer.logits(everything, starts, positions)
    changes = (logits[1:] - logits[0]).reshape(length, 4)
    known = np.flatnonzero(codes < 4)
    changes[known, codes[known]] = 0  # equal already, but for the rounding of another batch
    return changes


def write_table(
    stream: IO[str], ids: Sequence[str], sequences: Sequence[Codes], changes: Sequence[NDArray]
) -> None:
    """Writes one line per position: id, position (from 1), base, and the change for A C G T."""
    print("id", "position", "base", *LETTERS, sep="\t", file=stream)
    for name, codes, change in zip(ids, sequences, changes, strict=True):
        for position, (base, row) in enumerate(zip(decode(codes), change, strict=True), 1):
            print(name, position, base, *(f"{x:.6g}" for x in row), sep="\t", file=stream)


def draw(
    path: Path, ids: Sequence[str], sequences: Sequence[Codes], changes: Sequence[NDArray]
) -> None:
    """Draws a heat-map for each sequence: around its strongest position, all of it above."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.6 * len(ids)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2 * len(ids), 1, height_ratios=[1, 2] * len(ids), squeeze=False)[:, 0]
    limit = max(float(np.abs(change).max()) for change in changes) or 1.0
    for i, (name, codes, change) in enumerate(zip(ids, sequences, changes, strict=True)):
        strongest = np.abs(change).max(axis=1)
        whole, zoomed = grid[2 * i], grid[2 * i + 1]
        whole.plot(np.arange(1, len(codes) + 1), strongest, linewidth=0.8, color="0.2")
        whole.set(xlim=(1, len(codes)), ylim=(0, limit), ylabel="|change|")
        whole.set_title(name, fontsize=9, loc="left")
        first = max(0, min(int(strongest.argmax()) - _ZOOM, len(codes) - 2 * _ZOOM - 1))
        part = slice(first, first + 2 * _ZOOM + 1)
        image = zoomed.imshow(change[part].T, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit)
        letters = list(decode(codes[part]))
        zoomed.set_xticks(range(len(letters)), letters, fontsize=7)
        zoomed.set_yticks(range(4), list(LETTERS), fontsize=7)
        zoomed.set_xlabel(f"bases {first + 1} to {first + len(letters)}", fontsize=8)
        figure.colorbar(image, ax=[whole, zoomed], label="change of the logit", fraction=0.03)
    figure.savefig(path, dpi=110)
