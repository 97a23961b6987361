"""Members that differ in what is held out, and in settings of the update: seeds x folds x grid."""

import json
from importlib.util import find_spec

import jax
import numpy as np
import pytest
from sklearn.metrics import log_loss

import jaxdna
from jaxdna.config import flat, load_config, validate
from jaxdna.data.registry import load_dataset, spec_of
from jaxdna.errors import UserError
from jaxdna.member_settings import member_settings
from jaxdna.parallel.mesh import make_mesh
from jaxdna.runs.members_table import grid_rows, members_rows
from jaxdna.strategies.members import MemberProgram
from jaxdna.strategies.prepare import program_of
from jaxdna.study.plan import program_on
from jaxdna.study.topology import topology
from jaxdna.training.early_stopping import EarlyStopping
from jaxdna.training.member_progress import MemberProgress
from tests.strategies.test_members import SGD

SMALL = [
    "data.length=240",
    "data.train_examples=320",
    "data.validation_examples=32",
    "data.test_examples=64",
    "train.steps_per_call=5",
    "mesh.data=1",
]
GRID = "members.grid=optimizer.learning_rate=0.5,0.2;optimizer.weight_decay=0,0.1"


def config_of(*changes):
    return load_config("configs/tal1.py", [*SMALL, *changes])


def lone(config, settings):
    """The configuration that trains one member by itself, on one device."""
    ones = {key: 1 for key in flat(config) if key.startswith("mesh.")}
    return validate(flat(config) | ones | {"members.seeds": 1, "members.grid": ""} | settings)


def train(config, devices):
    """Parameters after two epochs, and the steps of each network."""
    dataset = load_dataset(config)
    program = program_of(config).of(
        config, make_mesh(config, jax.devices()[:devices]), dataset.spec
    )
    feed, steps = program.feed(dataset.splits["train"]), program.steps_per_epoch
    state, progress = program.init(), program.begin(dataset.splits["validation"].y)
    for epoch in range(2):
        batches = progress.marked(feed(epoch * steps, steps))
        state, _ = program.compiled(steps)(state, batches)
    return jax.tree.map(np.asarray, (state.params, state.step))


def test_seeds_folds_and_settings_are_trained_as_if_each_were_alone():
    # With 26 in a batch the folds have 9 or 10 batches: a member whose epoch is over waits.
    few = ["members.seeds=2", "members.folds=3", "train.batch_size=26", "train.steps_per_call=0"]
    # Step sizes follow from these numbers, and weights from each fold's own classes.
    falls = ["optimizer.schedule=cosine", "optimizer.warmup_epochs=0.5", "train.epochs=3"]
    falls += ["train.class_weight=balanced"]
    mesh = ["mesh.member=2", "mesh.data=2", "mesh.model=2"]
    config = config_of(*SGD, *falls, GRID, *few, *mesh)
    members = member_settings(config)
    params, steps = train(config, 8)
    assert steps.tolist() == [18, 20, 20] * 8
    for i in (0, 19):
        own, own_steps = train(lone(config, members[i]), 1)
        assert own_steps == steps[i]
        for one, other in zip(jax.tree.leaves(params), jax.tree.leaves(own), strict=True):
            np.testing.assert_allclose(one[i], other, rtol=0, atol=1e-6)
    apart = [
        np.abs(params["conv"]["kernel"][i] - params["conv"]["kernel"][0]).max() for i in range(24)
    ]
    assert min(apart[1:]) > 1e-3


def test_every_setting_of_adam_can_differ_between_members():
    keys = {"learning_rate": "0.01,0.02", "b1": "0.8,0.9", "b2": "0.99", "eps": "1e-5"}
    grid = ";".join(f"optimizer.{key}={values}" for key, values in keys.items())
    config = config_of(f"members.grid={grid}")
    params, _ = train(config, 1)
    for i in (0, 3):
        own, _ = train(lone(config, member_settings(config)[i]), 1)
        for one, other in zip(jax.tree.leaves(params), jax.tree.leaves(own), strict=True):
            np.testing.assert_allclose(one[i], other, rtol=0, atol=2e-5)


def test_folds_hold_out_each_example_once_and_keep_the_classes_in_proportion():
    dataset = load_dataset(config_of("members.folds=3"))
    pool = dataset.splits["train"]
    assert pool is dataset.splits["validation"]
    held = np.concatenate([fold["validation"] for fold in dataset.folds])
    assert sorted(held.tolist()) == list(range(352))
    for i, fold in enumerate(dataset.folds):
        assert sorted([*fold["train"], *fold["validation"]]) == list(range(352))
        assert abs(pool.y[fold["validation"]].mean() - pool.y.mean()) < 0.01
        own = load_dataset(config_of("members.folds=3", f"members.fold={i}"))
        for name in ("train", "validation"):
            np.testing.assert_array_equal(own.splits[name].x, pool.x[fold[name]])
        ceiling = dataset.task.scores(
            own.splits["validation"].y, own.best_logits("validation")[:, None]
        )
        assert own.ceiling("validation")["loss"] == ceiling["loss"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    grid = "members.grid=optimizer.learning_rate=0.0001,0.02"
    mesh = ["mesh.member=4", "mesh.data=2"]
    config = config_of(grid, "members.seeds=2", "members.folds=2", "train.epochs=3", *mesh)
    return jaxdna.train(config, tmp_path_factory.mktemp("runs") / "grid", quiet=True)


def test_the_best_setting_on_validation_answers(run):
    summary, dataset = run.summary, load_dataset(run.config)
    first, second = summary["grid"]
    assert first["settings"] == {"optimizer.learning_rate": 0.02}
    assert first["validation"]["loss"] < second["validation"]["loss"]
    assert summary["ensemble"]["members"] == first["members"] == [4, 5, 6, 7]
    assert [(one["seed"], one["fold"]) for one in summary["members"][4:]] == [
        (0, 0), (0, 1), (1, 0), (1, 1),
    ]  # fmt: skip
    split = dataset.splits["test"]
    letters = ["".join("ACGT"[code] for code in row) for row in split.x]
    assert log_loss(split.y, run.predict(letters).astype(float)) == pytest.approx(
        summary["test"]["loss"], rel=1e-4
    )
    assert run.evaluate()["ensemble"] == summary["ensemble"]
    headings, rows = members_rows(summary)
    assert [row[0] for row in rows[4:]] == ["mean", "sd", "ensemble"]
    assert {row[headings.index("fold")] for row in rows[:4]} == {0, 1}
    assert grid_rows(summary)[1][0][:3] == ["learning_rate=0.02", 4, 0]
    assert "learning_rate=0.02" in run.folder.report.read_text()


def test_a_member_is_judged_by_its_own_fold(run):
    """Scikit-learn's loss of what each member says of the fold that it was not trained on."""
    dataset = load_dataset(run.config)
    pool = dataset.splits["validation"]
    for i in (4, 7):
        own = dataset.folds[run.summary["members"][i]["fold"]]["validation"]
        letters = ["".join("ACGT"[code] for code in row) for row in pool.x[own]]
        answers = jaxdna.open_run(run.folder.path, member=i, quiet=True).predict(letters)
        expected = run.summary["members"][i]["validation"]["loss"]
        assert log_loss(pool.y[own], answers.astype(float)) == pytest.approx(expected, rel=1e-4)


def test_a_setting_that_breaks_a_member_does_not_win():
    """What the loop knows of a grid, with scores made up: the better setting breaks once."""
    stopping = [EarlyStopping("val_loss", 0, 0.0, chance_loss=0.7) for _ in range(4)]
    settings = [{"optimizer.b1": b1, "train.seed": seed} for b1 in (0.1, 0.9) for seed in (0, 1)]
    progress = MemberProgress.begun(stopping, settings)
    for own, loss in zip(progress.members, (0.1, 0.1, 0.5, 0.4), strict=True):
        row = {"epoch": 1, "step": 1, "train_loss": loss, "val_loss": loss, "seconds": 0.0}
        own.stopping.update(1, row)
        own.rows.append(row)
        own.epoch = 1
    assert (progress.answering, progress.best) == ([0, 1], 0)
    progress.broken[0] = "the loss is nan at step 7"
    progress = MemberProgress.from_json(json.loads(json.dumps(progress.to_json())))
    assert (progress.answering, progress.best) == ([2, 3], 3)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["members.grid=train.epochs=1,2"], "a grid cannot go over train.epochs; legal: mod"),
        (["members.grid=optimizer.name=adam,sgd"], "cannot go over optimizer.name; legal: mod"),
        (["members.grid=optimizer.b1=0.1,2"], "optimizer.b1=2 is not legal: it must be a num"),
        (["members.grid=optimizer.b1=0.1"], "has one setting and nothing to compare"),
        (["members.grid=optimizer.b1=0.1,0.1"], "gives a value of optimizer.b1 twice"),
        (["members.grid=optimizer.b1=0,0.1;optimizer.b1=0.2"], "names optimizer.b1 twice"),
        (["members.grid=optimizer.b1"], "gives no value of optimizer.b1"),
        (["members.grid=model.width=5,241"], "model.width=241 is longer than the sequences"),
        (["members.folds=1"], "members.folds=1 is not legal: it must be 0, or an integer, 2 to"),
        (["members.fold=0"], "members.fold=0 is not legal: it must be -1 without"),
        (["members.folds=3", "members.fold=3"], "members.fold=3 is not legal: it must be -1 to 2"),
        (["members.seeds=200", "members.folds=200"], "asks for 40,000 networks"),
        (["members.folds=2", "strategy=pipeline"], "members.folds=2 needs --config.strategy=spmd"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_or_held_out_is_a_sentence(flags, sentence):
    with pytest.raises(UserError, match=sentence):
        config_of(*flags)


def test_more_folds_than_examples_are_a_sentence():
    with pytest.raises(
        UserError, match=r"folds=200 is more than the 1\d\d training and validation"
    ):
        load_dataset(config_of("members.folds=200"))


@pytest.mark.parametrize(
    "several", ["members.seeds=4", "members.grid=optimizer.learning_rate=0.5,0.2,0.1,0.05"]
)
def test_groups_side_by_side_are_as_one_after_the_other(monkeypatch, several):
    """What a TPU does with more members than its fast memory holds."""
    config = config_of(*SGD, several)
    alone, _ = train(config, 1)
    monkeypatch.setattr(MemberProgram, "_one_by_one", False)
    monkeypatch.setattr(MemberProgram, "_most", 2)
    grouped, steps = train(config, 1)
    assert steps.tolist() == [20] * 4
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(grouped), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


@pytest.mark.skipif(find_spec("libtpu") is None, reason="needs the extra [plan]")
def test_a_tpu_takes_as_many_members_side_by_side_as_its_fast_memory_holds():
    devices = topology("v5e:1x1").devices
    for seeds, rounds in ((16, 1), (24, 2), (64, 4)):
        config = load_config("configs/tal1.py", [f"members.seeds={seeds}"])
        assert program_on(config, spec_of(config), devices).rounds == rounds
