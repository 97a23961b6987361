"""Motif files that are written can be read again, with the precision that the format has."""

import re

import numpy as np
import pytest

from jaxdna.data.motif_writers import jaspar, meme
from jaxdna.data.motifs import Motif, presets, read_motifs


@pytest.fixture
def motifs():
    rows = np.random.default_rng(0).dirichlet([0.3] * 4, 15)
    return [*presets().values(), Motif("filter 3", "x", rows), Motif("one", "x", np.eye(4)[:1])]


def test_meme_keeps_six_decimals(tmp_path, motifs):
    sites = range(20, 20 + len(motifs))
    (tmp_path / "m.meme").write_text(meme(motifs, sites, background=(0.3, 0.2, 0.2, 0.3)))
    found = read_motifs(tmp_path / "m.meme")
    assert [motif.name for motif in found] == [motif.name.replace(" ", "_") for motif in motifs]
    for one, other in zip(motifs, found, strict=True):
        # Half of the last decimal, and four times that from the reader's division by the row's sum.
        np.testing.assert_allclose(other.probabilities, one.probabilities, rtol=0, atol=2.5e-6)
    text = (tmp_path / "m.meme").read_text()
    assert "A 0.3 C 0.2 G 0.2 T 0.3" in text
    assert [int(count) for count in re.findall(r"nsites= (\d+)", text)] == list(sites)


@pytest.mark.parametrize("sites", [10, 1000, 10**6])
def test_jaspar_counts_sum_to_the_sites(tmp_path, motifs, sites):
    (tmp_path / "m.jaspar").write_text(jaspar(motifs, [sites] * len(motifs)))
    found = read_motifs(tmp_path / "m.jaspar")
    assert [motif.name for motif in found] == [motif.name.replace(" ", "_") for motif in motifs]
    for one, other in zip(motifs, found, strict=True):
        # Largest remainders: each count is off by less than one.
        np.testing.assert_allclose(other.probabilities, one.probabilities, rtol=0, atol=1 / sites)
        counts = other.probabilities * sites
        np.testing.assert_allclose(counts, np.rint(counts), rtol=0, atol=1e-6)
    lines = (tmp_path / "m.jaspar").read_text().split("\n")
    first = [list(map(int, line[3:-1].split())) for line in lines[1:5]]
    assert set(np.sum(first, axis=0)) == {sites}
