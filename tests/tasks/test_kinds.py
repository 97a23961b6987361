"""Every kind of task: its loss, its scores, its record, and what the other strand does to it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from jaxdna.errors import UserError
from jaxdna.tasks.classes import Binary, Multiclass
from jaxdna.tasks.kinds import KINDS, of_classes, task_of
from jaxdna.tasks.labels import Multilabel
from jaxdna.tasks.numbers import Counts, Regression

RNG = np.random.default_rng(0)
EXAMPLES = 300
NUMBERS = RNG.normal([5, -300, 0.002], [2, 40, 0.001], (EXAMPLES, 3)).astype(np.float32)
COUNTED = RNG.poisson([0.4, 900], (EXAMPLES, 2)).astype(np.float32)
TARGETS = {
    "binary": RNG.integers(0, 2, EXAMPLES, dtype=np.int32),
    "multiclass": RNG.integers(0, 3, EXAMPLES, dtype=np.int32),
    "multilabel": (RNG.random((EXAMPLES, 3)) < [0.1, 0.5, 0.7]).astype(np.int32),
    "regression": NUMBERS,
    "counts": COUNTED,
}
TASKS = {
    "binary": Binary(),
    "multiclass": Multiclass(("none", "E-box", "TATA")),
    "multilabel": Multilabel(("K562", "HepG2", "GM12878"), swaps=(1, 0, 2)),
    "regression": Regression.fitted(("dev", "hk", "small"), NUMBERS),
    "counts": Counts.fitted(("plus", "minus"), COUNTED, swaps=(1, 0)),
}


def outputs_of(kind):
    rng = np.random.default_rng(len(kind))
    return rng.normal(0, 0.7, (EXAMPLES, TASKS[kind].outputs)).astype(np.float32)


def plain_losses(kind, targets, outputs):
    """The mean over outputs of each example's loss, from the distributions' own definitions."""
    outputs = outputs.astype(np.float64)
    if kind in ("binary", "multilabel"):
        chance = 1 / (1 + np.exp(-outputs))
        return -stats.bernoulli.logpmf(targets.reshape(outputs.shape), chance).mean(axis=1)
    if kind == "multiclass":
        shares = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
        return -np.log(shares[np.arange(len(shares)), targets])
    if kind == "regression":
        mean, sd = targets.mean(axis=0, dtype=np.float64), targets.std(axis=0, dtype=np.float64)
        return ((outputs - (targets - mean) / sd) ** 2).mean(axis=1)
    rates = np.exp(outputs) * TASKS[kind].mean
    worst = stats.poisson.logpmf(targets, targets) - stats.poisson.logpmf(targets, rates)
    return worst.mean(axis=1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_the_distribution_on_devices_and_on_the_host(kind):
    task, targets, outputs = TASKS[kind], TARGETS[kind], outputs_of(kind)
    wanted = plain_losses(kind, targets, outputs)
    found = np.asarray(jax.jit(task.losses)(outputs, targets))
    assert found.dtype == np.float32
    # Poisson's sums cancel: 900 counts leave less than one nat.
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-5 if kind != "counts" else 2e-3)
    assert task.loss(targets, outputs) == pytest.approx(wanted.mean(), rel=1e-9)
    assert task.scores(targets, outputs)["loss"] == pytest.approx(wanted.mean(), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_sums_of_a_batch_leave_padding_out(kind):
    task, targets, outputs = TASKS[kind], TARGETS[kind], outputs_of(kind)
    weight = np.ones(EXAMPLES, np.float32)
    weight[-7:] = 0
    sums = task.batch_sums(jnp.asarray(outputs), {"y": targets, "weight": weight})
    assert tuple(sums) == task.sums
    scores = task.scores(targets[:-7], outputs[:-7])
    means = {"loss": "loss"} | dict(task.counted)
    for key, score in means.items():
        assert float(sums[key]) / (EXAMPLES - 7) == pytest.approx(scores[score], rel=1e-4)


@pytest.mark.parametrize("kind", ["regression", "counts"])
def test_numbers_are_scored_in_their_own_units(kind):
    task, targets, outputs = TASKS[kind], TARGETS[kind], outputs_of(kind)
    values = np.stack(list(task.answers(outputs).values()), axis=1)
    each = task.scores_by_output(targets, outputs)
    for i, name in enumerate(task.names):
        known, found = targets[:, i].astype(np.float64), values[:, i]
        assert each[name]["mse"] == pytest.approx(sklearn_metrics.mean_squared_error(known, found))
        assert each[name]["r2"] == pytest.approx(sklearn_metrics.r2_score(known, found))
        assert each[name]["pearson"] == pytest.approx(stats.pearsonr(known, found).statistic)
        assert each[name]["spearman"] == pytest.approx(stats.spearmanr(known, found).statistic)
    scores = task.scores(targets, outputs)
    for key in ("mse", "r2", "pearson", "spearman"):
        assert scores[key] == pytest.approx(np.mean([one[key] for one in each.values()]))
    other = type(task).fitted(task.names, targets[:50] + 1)
    again = other.answers(task.restated(outputs, other))
    np.testing.assert_allclose(np.stack(list(again.values()), axis=1), values, rtol=1e-4, atol=1e-4)


def test_labels_and_classes_are_scored_as_scikit_learn_does():
    outputs, targets = outputs_of("multilabel"), TARGETS["multilabel"]
    scores = TASKS["multilabel"].scores(targets, outputs)
    assert scores["auroc"] == pytest.approx(sklearn_metrics.roc_auc_score(targets, outputs))
    assert scores["auprc"] == pytest.approx(
        sklearn_metrics.average_precision_score(targets, outputs)
    )
    assert scores["accuracy"] == pytest.approx(((outputs > 0) == targets).mean())
    outputs, targets = outputs_of("multiclass"), TARGETS["multiclass"]
    answers = TASKS["multiclass"].answers(outputs)
    assert list(answers) == ["class", *(f"probability_{n}" for n in ("none", "E-box", "TATA"))]
    called = np.array([("none", "E-box", "TATA")[i] for i in outputs.argmax(axis=1)])
    assert (answers["class"] == called).all()
    np.testing.assert_array_equal(
        TASKS["multiclass"].confusion(targets, outputs),
        sklearn_metrics.confusion_matrix(targets, outputs.argmax(axis=1)),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_measures_have_the_scores_values_and_intervals_around_them(kind):
    task, targets, outputs = TASKS[kind], TARGETS[kind], outputs_of(kind)
    found, scores = task.measures(targets, outputs), task.scores(targets, outputs)
    assert list(found) == list(task.measured)
    for name, measure in found.items():
        assert measure.low <= measure.value <= measure.high
        assert measure.low < measure.high or name.startswith("recall")
        if name in scores:
            assert measure.value == pytest.approx(scores[name], rel=1e-9, abs=1e-12)
    assert set(task.scored) <= set(task.chance(targets))


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_answer_has_the_loss_of_chance(kind):
    task, targets = TASKS[kind], TARGETS[kind]
    columns = targets.reshape(EXAMPLES, -1)
    best = {
        "binary": lambda: np.log(columns.mean(axis=0) / (1 - columns.mean(axis=0))),
        "multilabel": lambda: np.log(columns.mean(axis=0) / (1 - columns.mean(axis=0))),
        "multiclass": lambda: np.log(np.bincount(targets) / EXAMPLES),
        "regression": lambda: np.zeros(3),
        "counts": lambda: (
            np.zeros(2) if not task.swaps else np.log(columns.mean(axis=0) / task.mean)
        ),
    }[kind]()
    outputs = np.tile(best, (EXAMPLES, 1))
    assert task.chance_loss(targets) == pytest.approx(task.loss(targets, outputs), rel=1e-6)
    assert task.chance(targets)["loss"] == pytest.approx(task.chance_loss(targets))


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_in_json_is_the_task_again(kind):
    record = json.loads(json.dumps({"task": TASKS[kind].record()}))
    assert task_of(record) == TASKS[kind]


def test_earlier_records_tell_classes_and_nonsense_is_refused():
    assert task_of({"classes": 2}) == Binary() == of_classes(2)
    assert task_of({"classes": 10}).outputs == 10
    for wrong in ({}, {"task": {}}, {"task": {"kind": "no"}}, {"task": {"kind": "binary", "x": 1}}):
        with pytest.raises(ValueError, match="no task"):
            task_of(wrong)


def test_the_other_strand_exchanges_outputs():
    values = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(TASKS["multilabel"].turned(values), values[:, [1, 0, 2]])
    assert TASKS["binary"].turned(values) is values
    assert TASKS["counts"].mean[0] == TASKS["counts"].mean[1]  # exchanged, they share their unit


@pytest.mark.parametrize(
    ("task", "targets", "words"),
    [
        (Multiclass(("a", "b", "c")), np.array([0, 1, 1]), "class c has no example"),
        (Multilabel(("a", "b")), np.array([[0, 1], [1, 1]]), "label b is 1 in all 2 examples"),
        (
            Regression(("a",)),
            np.array([[1], [np.nan]]),
            "1 of 2 examples have a target that is NaN",
        ),
        (Counts(("a",)), np.array([[1], [-1]]), "1 of 2 examples have a negative target"),
    ],
)
def test_targets_that_do_not_fit_are_refused(task, targets, words):
    with pytest.raises(UserError, match=words):
        task.check(targets, "--config.data.table=t.tsv")


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r"b is 3 in all training examples"):
        Regression.fitted(("a", "b"), np.array([[1, 3], [2, 3]], np.float32))
    with pytest.raises(UserError, match=r"metric=val_auroc does not go with the task regression"):
        TASKS["regression"].check_metric("val_auroc")
    with pytest.raises(UserError, match=r"class_weight=balanced is for classes"):
        TASKS["counts"].weighted("balanced", None)
