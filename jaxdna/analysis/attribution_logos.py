"""Pictures of what each base adds: letters as high as their contributions."""

from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxdna.analysis.logos import draw_letters
from jaxdna.data.sequences import UNKNOWN, Codes
from jaxdna.errors import visible

MOST_DRAWN = 10  # sequences in one picture
_SHOWN = 60  # bases of a logo
_INVISIBLE = 0.005  # of the height of a picture: letters that would only make it large
_MOST = 0.9  # of what the best stretch holds: enough to move the site away from the edge


class Shown(NamedTuple):
    """What is drawn of one sequence.

    Attributes:
      title: above it.
      codes: uint8 [length].
      contributions: float [length].
    """

    title: str
    codes: Codes
    contributions: NDArray[np.floating]


class Telling:
    """Keeps the sequences that say most: the largest outputs, or changes of them.

    Attributes:
      answer: what the contributions add up in.
    """

    def __init__(self, together: int = 1):
        """Takes how many sequences that follow one another are compared."""
        self.answer, self._together, self._number = "", together, count()
        self._waiting: list[tuple[float, Shown]] = []
        self._best: list[tuple[float, int, list[Shown]]] = []

    def add(self, part: Any) -> None:
        """Adds sequences, an `attribution.Attributed`."""
        self.answer = part.answers[0]
        for output, shown in zip(part.outputs[:, 0].tolist(), part.shown(), strict=True):
            self._waiting.append((output, shown))
            if len(self._waiting) < self._together:
                continue
            outputs, group = zip(*self._waiting, strict=True)
            self._waiting.clear()
            rank = outputs[0] if self._together == 1 else abs(outputs[-1] - outputs[0])
            heappush(self._best, (rank, -next(self._number), list(group)))
            if len(self._best) * self._together > MOST_DRAWN:
                heappop(self._best)

    def figure(self) -> Any:
        """Returns a matplotlib figure of them, the first one first."""
        return draw([group for _, _, group in sorted(self._best, reverse=True)], self.answer)


def draw(groups: Sequence[Sequence[Shown]], answer: str) -> Any:
    """Returns a matplotlib figure with a logo for each sequence.

    Args:
      groups: of one sequence the stretch with the largest contributions is shown; of several that
        are compared, such as both alleles of a variant, the middle, on one scale, and the first
        base in which they differ is shaded.
      answer: what the contributions add up in.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = sum(map(len, groups))
    width, each, foot = 11, 1.5, 0.3
    height = each * rows + foot
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    # In inches, set by hand: matplotlib's own layouts draw everything several times.
    bottoms = iter(foot + 0.2 + each * row for row in reversed(range(rows)))
    for group in groups:
        first = _first_shown(group)
        part = slice(first, first + _SHOWN)
        heights = [one.contributions[part] for one in group]
        low = min(0.0, *(float(own.min()) for own in heights))
        high = max(0.0, *(float(own.max()) for own in heights))
        room = 0.05 * (high - low) or 1.0
        differ = np.flatnonzero(group[0].codes[part] != group[-1].codes[part])
        for one, own in zip(group, heights, strict=True):
            box = (0.75, next(bottoms), width - 0.8, each - 0.42)
            axes = figure.add_axes(
                (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
            )
            for place in differ[:1].tolist():  # behind an insertion everything is elsewhere
                axes.axvspan(place - 0.5, place + 0.5, color="0.92", linewidth=0)
            letters = one.codes[part, None] == np.arange(UNKNOWN)
            seen = np.abs(own) > _INVISIBLE * (high - low)
            draw_letters(axes, letters * (own * seen)[:, None])
            axes.axhline(0, color="0.6", linewidth=0.6)
            axes.set(xlim=(-0.6, len(own) - 0.4), ylim=(low - room, high + room))
            axes.set_title(visible(one.title), fontsize=8, loc="left", parse_math=False)
            ticks = range(-(first + 1) % 10, len(own), 10)
            axes.set_xticks(ticks, [str(first + 1 + tick) for tick in ticks], fontsize=7)
            axes.tick_params(axis="y", labelsize=7)
            axes.set_ylabel(visible(answer), fontsize=7, parse_math=False)
            axes.yaxis.set_label_coords(-0.04, 0.5)  # below one another, whatever the numbers
            axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("position", fontsize=7)
    return figure


def _first_shown(group: Sequence[Shown]) -> int:
    sizes = np.abs(group[0].contributions)
    width = min(_SHOWN, sizes.size)
    if len(group) > 1:
        return (sizes.size - width) // 2
    sums = np.concatenate([[0.0], np.cumsum(sizes, dtype=np.float64)])
    totals = sums[width:] - sums[:-width]
    # Of those around the best one that hold nearly as much, the middle one.
    best = int(totals.argmax())
    good = np.pad(totals >= _MOST * totals[best], 1)
    before, after = np.argmin(good[best + 1 :: -1]), np.argmin(good[best + 1 :])
    return best + int(after - before) // 2
