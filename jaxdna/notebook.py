"""What a notebook shows of a run: pages in frames of their own, and figures."""

import base64
import html
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from markupsafe import Markup, escape

from jaxdna.analysis.pages import page_html, short_page, table_html
from jaxdna.analysis.report import MOST_LOGOS
from jaxdna.errors import UserError, visible
from jaxdna.runs.curves import curves_figure
from jaxdna.runs.run_folder import RunFolder
from jaxdna.storage.files import folder_at, picture
from jaxdna.storage.places import Place
from jaxdna.tasks.kinds import task_of

_SHORT, _LONG = "24rem", "56rem"  # heights


@dataclass(frozen=True)
class Page:
    """A page that a notebook shows.

    Attributes:
      path: where it lies; None for one that is made for the notebook.
      text: HTML.
      height: of its frame, in CSS units.
    """

    path: Place | None
    text: str = field(repr=False)
    height: str = field(default=_LONG, repr=False)

    def _repr_html_(self) -> str:
        # A folder may come from anybody: its page runs no script, and leaves the notebook alone.
        return (
            f'<iframe sandbox srcdoc="{html.escape(self.text)}" '
            f'style="width:100%;height:{self.height};border:1px solid #ddd"></iframe>'
        )


@dataclass(frozen=True)
class Interpretation:
    """What `Run.interpret` has found; a notebook shows the logos and the mutated sequences.

    Attributes:
      folder: where the tables, motif files and pictures are.
      filters: a dict for each filter, the most influential first.
      embedded: how often the network looks at the embedded motif, and how often chance would; None
        for real sequences.
      sequences: how many it looked at.
    """

    folder: Place
    filters: list[dict[str, Any]]
    embedded: dict[str, float] | None
    sequences: int

    def _repr_html_(self) -> str:
        rows = [
            [
                f"filter {one['filter']}",
                one["weight"],
                one["sites"],
                one["consensus"],
                one["resembles"],
                f"{one['match']['p_value']:.0e}" if one["resembles"] else None,
            ]
            for one in self.filters
            if one["consensus"]
        ]
        columns = ["", "weight", "sites", "consensus", "resembles", "p"]
        parts: list[str] = [table_html(columns, rows)] if rows else []
        logos = [f"logos/filter{one['filter']}.png" for one in self.filters if one["consensus"]]
        parts.append(f'<div class="logos">{self._images(logos[:MOST_LOGOS])}</div>')
        parts.append(self._images(["mutagenesis.png"]))
        parts.append(f"<p>All of it is in {escape(visible(str(self.folder)))}.</p>")
        return Page(None, _page("filters", parts))._repr_html_()

    def _images(self, names: list[str]) -> str:
        files = folder_at(self.folder)
        return "".join(_image(name, files.read(name)) for name in names if files.exists(name))


def _page(title: str, parts: list[str]) -> str:
    """A page of parts that are HTML already."""
    return page_html("page", title, content=Markup("".join(parts)))


def _image(name: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    return f'<img alt="{name}" style="max-width:100%" src="data:image/png;base64,{data}">'


def run_page(folder: RunFolder) -> Page:
    """Returns what a run is to a person: its verdict, scores with the ceiling, curves and logos.

    Of a run that is not finished these are its last epochs.
    """
    if folder.read_summary() and folder.files.exists(folder.report.name):
        return Page(folder.report, short_page(report_page(folder).text))
    rows, name = folder.read_metrics(), escape(visible(str(folder.path)))
    keys = (
        [key for key, value in rows[-1].items() if isinstance(value, int | float)] if rows else []
    )
    parts: list[str] = [f"<p>{name} is not finished: {len(rows)} epochs are done.</p>"]
    if rows:
        parts.append(table_html(keys, [[row.get(key) for key in keys] for row in rows[-5:]]))
    return Page(None, _page(folder.path.name, parts), _SHORT)


def report_page(folder: RunFolder) -> Page:
    """Returns the report of a run.

    Raises:
      UserError: the run has none: it is not finished, or drawing it has failed.
    """
    name = folder.report.name
    if not folder.files.exists(name):
        raise UserError(f"{folder.path} has no {name}; legal: a finished run")
    return Page(folder.report, folder.files.read(name).decode("utf-8", "replace"))


def shown_curves(folder: RunFolder) -> Any:
    """Returns `curves_figure` of a run as a figure that a notebook shows by itself."""
    rows, summary = folder.read_metrics(), folder.read_summary() or {}
    task = task_of(folder.read_data() or {})
    ceiling = summary.get("validation_ceiling")  # a run of an older version has none
    return curves_figure(task, rows, summary.get("best_epoch"), ceiling, _figure_class())


@cache
def _figure_class() -> type:
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        """A notebook shows it whether or not it has loaded matplotlib's own way."""

        def _repr_png_(self) -> bytes:
            return picture(self, "png", dpi=100)

    return ShownFigure
