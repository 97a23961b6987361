import itertools

import numpy as np
import pytest

from jaxdna.data.ceiling import log_likelihood_ratio
from jaxdna.data.motifs import Motif, load_motif
from jaxdna.data.simulator import background, simulate
from jaxdna.tasks.kinds import of_classes

# AUROC, accuracy and cross-entropy that an independent implementation of the exact likelihood
# ratio found (three, three and three digits).
PUBLISHED = {
    ("TAL1_known4", 0.4): (0.9865, 0.979, 0.091),
    ("TAL1_known1", 0.4): (0.986, 0.944, 0.146),
    ("TAL1_known3", 0.4): (0.994, 0.967, 0.094),
    ("MA0140.1", 0.4): (0.880, 0.801, 0.435),
    ("TAL1_known4", 0.5): (0.977, 0.965, 0.131),
}


@pytest.mark.parametrize(("case", "expected"), PUBLISHED.items())
def test_ceilings_are_the_published_ones(case, expected):
    name, gc = case
    motif, examples = load_motif(name), 12_000
    simulated = simulate(motif, examples, 500, gc, seed=11)
    ratios = log_likelihood_ratio(simulated.codes, motif, gc)
    best = of_classes(2).scores(simulated.labels, ratios[:, None])
    auroc, accuracy, loss = expected

    # Four standard errors of this sample and as many of the published one (at least 12,000), plus
    # half a unit of the last published digit. AUROC: Hanley and McNeil's bound A(1-A)/n_positive.
    def allowed(variance, rounding):
        return 4 * np.sqrt(2 * variance / examples) + rounding

    per_example = np.logaddexp(0, ratios) - ratios * simulated.labels
    assert abs(best["auroc"] - auroc) < allowed(2 * auroc * (1 - auroc), 0.0005)
    assert abs(best["accuracy"] - accuracy) < allowed(accuracy * (1 - accuracy), 0.0005)
    assert abs(best["loss"] - loss) < allowed(per_example.var(), 0.0005)


def test_the_ratio_is_that_of_the_generative_model():
    """Sums the probability of every sequence of a tiny world, instance by instance."""
    motif = Motif("tiny", "test", np.array([[0.7, 0.1, 0.1, 0.1], [0.2, 0.5, 0.2, 0.1]]))
    base, matrix, length = background(0.3), motif.smoothed(), 4
    other = matrix[::-1, ::-1]
    worlds = np.array(list(itertools.product(range(4), repeat=length)), dtype=np.uint8)
    unbound = base[worlds].prod(axis=1)
    bound = np.zeros(len(worlds))
    for start, strand in itertools.product(range(length - 1), (matrix, other)):
        site = strand[0, worlds[:, start]] * strand[1, worlds[:, start + 1]]
        rest = np.delete(base[worlds], [start, start + 1], axis=1).prod(axis=1)
        bound += site * rest / (2 * (length - 1))
    assert bound.sum() == pytest.approx(1, abs=1e-12)
    ratios = log_likelihood_ratio(worlds, motif, 0.3)
    np.testing.assert_allclose(ratios, np.log(bound / unbound), rtol=1e-12, atol=1e-12)
