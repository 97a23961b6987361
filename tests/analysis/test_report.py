"""What the report says, and what it must not say."""

import numpy as np
import pytest

from jaxdna.analysis.filters import FilterMotif
from jaxdna.analysis.motif_match import match_motif
from jaxdna.analysis.report import _logos
from jaxdna.data.motifs import Motif, presets


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
