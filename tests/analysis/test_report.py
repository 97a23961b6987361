"""What the report says, and what it must not say."""

from xml.etree import ElementTree

import numpy as np
import pytest

from jaxdna.analysis.filters import FilterMotif
from jaxdna.analysis.motif_match import match_motif
from jaxdna.analysis.pages import logo_card, page_html, table_html
from jaxdna.analysis.report_figures import scatter_svgs
from jaxdna.data.motifs import Motif, presets
from jaxdna.tasks.numbers import Regression


@pytest.mark.parametrize(("name", "known"), [("TAL1_known4", True), ("noise", False)])
def test_a_known_motif_is_named_where_the_match_is_no_chance(name, known):
    library = list(presets().values())
    noise = np.random.default_rng(1).dirichlet([1.0] * 4, 10)
    motif = presets()[name] if known else Motif(name, "x", noise)
    hits = match_motif(motif, library)
    page = logo_card(FilterMotif(3, 1.0, 1.0, 50, motif, motif, hits))
    assert (f"resembles {hits[0].target}" in page) == known
    assert ("resembles none of the known motifs" in page) != known


def test_what_a_user_named_is_shown_as_it_is():
    """Never as HTML, nor as what a terminal or a browser obeys."""
    named = "<b>\x1b[31m\u202e&"
    for page in (page_html("page", named, content=""), table_html([named], [[named]])):
        assert "&lt;b&gt;\\x1b[31m\\u202e&amp;" in page and "<b>" not in page


def test_a_table_writes_numbers_as_people_read_them():
    table = table_html(["", "n"], [["a", 1234567], ["b", 0.123456], ["c", None], ["d", True]])
    for cell in (
        "<td>1,234,567</td>",
        "<td>0.1235</td>",
        "<td>-</td>",
        "<td>True</td>",
    ):
        assert cell in table
    assert "<thead>" not in table_html(["", ""], [["a", 1]])


def test_names_of_targets_are_drawn_as_they_are():
    """No formula, no markup, and no control character, which no SVG may hold."""
    targets = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    task = Regression.fitted(("$\\y_{$", "<b>\x1b[31m"), targets)
    pages = scatter_svgs(task, targets, targets)
    assert len(pages) == 2
    for page in pages:
        ElementTree.fromstring(page[page.index("<svg") :])
