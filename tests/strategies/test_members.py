"""Many networks in one program: each is what a run of its own would be."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdna
from jaxdna.config import flat, load_config, validate
from jaxdna.data.registry import load_dataset
from jaxdna.errors import NotFiniteError, Preempted, UserError
from jaxdna.member_settings import member_settings
from jaxdna.parallel.mesh import make_mesh
from jaxdna.runs.guard import Guard
from jaxdna.runs.members_table import members_rows
from jaxdna.strategies.members import MemberProgram
from jaxdna.strategies.prepare import program_of
from jaxdna.tasks.kinds import of_classes
from jaxdna.training.early_stopping import EarlyStopping
from jaxdna.training.member_progress import MemberProgress
from jaxdna.training.state import TrainState
from jaxdna.training.step import skip_empty

SMALL = [
    "data.length=240",
    "data.train_examples=320",
    "data.validation_examples=32",
    "data.test_examples=32",
    "train.steps_per_call=5",
]
SGD = [
    "optimizer.name=sgd",
    "optimizer.learning_rate=0.5",
    "optimizer.schedule=constant",
    "optimizer.warmup_epochs=0",
    "optimizer.weight_decay=0",
]


def config_of(*changes):
    return load_config("configs/tal1.py", [*SMALL, *changes])


def program_on(config, dataset, devices):
    mesh = make_mesh(config, jax.devices()[:devices])
    return program_of(config).of(config, mesh, dataset.spec)


def alone(config, member):
    """The configuration that trains one member by itself, on one device."""
    ones = {key: 1 for key in flat(config) if key.startswith("mesh.")}
    return validate(flat(config) | ones | {"members.seeds": 1} | member_settings(config)[member])


def train(config, dataset, devices):
    """Parameters and losses after one epoch in two calls, as NumPy arrays."""
    program = program_on(config, dataset, devices)
    feed = program.feed(dataset.splits["train"])
    state, progress = program.init(), program.begin(dataset.splits["validation"].y)
    losses = []
    for first in (0, 5):
        state, metrics = program.compiled(5)(state, progress.marked(feed(first, 5)))
        losses.append(np.asarray(metrics["loss"]))
    return jax.tree.map(np.asarray, state), np.concatenate(losses, axis=-1)


@pytest.fixture(scope="module")
def dataset():
    return load_dataset(config_of())


@pytest.fixture(scope="module")
def lone_runs(dataset):
    config = config_of(*SGD, "members.seeds=8")
    return {i: train(alone(config, i), dataset, 1) for i in (0, 7)}


@pytest.mark.parametrize(
    "mesh",
    [{"member": 8}, {"member": 4, "data": 2}, {"member": 2, "seq": 2, "model": 2}, {"data": 8}],
    ids=str,
)
def test_each_member_equals_its_lone_run_on_every_mesh(dataset, lone_runs, mesh):
    flags = [f"mesh.{axis}={size}" for axis, size in ({"data": 1} | mesh).items()]
    state, losses = train(config_of(*SGD, "members.seeds=8", *flags), dataset, 8)
    for i, (own, own_losses) in lone_runs.items():
        ours = jax.tree.map(lambda leaf, i=i: leaf[i], state.params)
        for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(own.params), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
        np.testing.assert_allclose(losses[i], own_losses, rtol=1e-6)
    kernels = state.params["conv"]["kernel"]
    assert min(np.abs(kernels[i] - kernels[j]).max() for i in range(8) for j in range(i)) > 0.1


def test_on_one_cpu_each_member_has_the_bits_of_its_lone_run(dataset):
    config = config_of("members.seeds=3", "mesh.data=1")
    state, losses = train(config, dataset, 1)
    for i in (2,):
        own, own_losses = train(alone(config, i), dataset, 1)
        for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(own), strict=True):
            np.testing.assert_array_equal(one[i], other)
        np.testing.assert_array_equal(losses[i], own_losses)


CONVOLVES = ["model.name=deep_cnn", "model.filters=4", "model.width=5", "model.dense=4"]


@pytest.mark.parametrize(("steps", "network"), [(5, []), (1, CONVOLVES)], ids=["tal1", "deep_cnn"])
def test_a_member_that_does_not_go_on_keeps_every_bit_and_the_others_go_on(dataset, steps, network):
    program = program_on(config_of("members.seeds=3", "mesh.data=1", *network), dataset, 1)
    state, feed = program.init(), program.feed(dataset.splits["train"])
    before = jax.tree.map(np.asarray, state)
    batches = feed(0, steps) | {"active": np.array([True, False, True])}
    call = program.compiled(steps)
    # A CPU convolves ten times as slowly in a branch.
    assert (" conditional(" in call.as_text()) == (not network)
    after, metrics = call(state, batches)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(old[1], new[1])
    assert np.asarray(after.step).tolist() == [steps, 0, steps]
    weights = np.asarray(metrics["weight"]).sum(axis=1)
    assert weights.tolist() == [32 * steps, 0, 32 * steps]


def test_what_a_step_without_weight_does_is_dropped_where_there_is_no_branch():
    def step(state, batch):
        change = (batch["weight"] * batch["x"]).sum() / batch["weight"].sum()
        return replace(state, params=state.params + change), {"loss": change}

    state = TrainState(jnp.int32(3), jax.random.key(0), jnp.float32(2), ())
    for loops_well in (True, False):
        skipping = jax.jit(skip_empty(step, loops_well))
        batch = {"x": jnp.ones(4), "weight": jnp.zeros(4)}
        same, metrics = skipping(state, batch)
        assert (float(same.params), float(metrics["loss"])) == (2, 0)
        moved, metrics = skipping(state, batch | {"weight": jnp.ones(4)})
        assert (float(moved.params), float(metrics["loss"])) == (3, 1)


def test_an_axis_that_does_not_divide_the_members_is_a_sentence(dataset):
    config = config_of("members.seeds=6", "mesh.member=-1", "mesh.data=1")
    with pytest.raises(UserError, match=r"mesh.member=8 does not divide the 6 members; legal: 1"):
        program_on(config, dataset, 8)


class StopsAfter(Guard):
    """A guard that hears a signal before a call of its own choice."""

    calls = 3

    def stops_here(self):
        if self._asked == self.calls:
            self.requested = "SIGTERM"
        return super().stops_here()


EIGHT = ("members.seeds=8", "mesh.data=1", "mesh.member=-1", "train.epochs=2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return jaxdna.train(config_of(*EIGHT), tmp_path_factory.mktemp("runs") / "whole", quiet=True)


def test_a_run_that_is_stopped_within_an_epoch_ends_with_the_same_bits(tmp_path, whole):
    config = config_of(*EIGHT)
    with StopsAfter(config.watchdog, owns_process=False) as guard, pytest.raises(Preempted):
        jaxdna.train(config, tmp_path / "run", quiet=True, guard=guard)
    assert (tmp_path / "run/checkpoints/epoch-1-step-5").is_dir()
    resumed = jaxdna.train(config, tmp_path / "run", quiet=True)
    same = ("params_sha256", "test", "members", "ensemble", "best_epoch", "epochs")
    assert {k: resumed.summary[k] for k in same} == {k: whole.summary[k] for k in same}
    assert [one["epochs"] for one in whole.summary["members"]] == [2] * 8


def test_the_ensemble_or_one_member_answers(whole, dataset):
    summary, split = whole.summary, dataset.splits["test"]
    again = whole.evaluate()
    assert again["test"] == summary["test"] == summary["ensemble"]["test"]
    assert (again["members"], again["ensemble"]) == (summary["members"], summary["ensemble"])
    error = summary["ensemble"]["calibration"]["before"]["error"]
    headings, rows = members_rows(summary)
    losses = [row[headings.index("val loss")] for row in rows[:8]]
    assert losses == sorted(one["validation"]["loss"] for one in summary["members"])
    assert [row[0] for row in rows[8:]] == ["mean", "sd", "ensemble"]
    assert rows[-1][3:] == [None, *summary["test"].values(), error]
    assert f"member</th><th>{headings[1]}" in whole.folder.report.read_text()
    letters = ["".join("ACGT"[code] for code in row) for row in split.x]
    each = []
    for i in range(8):
        one = jaxdna.open_run(whole.folder.path, member=i, quiet=True)
        answers = one.predict(letters).astype(np.float64)
        each.append(np.log(answers / (1 - answers)))
        scores = dataset.task.scores(split.y, each[i][:, None])
        assert scores == pytest.approx(summary["members"][i]["test"], rel=1e-4)
    together = whole.predict(letters).astype(np.float64)
    np.testing.assert_allclose(
        np.log(together / (1 - together)), np.mean(each, axis=0), rtol=0, atol=1e-4
    )
    with pytest.raises(UserError, match="member=8 is not legal: it must be 0 to 7"):
        jaxdna.open_run(whole.folder.path, member=8, quiet=True).predict(letters)


class Broken(MemberProgram):
    """One member begins with a parameter that is not finite, or all of them do."""

    who = slice(1, 2)

    def init(self):
        state = super().init()
        bias = state.params["dense"]["bias"].at[self.who].set(np.nan)
        return replace(
            state, params=state.params | {"dense": state.params["dense"] | {"bias": bias}}
        )


def test_a_member_whose_loss_is_not_finite_is_reported_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxdna.strategies.prepare._members", lambda: Broken)
    config = config_of("members.seeds=4", "mesh.data=2", "mesh.member=4", "train.epochs=2")
    run = jaxdna.train(config, tmp_path / "run", quiet=True)
    members = run.summary["members"]
    assert [one["broken"] for one in members] == [None, "the loss is nan at step 0", None, None]
    assert [one["epochs"] for one in members] == [2, 0, 2, 2]
    assert run.summary["ensemble"]["members"] == [0, 2, 3]
    assert [row["members"] for row in run.history] == [3, 3]
    assert np.isfinite(run.summary["test"]["loss"])
    again = jaxdna.open_run(tmp_path / "run", quiet=True).evaluate()
    assert again["test"] == run.summary["test"]
    monkeypatch.setattr(Broken, "who", slice(None))
    with pytest.raises(NotFiniteError, match="the loss is nan at step 0"):
        jaxdna.train(config, tmp_path / "none", quiet=True)


def test_each_member_stops_by_itself():
    """What the loop knows of members, with scores made up: the second stops, the third breaks."""
    stopping = [EarlyStopping("val_loss", 1, 0.0, chance_loss=0.7) for _ in range(3)]
    progress = MemberProgress.begun(stopping, [{"train.seed": i} for i in range(3)])
    losses = np.array([[0.5, 0.4, 0.3], [0.5, 0.6, 0.6], [0.5, np.nan, 0.5]])
    for epoch in range(3):
        sums = {"loss": losses[:, epoch, None], "correct": np.ones((3, 1))}
        progress.add(sums | {"weight": np.ones((3, 1))}, epoch)
        scores = [{"loss": float(own[epoch]), "accuracy": 0.5, "auroc": None} for own in losses]
        row, improved = progress.end_epoch(scores, epoch + 1, of_classes(2), {})
        progress = MemberProgress.from_json(json.loads(json.dumps(progress.to_json())))
        assert improved.tolist() == [True, epoch == 0, epoch == 0]
        assert row["members"] == 3 - 2 * (epoch == 2) - (epoch == 1)
    assert progress.going_on.tolist() == [True, False, False]
    assert progress.broken == ["", "", "the loss is nan at step 1"]
    assert (progress.whole, progress.best, progress.best_epoch) == ([0, 1], 0, 3)
    assert [one.epoch for one in progress.members] == [3, 2, 1]
    assert progress.seen(32, 100) == 100 * 6
    answer = progress.pooled(np.arange(6, dtype=np.float32).reshape(3, 2, 1))
    np.testing.assert_array_equal(answer, [[1], [2]])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["mesh.member=2"], "mesh.member=2 splits networks that are trained at once"),
        (["members.seeds=2", "strategy=pipeline"], "members.seeds=2 needs --config.strategy=spmd"),
        (["members.seeds=2", "strategy=parameter_server"], "needs --config.strategy=spmd"),
        (["members.seeds=2", "gradient_sync.method=ring"], "legal with it: auto"),
        (["members.seeds=0"], "members.seeds=0 is not legal: it must be an integer, 1 to 10,000"),
        (["members.seeds=2", "seed=2147483647"], "beyond the largest, 2147483647"),
    ],
)
def test_what_cannot_be_trained_together_is_a_sentence(flags, sentence):
    with pytest.raises(UserError, match=sentence):
        config_of(*flags)
