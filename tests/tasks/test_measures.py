import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, precision_recall_curve

from jaxdna.tasks.classes import Binary


def measure(labels, logits, **settings):
    return Binary().measures(labels, logits[:, None], **settings)


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    return labels, np.round(rng.normal(labels, 1.2), 1).astype(np.float32)  # many ties


def test_values_equal_the_plain_definitions(drawn):
    labels, logits = drawn
    found = measure(labels, logits, resamples=10)
    for name, value in Binary().scores(labels, logits[:, None]).items():
        assert found[name].value == pytest.approx(value, abs=1e-12)
    assert found["balanced_accuracy"].value == pytest.approx(
        balanced_accuracy_score(labels, logits > 0)
    )
    precision, recall, _ = precision_recall_curve(labels, logits)
    for percent in (5, 10, 20):
        good = recall[1 - precision <= percent / 100 + 1e-12]
        assert found[f"recall_at_{percent}_fdr"].value == pytest.approx(good.max(), abs=1e-12)


def test_no_threshold_below_the_rate_is_a_recall_of_zero():
    found = measure(np.array([1, 0, 1, 0]), np.array([0.1, 0.9, 0.2, 0.8]), resamples=10)
    assert found["recall_at_5_fdr"].value == 0


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Accuracy of a classifier that is right with probability 0.8, over 200 data sets."""
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        labels = np.repeat([0, 1], 100)
        logits = np.where(rng.random(200) < 0.8, 1.0, -1.0) * np.where(labels, 1, -1)
        found = measure(labels, logits, seed=trial, resamples=200)["accuracy"]
        covered += found.low <= 0.8 <= found.high
    # Binomial(200, 0.95) has standard deviation 3.1; the percentile bootstrap is a little short.
    assert 190 - 5 * 3.1 <= covered <= 200


def test_one_class_has_no_measures():
    assert measure(np.ones(5, int), np.zeros(5)) is None
