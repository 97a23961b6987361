"""Balanced classes: the weights, the one step with them on every layout, and what is said."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdna.api import train
from jaxdna.config import load_config
from jaxdna.data.dataset import SPLITS, Dataset, Split
from jaxdna.parallel.mesh import make_mesh
from jaxdna.strategies.part_gradient import make_part_gradient
from jaxdna.strategies.prepare import program_of
from jaxdna.tasks.class_weights import balanced, meaning
from jaxdna.tasks.kinds import of_classes

SGD = ["optimizer.name=sgd", "optimizer.learning_rate=0.5", "train.batch_size=16"]
SGD += ["optimizer.weight_decay=0", "optimizer.warmup_epochs=0", "train.class_weight=balanced"]
KINDS = {
    "tal1": ("configs/tal1.py", ["data.length=60", "data.reverse_complement=false"]),
    "mnist": ("configs/mnist_mlp.py", ["model.dropout=0", "model.dense=16"]),
}


@functools.cache
def data(kind):
    """64 examples, of two classes one in eight, of ten classes 19, 5, 5, and so on."""
    rng = np.random.default_rng(0)
    shape, high = ((60,), 4) if kind == "tal1" else ((28, 28, 1), 256)
    y = (
        np.where(np.arange(64) % 8 == 0, 1, 0)
        if kind == "tal1"
        else np.maximum(0, np.arange(64) % 13 - 3)
    )
    split = Split(rng.integers(0, high, (64, *shape), dtype=np.uint8), y.astype(np.int32))
    return Dataset(dict.fromkeys(SPLITS, split), of_classes(2 if kind == "tal1" else 10), "drawn")


def program(kind, *overrides, devices=1):
    file, own = KINDS[kind]
    config = load_config(file, [*own, *SGD, *overrides])
    mesh = make_mesh(config, jax.devices()[:devices])
    return program_of(config).of(config, mesh, data(kind).spec)


def stacked(kind):
    """Three batches, the last with five rows of padding."""
    split = data(kind).splits["train"]
    rows = np.random.default_rng(1).permutation(64)[:48].reshape(3, 16)
    weight = np.ones((3, 16), np.float32)
    weight[2, 11:] = 0
    return {"x": split.x[rows], "y": split.y[rows], "weight": weight}


def run(made, batches):
    state, metrics = made.compiled(3)(made.init(), batches)
    return jax.tree.map(np.asarray, (state.params, metrics))


@functools.cache
def one_device(kind):
    made = program(kind)
    return jax.tree.map(np.asarray, made.init().params), *run(made, placed(made, kind))


def placed(made, kind):
    batches, shapes = stacked(kind), made.abstract_batches(3)
    return {name: jax.device_put(batches[name], leaf.sharding) for name, leaf in shapes.items()}


def assert_moved_alike(start, expected, found):
    """Relative to how far the parameters have moved: sums in another order, over three steps."""
    for old, new, other in zip(*map(jax.tree.leaves, (start, expected, found)), strict=True):
        distance = np.abs(new - old).max()
        assert distance > 0
        np.testing.assert_allclose(other, new, rtol=0, atol=2e-5 * distance + 2e-7)


def test_weights_are_those_of_the_whole_split_and_one_on_average():
    labels = np.repeat([0, 1, 3], [90, 9, 1])
    weights = balanced(labels, 4)
    np.testing.assert_allclose(weights, [100 / 270, 100 / 27, 1, 100 / 3])
    assert np.mean(np.array(weights)[labels]) == pytest.approx(1)
    assert program("tal1").task.class_weights == balanced(data("tal1").splits["train"].y, 2)
    assert program("tal1", "train.class_weight=none").task.class_weights == ()
    assert load_config("configs/tal1.py").train.class_weight == "none"


@pytest.mark.parametrize("kind", KINDS)
def test_the_step_follows_the_weighted_mean_loss(kind):
    """The last layer's bias, by hand in float64: its gradient is the mean of w * (p - y)."""
    made = program(kind)
    batches = stacked(kind)
    first = {name: leaf[2:] for name, leaf in batches.items()}  # the batch with padding
    start = made.init()
    logits = np.float64(made.apply(start.params, jnp.asarray(first["x"][0]), None))
    old = jax.tree.map(np.asarray, start.params)[made.head]["bias"]
    state, metrics = made.compiled(1)(start, first)
    y, mask = first["y"][0], first["weight"][0]
    counts = np.bincount(data(kind).splits["train"].y)
    w = (64 / (counts.size * counts))[y] * mask
    if kind == "tal1":
        p = 1 / (1 + np.exp(-logits[:, 0]))
        slope = np.array([(w * (p - y)).sum() / 11])
        loss = -(w * np.where(y == 1, np.log(p), np.log1p(-p))).sum()
    else:
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        slope = (w[:, None] * (p - np.eye(10)[y])).sum(axis=0) / 11
        loss = -(w * np.log(p[np.arange(16), y])).sum()
    moved = np.float64(state.params[made.head]["bias"]) - old
    np.testing.assert_allclose(moved, -0.5 * slope, rtol=1e-4, atol=1e-7)
    assert float(metrics["loss"][0]) == pytest.approx(loss, rel=1e-5)
    assert float(metrics["weight"][0]) == 11


@pytest.mark.parametrize(
    ("kind", "devices", "layout"),
    [
        ("tal1", 8, ["mesh.data=2", "mesh.fsdp=2", "mesh.model=2"]),
        ("tal1", 4, ["mesh.data=2", "mesh.seq=2"]),
        ("tal1", 2, ["gradient_sync.method=ring"]),
        ("tal1", 1, ["train.accumulate=4"]),
        ("tal1", 2, ["strategy=pipeline", "mesh.stage=2", "mesh.data=1"]),
        ("mnist", 4, ["mesh.data=2", "mesh.model=2"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else str(value),
)
def test_every_layout_has_the_numbers_of_one_device(kind, devices, layout):
    start, expected, sums = one_device(kind)
    made = program(kind, *layout, devices=devices)
    found, metrics = run(made, placed(made, kind))
    assert_moved_alike(start, expected, found)
    for name, values in sums.items():
        np.testing.assert_allclose(metrics[name], values, rtol=2e-5)


def test_the_parts_of_a_parameter_server_add_up_to_the_step():
    made = program("tal1")
    params = made.init().params
    batches = {name: leaf[2:] for name, leaf in stacked("tal1").items()}
    whole, parts = (jax.jit(make_part_gradient(made, parts)) for parts in (1, 2))
    expected, sums = whole(params, np.int32(0), np.int32(0), batches)
    halves = [parts(params, np.int32(0), np.int32(part), batches) for part in (0, 1)]
    added, metrics = jax.tree.map(jnp.add, *halves)
    for one, other in zip(*map(jax.tree.leaves, (expected, added)), strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=2e-6 * np.abs(one).max())
    assert float(metrics["loss"]) == pytest.approx(float(sums["loss"]), rel=1e-6)
    state, _ = made.compiled(1)(made.init(), batches)
    bias = made.head, "bias"
    moved = np.asarray(state.params[bias[0]][bias[1]]) - np.asarray(params[bias[0]][bias[1]])
    np.testing.assert_allclose(moved, -0.5 * np.asarray(expected[bias[0]][bias[1]]), rtol=1e-4)


def test_validation_is_weighted_as_training_is_and_the_test_is_not(tmp_path, capfd):
    rng = np.random.default_rng(2)
    rows = ["".join(rng.choice(list("ACGT"), 40)) + f"\t{int(i % 10 == 0)}\n" for i in range(600)]
    (tmp_path / "t.tsv").write_text("".join(rows))
    settings = [f"data.table={tmp_path}/t.tsv", f"runtime.data_cache={tmp_path}/cache"]
    settings += ["train.epochs=1", "optimizer.learning_rate=1e-9"]
    found = {}
    for way in ("none", "balanced"):
        folder = tmp_path / way
        train(load_config("fasta:small", [*settings, f"train.class_weight={way}"]), folder)
        row = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
        found[way] = row, json.loads((folder / "summary.json").read_text())
    said = capfd.readouterr()
    assert "probabilities are those for classes of equal size" in " ".join(
        (said.out + said.err).split()
    )
    # The network stays where it began, so both runs have the same logits.
    assert found["none"][1]["test"]["loss"] == pytest.approx(found["balanced"][1]["test"]["loss"])
    assert found["none"][0]["val_accuracy"] == found["balanced"][0]["val_accuracy"]
    assert found["none"][0]["val_loss"] != pytest.approx(found["balanced"][0]["val_loss"])


def test_chance_is_that_of_the_weighted_loss():
    labels = np.repeat([0, 1], [90, 10])
    assert of_classes(2).weighted("balanced", labels).chance_loss(labels) == pytest.approx(
        np.log(2)
    )


def test_the_note_has_the_way_back_to_the_shares_of_the_data():
    labels = np.repeat([0, 1], [90, 10])
    note = meaning(balanced(labels, 2))
    assert f"add {np.log(10 / 90):+.4f} to the logit" in note  # Bayes' rule, the classes' odds
    assert "subtract" in meaning(balanced(np.arange(30) % 3, 3))
