import time

import numpy as np
import pytest
from scipy import stats

from jaxdna.data.motifs import load_motif
from jaxdna.data.sequences import reverse_complement
from jaxdna.data.simulator import background, simulate
from jaxdna.errors import UserError

# Chance that a right simulator fails one of these tests: the seed is fixed, so it is 0 or 1; a
# wrong distribution gives p-values of practically 0 at these sizes.
SMALLEST_P = 1e-4
MOTIF = load_motif("TAL1_known4")


@pytest.fixture(scope="module")
def simulated():
    return simulate(MOTIF, 20_000, 500, 0.4, seed=7)


def test_classes_are_equal_and_shuffled(simulated):
    assert simulated.labels.sum() == 10_000
    # Between 100 blocks of 200 the number of positives varies as in a random order.
    blocks = simulated.labels.reshape(100, 200).sum(axis=1)
    assert 0.5 < blocks.var() / (200 / 4) < 1.6


def test_background_has_the_gc_content(simulated):
    counts = np.bincount(simulated.codes[simulated.labels == 0].ravel(), minlength=4)
    assert stats.chisquare(counts, background(0.4) * counts.sum()).pvalue > SMALLEST_P


def test_neighbouring_background_bases_are_independent(simulated):
    unbound = simulated.codes[simulated.labels == 0].astype(np.int64)
    pairs = np.bincount((unbound[:, :-1] * 4 + unbound[:, 1:]).ravel(), minlength=16)
    expected = np.outer(background(0.4), background(0.4)).ravel() * pairs.sum()
    assert stats.chisquare(pairs, expected).pvalue > SMALLEST_P


def test_instances_follow_the_smoothed_matrix_column_by_column(simulated):
    bound = np.flatnonzero(simulated.labels)
    columns = simulated.starts[bound, None] + np.arange(MOTIF.width)
    instances = simulated.codes[bound[:, None], columns]
    turned = simulated.reverse[bound]
    instances[turned] = reverse_complement(instances[turned])
    for column, frequencies in zip(instances.T, MOTIF.smoothed(), strict=True):
        counts = np.bincount(column, minlength=4)
        assert stats.chisquare(counts, frequencies * counts.sum()).pvalue > SMALLEST_P


def test_starts_are_uniform_and_strands_even(simulated):
    starts = simulated.starts[simulated.labels == 1]
    assert starts.min() == 0
    assert starts.max() == 500 - MOTIF.width
    assert stats.chisquare(np.bincount(starts, minlength=491)).pvalue > SMALLEST_P
    reverse = int(simulated.reverse.sum())
    assert stats.binomtest(reverse, 10_000, 0.5).pvalue > SMALLEST_P
    assert (simulated.starts[simulated.labels == 0] == -1).all()


def test_the_same_seed_gives_the_same_sequences_and_another_seed_others():
    first, again = (simulate(MOTIF, 50, 100, 0.4, seed=3) for _ in range(2))
    other = simulate(MOTIF, 50, 100, 0.4, seed=4)
    assert (first.codes == again.codes).all()
    assert (first.codes != other.codes).any()


def test_twenty_thousand_sequences_take_well_under_a_second():
    fastest = min(_seconds() for _ in range(3))
    assert fastest < 0.5


def _seconds():
    start = time.perf_counter()
    simulate(MOTIF, 20_000, 500, 0.4, seed=0)
    return time.perf_counter() - start


def test_a_motif_longer_than_the_sequences_is_refused():
    with pytest.raises(UserError, match=r"data\.length=9 is shorter.*10 or more"):
        simulate(MOTIF, 10, 9, 0.4, seed=0)
