"""What the report says, and what it must not say."""

from xml.etree import ElementTree

import numpy as np
import pytest

from jaxdna.analysis.filters import FilterMotif
from jaxdna.analysis.motif_match import match_motif
from jaxdna.analysis.report import _logos
from jaxdna.analysis.report_figures import scatter_svgs
from jaxdna.data.motifs import Motif, presets
from jaxdna.tasks.numbers import Regression


@pytest.mark.parametrize(("name", "known"), [("TAL1_known4", True), ("noise", False)])
def test_a_known_motif_is_named_where_the_match_is_no_chance(name, known):
    library = list(presets().values())
    noise = np.random.default_rng(1).dirichlet([1.0] * 4, 10)
    motif = presets()[name] if known else Motif(name, "x", noise)
    hits = match_motif(motif, library)
    page = _logos([FilterMotif(3, 1.0, 1.0, 50, motif, motif, hits)], "few & small")
    assert (f"resembles {hits[0].target}" in page) == known
    assert ("resembles none of the known motifs" in page) != known
    assert "few &amp; small" in page


def test_names_of_targets_are_drawn_as_they_are():
    """No formula, no markup, and no control character, which no SVG may hold."""
    targets = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    task = Regression.fitted(("$\\y_{$", "<b>\x1b[31m"), targets)
    pages = scatter_svgs(task, targets, targets)
    assert len(pages) == 2
    for page in pages:
        ElementTree.fromstring(page[page.index("<svg") :])
