"""A network that learns what an ensemble answers."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, logit, softmax

import jaxdna
from jaxdna.config import load_config
from jaxdna.console import make_console
from jaxdna.data.registry import load_dataset
from jaxdna.errors import UserError
from jaxdna.runs.members_table import members_rows
from jaxdna.runs.student import student_config, taught_by
from jaxdna.tasks.classes import Binary, Multiclass
from jaxdna.tasks.labels import Multilabel

SMALL = [
    "data.length=120",
    "data.train_examples=160",
    "data.validation_examples=32",
    "data.test_examples=32",
    "train.epochs=2",
]
MEMBERS = ["members.seeds=2", "members.folds=2", "members.distil=true"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = load_config("tal1", [*SMALL, *MEMBERS, "mesh.member=4", "mesh.data=2"])
    return jaxdna.train(config, tmp_path_factory.mktemp("runs") / "members", quiet=True)


def test_the_student_is_taught_what_members_say_that_have_not_been_trained_on_an_example(run):
    """Another path to the same answers: each member's `predict` on the letters."""
    whole = load_dataset(run.config)
    dataset = load_dataset(student_config(run.config))
    taught = taught_by(run.config, run.folder, make_console())(dataset)
    y = taught.splits["train"].y
    letters = ["".join("ACGT"[code] for code in row) for row in dataset.splits["train"].x]
    each = [
        logit(jaxdna.open_run(run.folder.path, member=i, quiet=True).predict(letters).astype(float))
        for i in range(4)
    ]
    for fold, members in enumerate(([0, 2], [1, 3])):
        held = whole.folds[fold]["validation"]
        held = held[held < len(y)]
        assert len(held) > 60
        expected = expit(np.mean([each[i][held] for i in members], axis=0))
        np.testing.assert_allclose(y[held], expected, atol=1e-5)
    np.testing.assert_array_equal(taught.splits["validation"].y, dataset.splits["validation"].y)


def test_the_student_is_a_run_of_one_network(run):
    student = jaxdna.open_run(run.folder.path / "student", quiet=True)
    assert student.evaluate()["test"] == student.summary["test"] == run.summary["student"]["test"]
    assert student.summary["params"] == run.summary["params"]
    assert "members" not in student.summary
    assert members_rows(run.summary)[1][-1][0] == "student"
    assert 'href="student/report.html"' in run.folder.report.read_text()
    assert (student.folder.path / "report.html").is_file()
    again = jaxdna.train(run.config, run.folder.path, quiet=True)
    assert again.summary == run.summary


@pytest.mark.parametrize(
    ("task", "loss"),
    [
        (Binary(), lambda p, q: -(p * np.log(q) + (1 - p) * np.log(1 - q))[:, 0]),
        (Multiclass(("a", "b", "c")), lambda p, q: -(p * np.log(q)).sum(axis=1)),
        (
            Multilabel(("a", "b", "c")),
            lambda p, q: -(p * np.log(q) + (1 - p) * np.log(1 - q)).mean(axis=1),
        ),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_soft_targets_are_learnt_by_their_cross_entropy(task, loss):
    rng = np.random.default_rng(0)
    teacher, outputs = rng.normal(size=(2, 5, task.outputs))
    shares = softmax if task.kind == "multiclass" else lambda logits, axis: expit(logits)
    expected = loss(shares(teacher, axis=1), shares(outputs, axis=1))
    targets = task.predicted(teacher).reshape(5, *task.soft.target_shape)
    found = task.soft.losses(jnp.array(outputs, jnp.float32), jnp.array(targets, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert task.soft.target_dtype == "float32"


def test_one_network_has_nobody_to_learn_from():
    with pytest.raises(UserError, match="distil=true teaches one network what several say"):
        load_config("tal1", ["members.distil=true"])


def test_a_student_whose_batch_does_not_divide_is_refused_before_anything_is_trained(tmp_path):
    flags = ["members.seeds=8", "members.distil=true", "mesh.member=8", "mesh.data=1"]
    config = load_config("tal1", [*SMALL, *flags, "train.batch_size=12"])
    with pytest.raises(UserError, match="batch_size=12"):
        jaxdna.train(config, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
