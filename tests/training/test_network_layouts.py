"""Every registered network on mixes of axes: the numbers of one device."""

from functools import cache

import jax
import numpy as np
import pytest

from jaxdna.config import flat, load_config, validate
from jaxdna.data.batches import batch_rows
from jaxdna.data.registry import load_dataset
from jaxdna.models.registry import BUILDERS
from jaxdna.parallel.mesh import make_mesh
from jaxdna.strategies.prepare import program_of

pytestmark = pytest.mark.usefixtures("as_users_compile")

STEPS = 4
SMALL = [
    "data.train_examples=144",
    "data.validation_examples=16",
    "data.test_examples=8",
    "train.batch_size=16",
    "optimizer.name=sgd",
    "optimizer.learning_rate=0.05",
    "optimizer.schedule=constant",
    "optimizer.warmup_epochs=0",
    "optimizer.weight_decay=0",
]
IMAGES, SEQUENCES = ["data.synthetic=true"], ["data.length=64"]
NETWORKS = {
    "cifar10": [*IMAGES, "model.filters=4,8", "model.dense=16"],
    "mnist": [*IMAGES, "model.filters=4,8", "model.dense=16,8"],
    "mnist_mlp": [*IMAGES, "model.dense=16,8"],
    "tal1": [*SEQUENCES, "model.filters=8", "model.width=5"],
    "multiscale": [
        *["model.name=multiscale", *SEQUENCES, "model.filters=8", "model.width=5"],
        *["model.short_filters=8", "model.short_width=3", "model.dense=8"],
    ],
    "gapped": [
        *["model.name=gapped", *SEQUENCES, "model.filters=8", "model.width=5", "model.dense=8"],
        *["model.short_filters=8", "model.short_width=3", "model.span=5", "model.letters=3"],
        *["model.kmer_share=0.7", "model.both_strands=true"],
    ],
    "arranged": [
        *["model.name=gapped", *SEQUENCES, "model.filters=8", "model.width=5", "model.dense=8"],
        *["model.short_filters=8", "model.short_width=3", "model.span=5", "model.letters=3"],
        *["model.inner_filters=8", "model.inner_width=3", "model.both_strands=true"],
    ],
    "deep_cnn": [*SEQUENCES, "model.filters=8,8", "model.width=5", "model.dense=8"],
    "dilated": [*SEQUENCES, "model.filters=8", "model.width=5"],
    "attention": [*SEQUENCES, "model.filters=8", "model.width=5", "model.pool=4"],
}
MIXES = [
    {"data": 8},
    {"fsdp": 4, "model": 2},
    {"data": 2, "fsdp": 2, "model": 2},
    {"data": 2, "seq": 2, "model": 2},
]
# One mix that has all axes where another network is the same but for its sizes, or where nothing
# but rows is split; `jaxdna layouts --config=configs/NAME.py` compares all of a network's.
ALL_AXES = [{"fsdp": 2, "seq": 2, "model": 2}]
MESHES = {
    "cifar10": MIXES,
    "mnist": ALL_AXES,
    "mnist_mlp": MIXES,
    "tal1": ALL_AXES,
    "multiscale": ALL_AXES,
    "gapped": MIXES,
    "arranged": ALL_AXES,
    "deep_cnn": ALL_AXES,
    "dilated": [*ALL_AXES, {"seq": 8}, {"seq": 2, "model": 4}],
    "attention": ALL_AXES,
}
# On eight devices a stage is split along three axes where it is the only one.
PIPELINES = [
    {"stage": 1, "data": 2, "fsdp": 2, "model": 2},
    {"stage": 2, "fsdp": 2, "model": 2},
    {"stage": 2, "data": 2, "fsdp": 2},
]
PIPELINED = [("mnist_mlp", mesh) for mesh in PIPELINES]
PIPELINED += [
    (name, PIPELINES[-1]) for name in ("multiscale", "gapped", "deep_cnn", "dilated", "attention")
]


def train(config, flags, devices):
    config = validate(flat(config) | {"mesh.data": 1} | flags)
    dataset = load_dataset(config)
    split = dataset.splits["train"]
    mesh = make_mesh(config, jax.devices()[:devices])
    program = program_of(config).of(config, mesh, dataset.spec)
    state, losses, call = program.init(), [], program.compiled(1)
    for step in range(STEPS):
        rows, weight = batch_rows(0, step, 1, len(split), 16)
        batch = {"x": split.x[rows], "y": split.y[rows], "weight": weight}
        shapes = program.abstract_batches(1)
        batch = {name: jax.device_put(batch[name], shapes[name].sharding) for name in batch}
        state, metrics = call(state, batch)
        losses.append(float(metrics["loss"][0]) / 16)
    return jax.tree.map(np.asarray, state.params), losses


def configured(name):
    """Of a config of that name; three have none, and are tal1's with another network."""
    config = "tal1" if name in ("multiscale", "gapped", "arranged") else name
    return load_config(f"configs/{config}.py", [*SMALL, *NETWORKS[name]])


@cache
def on_one_device(name):
    config = configured(name)
    return config, *train(config, {}, 1)


@pytest.mark.parametrize(
    ("name", "mesh"),
    [(name, mesh) for name, meshes in MESHES.items() for mesh in meshes],
    ids=str,
)
def test_a_mix_of_axes_gives_the_parameters_of_one_device(name, mesh):
    check(name, {f"mesh.{axis}": n for axis, n in mesh.items()})


def test_every_network_is_here():
    named = {configured(name).model.name for name in NETWORKS}
    assert named == set(BUILDERS)


@pytest.mark.parametrize(("name", "mesh"), PIPELINED, ids=str)
def test_so_does_one_inside_the_stages_of_a_pipeline(name, mesh):
    pipeline = {"strategy": "pipeline", "pipeline.microbatches": 1}
    check(name, pipeline | {f"mesh.{axis}": n for axis, n in mesh.items()})


def check(name, flags):
    config, params, losses = on_one_device(name)
    other, other_losses = train(config, flags, 8)
    # Parameters below 1 and sums of 16 terms in another order, over four SGD steps of 0.05.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-6), params, other)
    np.testing.assert_allclose(losses, other_losses, rtol=1e-5)
