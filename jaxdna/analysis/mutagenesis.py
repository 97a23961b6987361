"""In-silico mutagenesis: what every single substitution does to each answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from jaxdna.analysis.logos import label_positions
from jaxdna.analysis.scorer import Scorer
from jaxdna.data.sequences import LETTERS, Codes, decode
from jaxdna.errors import visible
from jaxdna.progress import counted
from jaxdna.storage.files import picture

_AT_ONCE_BASES = 2**25  # of the mutants that are scored at once
_ZOOM = 30  # positions on each side of the strongest one in the heat-map


def mutate(scorer: Scorer, codes: Codes, first: int = 0, stop: int | None = None) -> NDArray:
    """Returns the change for each position, base and answer: float [stop - first, 4, outputs].

    Changes are those of the task's additive columns: of logits, say, or of numbers in their units.

    The entry of the base that is there is 0.

    Args:
      scorer: the model.
      codes: uint8 [length], at least as long as a filter.
      first: the first position to mutate; those before it are padding.
      stop: the position after the last one; None for the end.
    """
    at = np.arange(first, codes.size if stop is None else stop)
    most = max(1, _AT_ONCE_BASES // (4 * codes.size))
    firsts = counted("mutating", range(0, at.size, most), -(-at.size // most))
    parts = [_mutate(scorer, codes, at[i : i + most]) for i in firsts]
    return np.concatenate([np.empty((0, 4, scorer.task.outputs), np.float32), *parts])


def _mutate(scorer: Scorer, codes: Codes, at: NDArray[np.int64]) -> NDArray:
    """Returns the changes of `mutate` at some positions."""
    length = codes.size
    mutants = np.broadcast_to(codes, (at.size, 4, length)).copy()
    mutants[np.arange(at.size), :, at] = np.arange(4)
    everything = np.concatenate([codes, mutants.reshape(-1)])
    starts = np.arange(1 + 4 * at.size, dtype=np.int64) * length
    positions = np.full(len(starts), length - scorer.width + 1)
    columns = scorer.task.additive(scorer.outputs(everything, starts, positions))
    values = np.stack(list(columns.values()), axis=1)
    changes = (values[1:] - values[0]).reshape(at.size, 4, -1)
    known = np.flatnonzero(codes[at] < 4)
    changes[known, codes[at[known]]] = 0  # equal already, but for the rounding of another batch
    return changes


@dataclass(frozen=True)
class Mutated:
    """What every substitution in one sequence does.

    Attributes:
      id: the sequence's name.
      codes: uint8 [positions], without padding.
      changes: float [positions, 4], of one answer, of `mutate`.
      first: number of the first position in the sequence as it was given, from 1.
      answer: what changes.
    """

    id: str
    codes: Codes
    changes: NDArray[np.float32]
    first: int = 1
    answer: str = "logit"


def write_table(stream: IO[str], sequences: Sequence[Mutated]) -> None:
    """Writes one line per position: id, position (from 1), base, and the change for A C G T.

    Where there are several answers, a last column names that of the line.
    """
    several = len({one.answer for one in sequences}) > 1
    last = ["answer"] if several else []
    print("id", "position", "base", *LETTERS, *last, sep="\t", file=stream)
    for one in sequences:
        rows = zip(decode(one.codes), one.changes, strict=True)
        for position, (base, row) in enumerate(rows, one.first):
            cells = [f"{x:.6g}" for x in row] + [one.answer] * several
            print(one.id, position, base, *cells, sep="\t", file=stream)


def draw(sequences: Sequence[Mutated]) -> bytes:
    """Returns a PNG: for each sequence a heat-map around its strongest position, all above it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, each = 11, 2.6
    height = each * len(sequences)
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)

    def panel(left: float, bottom: float, wide: float, high: float) -> Any:
        """Adds axes; in inches, since matplotlib's own layouts draw everything several times."""
        return figure.add_axes((left / width, bottom / height, wide / width, high / height))

    limit = max(float(np.abs(one.changes).max()) for one in sequences) or 1.0
    several = len({one.answer for one in sequences}) > 1
    for i, one in enumerate(sequences):
        strongest = np.abs(one.changes).max(axis=1)
        foot = height - each * (i + 1)
        whole, zoomed = panel(0.8, foot + 1.83, 8.9, 0.55), panel(0.8, foot + 0.41, 8.9, 1.1)
        bases = len(one.codes)
        whole.plot(np.arange(bases) + one.first, strongest, linewidth=0.8, color="0.2")
        whole.set(
            xlim=(one.first, one.first + bases - 1), ylim=(0, limit), ylabel="largest\nchange"
        )
        whole.set_title(
            visible(one.id) + (f": {one.answer}" if several else ""),
            fontsize=9,
            loc="left",
            parse_math=False,
        )
        first = max(0, min(int(strongest.argmax()) - _ZOOM, bases - 2 * _ZOOM - 1))
        part = slice(first, first + 2 * _ZOOM + 1)
        image = zoomed.imshow(
            one.changes[part].T, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit
        )
        letters = list(decode(one.codes[part]))
        label_positions(zoomed, letters)
        zoomed.set_yticks(range(4), list(LETTERS), fontsize=7)
        zoomed.set_ylabel("changed to", fontsize=8)
        shown = first + one.first
        below = f"bases {shown} to {shown + len(letters) - 1}"
        zoomed.set_xlabel(below, fontsize=8, labelpad=18)
        beside = panel(10.1, foot + 0.41, 0.11, 1.97)
        figure.colorbar(image, cax=beside, label=f"change of the {one.answer}")
    return picture(figure, "png", dpi=110)
