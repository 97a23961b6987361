"""Motif comparison: the right hit at the right place, and p-values that mean what they say."""

import itertools
from importlib.resources import files

import numpy as np
import pytest

from jaxdna.analysis.motif_match import _integer_scores, _Null, library_note, likely, match_motif
from jaxdna.data.motifs import Motif, library, presets
from jaxdna.errors import UserError

LIBRARY = list(presets().values())
TAL1 = presets()["TAL1_known4"]


def noisy(rows, seed, strength):
    """What training makes of a motif: other frequencies, and a positive pseudocount."""
    rng = np.random.default_rng(seed)
    changed = rows * np.exp(rng.normal(0, strength, rows.shape)) + 0.02
    return changed / changed.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("strength", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("before", [0, 2, 5])
def test_a_filter_that_learned_tal1_matches_it(strength, reverse, before):
    rng = np.random.default_rng(before)
    rows = noisy(TAL1.probabilities, before, strength)
    flanks = rng.dirichlet([20] * 4, 15 - TAL1.width)  # 15 columns, the rest near background
    rows = np.concatenate([flanks[:before], rows, flanks[before:]])
    query = Motif("filter", "", rows[::-1, ::-1] if reverse else rows)
    hits = match_motif(query, LIBRARY)
    assert hits[0].target == "TAL1_known4"
    assert hits[0].p_value < 1e-4
    assert hits[0].strand == ("-" if reverse else "+")
    ahead = 15 - TAL1.width - before if reverse else before
    assert (hits[0].offset, hits[0].overlap) == (-ahead, TAL1.width)
    assert len(hits) == len(LIBRARY)
    assert all(one.p_value <= other.p_value for one, other in itertools.pairwise(hits))


def test_every_preset_finds_itself():
    for motif in LIBRARY:
        hits = match_motif(motif, LIBRARY)
        ties = [hit.target for hit in hits if hit.p_value == hits[0].p_value]
        same = [m.name for m in LIBRARY if np.allclose(_either(m, motif), motif.probabilities)]
        assert set(ties) & set(same), (motif.name, hits[0])


def _either(one, other):
    """`one` on the strand on which it equals `other`, where it does."""
    if one.width != other.width:
        return np.full(4, -1.0)
    turned = one.probabilities[::-1, ::-1]
    return turned if np.allclose(turned, other.probabilities) else one.probabilities


def test_a_part_of_a_motif_is_found_at_its_place():
    part = Motif("part", "", presets()["TAL1_disc1"].probabilities[4:13])
    best = match_motif(part, LIBRARY)[0]
    assert (best.target, best.strand, best.offset, best.overlap) == ("TAL1_disc1", "+", 4, 9)


def random_library(rng, targets, low=7, high=13):
    return [
        Motif(f"m{i}", "", rng.dirichlet([0.4] * 4, rng.integers(low, high)))
        for i in range(targets)
    ]


def test_p_values_of_random_targets_are_no_smaller_than_chance_has_it():
    rng = np.random.default_rng(0)
    library = random_library(rng, 40)
    columns = np.concatenate([motif.probabilities for motif in library])
    # Targets whose columns are drawn from the library are the null hypothesis itself; added to the
    # library they only repeat its columns.
    drawn = [
        Motif(f"random{i}", "", columns[rng.integers(0, len(columns), 10)]) for i in range(400)
    ]
    p_values = []
    for _ in range(5):
        query = Motif("q", "", rng.dirichlet([0.4] * 4, 9))
        hits = match_motif(query, [*library, *drawn])
        p_values += [hit.p_value for hit in hits if hit.target.startswith("random")]
    for level in (0.5, 0.1, 0.05, 0.01):
        share = np.mean(np.array(p_values) <= level)
        noise = np.sqrt(level * (1 - level) / len(p_values))
        assert share <= level + 4 * noise, level
        # Treating the offsets as independent errs on the safe side, by less than half.
        assert share >= level / 2 - 4 * noise, level


def test_null_equals_the_count_over_all_targets():
    rng = np.random.default_rng(1)
    query, columns = rng.dirichlet([0.5] * 4, 3), rng.dirichlet([0.5] * 4, 12)
    scores = _integer_scores(query, columns)
    null = _Null(scores, [3], min_overlap=3)
    totals = np.array(
        [sum(scores[i, c] for i, c in enumerate(t)) for t in itertools.product(range(12), repeat=3)]
    )
    for score in np.unique(totals)[::50]:
        share = (totals >= score).mean()  # one offset, two strands
        assert null.p_value(int(score), 3) == pytest.approx(1 - (1 - share) ** 2, rel=1e-12)


def test_e_and_q_values_follow_from_the_p_values():
    hits = match_motif(TAL1, LIBRARY)
    p_values = np.array([hit.p_value for hit in hits])
    np.testing.assert_allclose([hit.e_value for hit in hits], p_values * len(LIBRARY))
    adjusted = [
        min(1.0, min(p_values[k:] * len(hits) / np.arange(k + 1, len(hits) + 1)))
        for k in range(len(hits))
    ]
    np.testing.assert_allclose([hit.q_value for hit in hits], adjusted)


def test_widths_from_one_column_on_are_compared():
    narrow = Motif("narrow", "", np.eye(4)[[2]])
    wide = Motif("wide", "", np.random.default_rng(0).dirichlet([1] * 4, 60))
    for query, targets in ((narrow, LIBRARY), (wide, LIBRARY), (TAL1, [narrow]), (TAL1, [wide])):
        for hit in match_motif(query, targets):
            assert 0 <= hit.p_value <= 1
    flat = Motif("flat", "", np.full((6, 4), 0.25))
    assert match_motif(flat, [flat])[0].p_value == 1


def test_small_or_empty_libraries_are_named():
    assert "only 14 motifs" in library_note(LIBRARY)
    assert library_note(random_library(np.random.default_rng(0), 25)) == ""
    with pytest.raises(UserError, match="no motif to compare with"):
        match_motif(TAL1, [])


@pytest.mark.parametrize(
    ("site", "family"),
    [
        ("TCACGTGA", "HES_SREBF:bHLH"),
        ("GCGCCCCCTGGTGGC", "CTCF:C2H2_ZF"),
        ("ATGACTCAT", "FOS_JUN:bZIP"),
        ("AGATAAGA", "GATA"),
    ],
)
def test_the_library_of_the_package_names_the_family_of_a_site(site, family):
    counts = 0.85 * np.eye(4)[["ACGT".index(base) for base in site]] + 0.0375
    best = match_motif(Motif("filter0", "x", counts), library())[0]
    assert family in best.target and best.e_value < 0.05


def test_the_library_of_the_package_has_its_licence_beside_it_and_the_presets_in_it():
    folder = files("jaxdna.data") / "presets"
    licence = (folder / "jaspar_2024_archetypes.txt").read_text()
    assert "https://jaspar.elixir.no" in licence and "Licence" in licence
    assert [motif.name for motif in library()[:14]] == list(presets())
    assert len(library()) == 14 + 182 and library_note(library()) == ""


def test_a_match_by_chance_names_no_motif():
    hits = match_motif(TAL1, LIBRARY)
    assert likely(hits) is hits[0]
    assert likely(hits[-1:]) is None  # p 0.17 or so
    assert likely([]) is None
