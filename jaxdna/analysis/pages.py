"""Pages of HTML: the templates, and what is done with a page that is written.

Text of the user's is escaped, and what a terminal would obey is shown as it is.
"""

import re
from collections.abc import Iterable
from datetime import date
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from jaxdna.analysis.filters import FilterMotif
from jaxdna.analysis.motif_match import likely
from jaxdna.analysis.report_figures import logo_svg
from jaxdna.console import figures
from jaxdna.data.motifs import Motif
from jaxdna.errors import visible

_ATTRIBUTIONS = "What each base adds"
_SHORT = ("Curves", "What the filters look for", "Scores on the test split", "Scores")


def page_html(template: str, title: str, **values: Any) -> str:
    """Returns a page.

    Args:
      template: of the folder `templates`, without its ending.
      title: of the page.
      **values: what the template shows.
    """
    today = date.today().isoformat()
    return (
        _environment()
        .get_template(f"{template}.html")
        .render({"versions": {}} | values, title=title, today=today)
    )


def table_html(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Markup:
    """Returns a table of numbers and plain texts."""
    return _part("table", columns, rows)


def logo_card(filter: FilterMotif) -> Markup:
    """Returns a filter's logo with what is known of it."""
    return _part("logo_card", filter)


def with_attributions(page: str, svg: str, method: str, answer: str) -> str:
    """Returns a report with a section on what each base adds, in place of an earlier one.

    Args:
      page: the report.
      svg: the logos of the most telling sequences.
      method: how bases are scored.
      answer: what the scores add up in.
    """
    text = Markup(
        "<p>The sequences of the test split with the largest outputs, each where its scores are "
        "largest: how much each base adds to the {}, by {}. <code>jaxdna attribute</code> drew it."
        "</p><figure>{}</figure>"
    ).format(visible(answer), method, Markup(svg))
    section = _part("section", _ATTRIBUTIONS, caller=lambda: text)
    earlier = f"<section><h2>{_ATTRIBUTIONS}</h2>.*?</section>\n"
    before, mark, after = re.sub(earlier, "", page, flags=re.DOTALL).partition(
        "<section><h2>Data</h2>"
    )
    return f"{before}{section}{mark}{after}" if mark else page


def short_page(page: str) -> str:
    """Returns a report with nothing but its head, curves, filters and scores."""
    sections = {
        title: section
        for section, title in re.findall(r"(<section><h2>(.*?)</h2>.*?</section>)", page, re.DOTALL)
    }
    if not sections:  # another version wrote it
        return page
    begin, end = page.index("<section>"), page.rindex("</section>") + len("</section>")
    return page[:begin] + "".join(sections.get(title, "") for title in _SHORT) + page[end:]


def _part(name: str, *values: Any, **options: Any) -> Markup:
    return getattr(_environment().get_template("parts.html").module, name)(*values, **options)


def _logo(motif: Motif) -> Markup:
    return Markup(logo_svg(motif))


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str | bool):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else figures(value)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("jaxdna.analysis"),
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "likely": likely,
        "logo": _logo,
        "shown": _shown,
    }
    return environment
