"""Calibration against sums written out, and data whose temperature is known."""

import numpy as np
import pytest
from scipy.special import expit, log_softmax

from jaxdna.tasks.calibration import calibration, calibration_error, reliability
from jaxdna.tasks.classes import Binary, Multiclass
from jaxdna.tasks.numbers import Regression


def test_the_error_is_the_mean_distance_of_said_and_seen_over_fifteen_ranges():
    rng = np.random.default_rng(0)
    said = np.concatenate([rng.random(500), [0.0, 1.0, 1 / 15]])
    true = rng.random(503) < said**2
    total = 0.0
    for i in range(15):
        inside = [j for j in range(503) if i <= said[j] * 15 and (said[j] * 15 < i + 1 or i == 14)]
        total += abs(sum(said[j] for j in inside) - sum(true[j] for j in inside))
    bins = reliability(said, true)
    assert calibration_error(bins) == pytest.approx(total / 503, abs=1e-12)
    assert sum(one["examples"] for one in bins) == 503


@pytest.mark.parametrize("wrong", [0.25, 3.0])
def test_a_temperature_that_is_known_is_found_and_mends_the_answers(wrong):
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (2, 20_000, 1))
    labels = (rng.random((2, 20_000)) < expit(logits[..., 0])).astype(np.int32)
    found = calibration(Binary(), *((labels[i], wrong * logits[i]) for i in range(2)))
    # 3.5 standard errors: 1 / sqrt(n E[z² p (1 - p)]) is 0.0144.
    assert found["temperature"] == pytest.approx(wrong, rel=0.05)
    assert found["before"]["error"] > 0.05
    assert found["after"]["error"] < 0.015
    assert found["after"]["loss"] < found["before"]["loss"]


def test_of_several_classes_the_one_that_is_called_counts():
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 2, (2, 20_000, 3))
    draw = log_softmax(logits, axis=2) + rng.gumbel(size=logits.shape)
    labels = draw.argmax(axis=2).astype(np.int32)
    task = Multiclass(("a", "b", "c"))
    found = calibration(task, *((labels[i], 2 * logits[i]) for i in range(2)))
    # 4.6 standard errors: 1 / sqrt(n E[variance of the logits under p]) is 0.0109.
    assert found["temperature"] == pytest.approx(2, rel=0.05)
    assert found["after"]["error"] < 0.015 < found["before"]["error"]


def test_numbers_have_no_calibration():
    task = Regression.fitted(["y"], np.arange(4, dtype=np.float32)[:, None])
    nothing = np.zeros((4, 1), np.float32)
    assert calibration(task, (nothing, nothing), (nothing, nothing)) is None
