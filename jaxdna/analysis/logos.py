"""Sequence logos, drawn with matplotlib alone.

Source of the form: Schneider and Stephens (1990), Sequence logos: a new way to display consensus
sequences, Nucleic Acids Research 18:6097-6100.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxdna.analysis.filters import information
from jaxdna.data.motifs import Motif
from jaxdna.data.sequences import LETTERS
from jaxdna.progress import counted
from jaxdna.storage.files import Folder, picture

COLOURS = {"A": "#109648", "C": "#255c99", "G": "#f7b32b", "T": "#d62839"}


def logo_figure(motif: Motif, title: str = "") -> Any:
    """Returns a matplotlib figure: letters as high as their share of the position's information."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = 0.32 * motif.width + 0.7, 1.6
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    # Margins in inches, set by hand: matplotlib's own layouts draw everything several times.
    axes = figure.add_axes((0.6 / width, 0.25 / height, 0.32 * motif.width / width, 1.1 / height))
    heights = motif.probabilities * information(motif.probabilities)[:, None]
    draw_letters(axes, heights)
    axes.set(xlim=(-0.5, motif.width - 0.5), ylim=(0, 2), ylabel="bits", yticks=(0, 1, 2))
    label_positions(axes, [str(i + 1) for i in range(motif.width)])
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, fontsize=8, parse_math=False)
    return figure


def draw_letters(axes: Any, heights: NDArray[np.floating]) -> None:
    """Stacks letters on positions 0, 1 and so on, the highest on top; negative ones hang down.

    Args:
      axes: matplotlib's; the caller sets their limits.
      heights: float [positions, 4] in units of the vertical axis.
    """
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path
    from matplotlib.transforms import Affine2D

    # All of a letter are one path: matplotlib takes its time for each.
    drawn: dict[str, list[Path]] = {letter: [] for letter in LETTERS}
    for position, column in enumerate(heights):
        ends = {True: 0.0, False: 0.0}  # of what stands, and of what hangs
        for base in np.argsort(abs(column), kind="stable"):
            height = float(column[base])
            if height == 0:
                continue
            place = Affine2D().scale(0.92, height).translate(position - 0.46, ends[height > 0])
            drawn[LETTERS[base]].append(place.transform_path(_shape(LETTERS[base])))
            ends[height > 0] += height
    for letter, paths in drawn.items():
        if paths:
            path = Path.make_compound_path(*paths)
            axes.add_artist(PathPatch(path, fc=COLOURS[letter], lw=0))


def label_positions(axes: Any, labels: Sequence[str]) -> None:
    """Writes a small label below each of the positions 0, 1 and so on.

    They look like matplotlib's ticks, of which each is six artists and takes milliseconds.
    """
    from matplotlib.lines import Line2D
    from matplotlib.markers import TICKDOWN
    from matplotlib.transforms import ScaledTranslation

    mark, line, gap = 3.5, 0.8, 3.5  # points, as matplotlib's
    at, below = range(len(labels)), axes.get_xaxis_transform()
    marks = Line2D(at, [0] * len(at), linestyle="none", transform=below, clip_on=False)
    marks.set(marker=TICKDOWN, markersize=mark, markeredgewidth=line, color="black")
    axes.add_artist(marks)
    beneath = below + ScaledTranslation(0, -(mark + gap) / 72, axes.figure.dpi_scale_trans)
    for place, label in zip(at, labels, strict=True):
        axes.text(place, 0, label, transform=beneath, ha="center", va="top", fontsize=7)
    axes.set_xticks([])


@cache
def _shape(letter: str) -> Any:
    """The letter's outline, a matplotlib path, in a box of one by one."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

    font = FontProperties(family="DejaVu Sans", weight="bold")
    outline = TextPath((0, 0), letter, size=1, prop=font)
    box = outline.get_extents()
    to_unit = Affine2D().translate(-box.x0, -box.y0).scale(1 / box.width, 1 / box.height)
    return to_unit.transform_path(outline)


def write_logos(motifs: Sequence[Motif], output: Folder) -> None:
    """Writes logos/NAME.png and logos/NAME.svg for every motif."""
    output.make("logos")
    for motif in counted("drawing the logos", motifs, len(motifs)):
        figure = logo_figure(motif, motif.name)
        output.write(f"logos/{motif.name}.png", picture(figure, "png", dpi=150))
        # Without a date two runs write the same bytes.
        output.write(f"logos/{motif.name}.svg", picture(figure, "svg", metadata={"Date": None}))
