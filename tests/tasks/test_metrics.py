import math
from itertools import combinations

import numpy as np
import pytest
import scipy.stats
from sklearn import metrics as sklearn_metrics

from jaxdna.tasks.kinds import of_classes
from jaxdna.tasks.metrics import auprc, auroc, auroc_noise, binary_losses, ranks, spearman


@pytest.mark.parametrize("decimals", [1, 6])  # one decimal: many ties
def test_areas_equal_scikit_learn_s(decimals):
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 501)
    values = np.round(rng.normal(labels * 0.7), decimals)
    assert auroc(labels, values) == pytest.approx(
        sklearn_metrics.roc_auc_score(labels, values), abs=1e-12
    )
    assert auprc(labels, values) == pytest.approx(
        sklearn_metrics.average_precision_score(labels, values), abs=1e-12
    )


def test_areas_of_one_class_are_none():
    assert auroc([1, 1], [0.1, 0.2]) is None
    assert auprc([0, 0], [0.1, 0.2]) is None


def test_losses_equal_scikit_learn_s_and_survive_large_logits():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 50)
    logits = rng.normal(size=(50, 1))
    probabilities = 1 / (1 + np.exp(-logits[:, 0]))
    assert of_classes(2).loss(labels, logits) == pytest.approx(
        sklearn_metrics.log_loss(labels, probabilities), rel=1e-12
    )
    assert binary_losses(np.array([0, 1]), np.array([1e4, 1e4])).tolist() == [1e4, 0]
    classes, logits = rng.integers(0, 10, 50), rng.normal(size=(50, 10))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert of_classes(10).scores(classes, logits)["loss"] == pytest.approx(
        sklearn_metrics.log_loss(classes, shares, labels=range(10)), rel=1e-12
    )
    one_hot = np.eye(10)[classes]
    assert of_classes(10).scores(classes, logits)["auroc"] == pytest.approx(
        sklearn_metrics.roc_auc_score(one_hot, shares, average="macro"), abs=1e-12
    )
    assert of_classes(10).scores(classes, logits)["auprc"] == pytest.approx(
        sklearn_metrics.average_precision_score(one_hot, shares, average="macro"), abs=1e-12
    )


def test_chance_loss_is_the_entropy_of_the_labels():
    assert of_classes(2).chance_loss(np.array([0, 1, 0, 1])) == pytest.approx(math.log(2))
    assert of_classes(10).chance_loss(np.repeat(np.arange(10), 3)) == pytest.approx(math.log(10))
    assert of_classes(2).chance_loss(np.zeros(5, np.int32)) == 0


@pytest.mark.parametrize(("positives", "negatives"), [(1, 1), (1, 6), (3, 5), (4, 4)])
def test_noise_of_the_auroc_is_that_of_all_orders(positives, negatives):
    examples = positives + negatives
    places = list(combinations(range(examples), positives))
    areas = []
    for chosen in places:
        labels = np.isin(np.arange(examples), chosen).astype(int)
        areas.append(auroc(labels, np.arange(examples)))
    assert auroc_noise(labels) == pytest.approx(np.std(areas))
    assert auroc_noise(np.ones(3)) == np.inf


def test_chance_scores_are_those_of_the_class_sizes_alone():
    labels = np.repeat([0, 1], [90, 10])
    constant = np.full((100, 1), np.log(10 / 90))
    known = of_classes(2).scores(labels, constant)  # always the base rate
    chance = of_classes(2).chance(labels)
    assert chance.pop("examples") == [90, 10]
    assert chance == pytest.approx(known)
    assert known["accuracy"] == 0.9
    assert of_classes(3).chance(np.array([0, 2, 2])) | {"loss": 0} == {
        "examples": [1, 0, 2], "loss": 0, "accuracy": 2 / 3, "auroc": 0.5, "auprc": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize("decimals", [0, 1, 12])
def test_ranks_and_their_correlation_equal_scipy_s(decimals):
    x, y = np.random.default_rng(decimals).normal(size=(2, 500)).round(decimals)
    np.testing.assert_array_equal(ranks(x), scipy.stats.rankdata(x))
    assert spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, rel=1e-12)
