"""Calibration against sums written out, and data whose temperature is known."""

import numpy as np
import pytest
from scipy.special import expit, log_softmax

from jaxdna.tasks.calibration import calibration, calibration_error, corrected_error, reliability
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


def plain(said, true):
    """The error in bins of equally many examples."""
    parts = np.array_split(np.argsort(said, kind="stable"), 15)
    return sum(len(rows) * abs(said[rows].mean() - true[rows].mean()) for rows in parts) / len(said)


def test_what_chance_adds_is_that_of_draws_from_the_answers_themselves():
    rng = np.random.default_rng(0)
    said = expit(rng.normal(0, 2, 900))
    drawn = np.array([plain(said, rng.random(900) < said) for _ in range(2000)])
    # 4 standard errors, and a hundredth because a mean of 60 is not quite normal.
    near = 4 * drawn.std() / 2000**0.5 + 0.01 * drawn.mean()
    assert corrected_error(said, rng.random(900) < said)[1] == pytest.approx(drawn.mean(), abs=near)


def test_the_error_without_chance_is_what_resampled_shares_say():
    rng = np.random.default_rng(1)
    said = expit(rng.normal(0, 2, 900))
    true = rng.random(900) < said**1.3
    parts = np.array_split(np.argsort(said, kind="stable"), 15)
    share = (np.array([true[rows].sum() for rows in parts]) + 0.5) / 61
    noise = np.sqrt(share * (1 - share) / 60) * rng.normal(size=(20_000, 15))
    apart = np.array([said[rows].mean() - true[rows].mean() for rows in parts])
    resampled = np.abs(apart + noise).mean(axis=1)
    expected = 2 * np.abs(apart).mean() - resampled.mean()
    near = 4 * resampled.std() / 20_000**0.5
    assert corrected_error(said, true)[0] == pytest.approx(expected, abs=near)
    assert expected < plain(said, true)


def test_what_is_left_of_an_error_is_what_noise_upon_noise_leaves():
    """Of none three fifths of what chance gives, of one of 0.1 beside noise of 0.07 0.094."""
    rng = np.random.default_rng(2)
    said, normal = 0.2 + 0.6 * rng.random((300, 700)), rng.normal(size=400_000)
    middles = 0.2 + 0.6 * (np.arange(15) + 0.5) / 15  # of the bins, with 700 / 15 examples each
    for off in (0.0, 0.1):
        true = rng.random(said.shape) < said + off
        found = [corrected_error(*one)[0] for one in zip(said, true, strict=True)]
        noise = [np.sqrt(p * (1 - p) * 15 / 700) for p in middles + off]
        once, twice = (
            np.mean([np.abs(off + width * normal).mean() for width in np.multiply(noise, times)])
            for times in (1, 2**0.5)
        )
        near = 4 * np.std(found) / 300**0.5
        assert np.mean(found) == pytest.approx(2 * once - twice, abs=near)


def test_few_examples_have_a_calibration():
    for count in (1, 2, 20):
        error, chance = corrected_error(np.linspace(0, 1, count), np.arange(count) % 2 == 0)
        assert 0 <= error <= 1 and 0 <= chance <= 0.5


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
