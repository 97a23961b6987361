"""Pipelines against gradient accumulation of the whole network on one device."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from rich.console import Console

from jaxdna.config import flat, load_config, override, validate
from jaxdna.data.dataset import Spec
from jaxdna.data.registry import load_dataset
from jaxdna.errors import EXIT_OK, UserError
from jaxdna.models.layers import Dense
from jaxdna.models.network import Layer, Network
from jaxdna.parallel.mesh import make_mesh
from jaxdna.runs.guard import Guard
from jaxdna.runs.loop import train
from jaxdna.runs.run_folder import RunFolder
from jaxdna.strategies.cutting import balanced, cut_at, measure
from jaxdna.strategies.pipeline import PipelineProgram
from jaxdna.strategies.prepare import Prepared
from jaxdna.strategies.schedules import timetable
from jaxdna.tasks.kinds import of_classes
from jaxdna.training.checkpoint import params_sha256
from jaxdna.training.program import Program
from jaxdna.training.step import piece_keys, step_keys
from tests.strategies.short_sequences import SHORT

SYNCHRONOUS = ("sequential", "gpipe", "1f1b")


def config_of(*overrides):
    settings = ["train.batch_size=16", "data.length=60", "optimizer.warmup_epochs=0"]
    return load_config("configs/tal1.py", [*settings, *overrides])


# (stages, micro-batches, cut): the second has a stage without parameters.
THREE = (3, 2, "pipeline.boundaries=conv3,dense1")
FIVE = (5, 1, "pipeline.boundaries=conv1,conv3,conv5,dense1")
CIFAR = load_config("configs/cifar10.py", ["train.batch_size=16", "data.augment=false"])


@functools.cache  # compiles every stage once for all tests
def program(kind, stages, microbatches, *overrides, data=1):
    """The program of `kind`: "tal1" on short sequences, or "cifar", the report's network."""
    shapes = [f"mesh.stage={stages}", f"pipeline.microbatches={microbatches}", f"mesh.data={data}"]
    settings = ["strategy=pipeline", *shapes, *overrides]
    config = config_of(*settings)
    if kind == "cifar":
        config = validate(override(flat(CIFAR), settings))
    mesh = make_mesh(config, jax.devices()[: stages * data])
    shape, classes = ((60,), 2) if kind == "tal1" else ((32, 32, 3), 10)
    return PipelineProgram.of(config, mesh, Spec(shape, of_classes(classes), 64))


def whole(program_):
    """The ordinary program of the same network on one device."""
    leaves = flat(program_.config) | {"strategy": "spmd", "mesh.stage": 1, "mesh.data": 1}
    config = validate(leaves)
    mesh = make_mesh(config, jax.devices()[:1])
    return Program(config, mesh, program_.example_shape, program_.task, 64)


def batches(program_, steps, seed=0):
    rng = np.random.default_rng(seed)
    classes = len(program_.task.classes)
    high = 4 if classes == 2 else 256
    weight = np.ones((steps, 16), np.float32)
    weight[-1, 11:] = 0  # an epoch's last batch
    return {
        "x": rng.integers(0, high, (steps, 16, *program_.example_shape), dtype=np.uint8),
        "y": rng.integers(0, classes, (steps, 16), dtype=np.int32),
        "weight": weight,
    }


REFERENCES = {}


def reference(program_):
    """The whole network on one device: its program, its jitted gradient and its jitted update."""
    if id(program_) in REFERENCES:  # which lives as long as the cache of `program`
        return REFERENCES[id(program_)]
    alone = whole(program_)

    def loss(params, x, y, weight, total, key):
        sums = alone.task.batch_sums(alone.apply(params, x, key), {"y": y, "weight": weight})
        return sums["loss"] / total, sums["loss"]

    def update(params, opt_state, gradients):
        updates, opt_state = alone.optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    # The compiler options choose the convolution, so they belong to the numbers.
    gradient = jax.jit(jax.grad(loss, has_aux=True), compiler_options=alone.compiler_options)
    REFERENCES[id(program_)] = alone, gradient, jax.jit(update)
    return REFERENCES[id(program_)]


def accumulate(program_, stacked, version_of=None):
    """Gradients of the whole network, micro-batch by micro-batch, on one device.

    With `version_of`, (stage, micro-batch) -> updates made to the weights that it uses, this is a
    stale pipeline: the gradient at a mixture of versions. Without it the weights are the newest.
    """
    pieces, (alone, gradient, update) = program_.microbatches, reference(program_)
    state = alone.init()
    opt_state, history, losses = state.opt_state, [state.params], []
    for step in range(len(stacked["y"])):
        augment_key, dropout_key = step_keys(state.rng, jnp.int32(step))
        x = stacked["x"][step]
        if alone.augment:
            x = jax.jit(alone.augment)({"x": x}, augment_key)["x"]
        rows, total, mean = len(x) // pieces, stacked["weight"][step].sum(), np.float32(0)
        gradients = None
        for piece in range(pieces):
            own = slice(piece * rows, (piece + 1) * rows)
            params = history[-1]
            if version_of:
                params = {
                    name: history[version_of(s, step * pieces + piece)][name]
                    for s, stage in enumerate(program_.stages)
                    for name in stage.params
                }
            new, loss_ = gradient(
                params,
                x[own],
                stacked["y"][step][own],
                stacked["weight"][step][own],
                total,
                piece_keys(dropout_key, pieces)[piece],
            )
            gradients = jax.tree.map(jnp.add, gradients, new) if gradients else new
            mean += np.float32(loss_)
        params, opt_state = update(history[-1], opt_state, gradients)
        history.append(params)
        losses.append(mean)
    return jax.tree.map(np.asarray, params), np.array(losses)


def run(program_, schedule, stacked):
    events = timetable(schedule, len(program_.stages), program_.microbatches, len(stacked["y"]))
    state, metrics = program_.execute(events, program_.init(), stacked)
    return jax.tree.map(np.asarray, state), metrics


def assert_same_bits(expected, found):
    jax.tree.map(np.testing.assert_array_equal, expected, found)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [("tal1", (2, 4)), ("tal1", (2, 1)), ("cifar", THREE), ("cifar", FIVE)],
    ids=lambda value: value if isinstance(value, str) else f"{value[0]}x{value[1]}",
)
def test_synchronous_schedules_have_the_bits_of_one_device(kind, sizes):
    """Ragged cases too: fewer micro-batches than stages, or one; one stage is the next test."""
    program_ = program(kind, *sizes)
    stacked = batches(program_, 4)
    params, losses = accumulate(program_, stacked)
    for schedule in SYNCHRONOUS:
        state, metrics = run(program_, schedule, stacked)
        assert_same_bits(params, state.params)
        np.testing.assert_array_equal(losses, metrics["loss"])
        assert metrics["weight"].tolist() == [16, 16, 16, 11]
        assert state.step == 4


def test_one_micro_batch_on_one_stage_is_the_ordinary_step():
    """The bits of `strategy=spmd` on one device, whose step is compiled as a whole."""
    program_ = program("tal1", 1, 1)
    stacked = batches(program_, 4)
    alone = whole(program_)
    state = alone.init()
    for step in range(4):
        one = {name: leaf[step : step + 1] for name, leaf in stacked.items()}
        state, _ = alone.train_call(state, one)
    assert_same_bits(jax.tree.map(np.asarray, state), run(program_, "1f1b", stacked)[0])


@pytest.mark.parametrize("sizes", [THREE, FIVE], ids=["3x2", "5x1"])
def test_stale_schedules_take_the_gradient_at_their_mixture_of_versions(sizes):
    """The versions come from the papers' formulas, not from the table."""
    program_, (stages, microbatches, _) = program("cifar", *sizes), sizes
    stacked = batches(program_, 6)

    def stashed(s, m):
        # Before forward pass m, a stage has done m - (S-1-s) backward passes.
        return max(0, m - (stages - 1 - s)) // microbatches

    def one_late(s, m):
        return max(0, m // microbatches - 1)

    late = {"pipedream": stashed, "2bw": one_late}
    for schedule, version_of in late.items():
        if schedule == "2bw" and microbatches < stages - 1:
            continue
        params, losses = accumulate(program_, stacked, version_of)
        state, metrics = run(program_, schedule, stacked)
        assert_same_bits(params, state.params)
        np.testing.assert_array_equal(losses, metrics["loss"])


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_spectrain_predicts_with_the_momentum(optimizer):
    """Two stages written out by hand in float64: NumPy's own chain rule and optimizers."""
    program_ = program(
        "tal1", 2, 1, f"optimizer.name={optimizer}", "optimizer.learning_rate=0.05",
        "optimizer.schedule=constant", "optimizer.weight_decay=0", "data.reverse_complement=false",
    )  # fmt: skip
    stacked = batches(program_, 6)
    stacked["weight"][:] = 1
    state, _ = run(program_, "spectrain", stacked)
    params = [dict(v) for v in jax.tree.map(np.float64, program_.init().params).values()]
    moments = [[dict.fromkeys(own, 0.0), dict.fromkeys(own, 0.0)] for own in params]
    done = [0, 0]

    def expected(s, ahead):
        """Weights that many updates ahead."""
        m, v = moments[s]
        t = done[s]
        if optimizer == "momentum" or t == 0:
            return {k: w - ahead * 0.05 * m[k] for k, w in params[s].items()}
        return {
            k: w - ahead * 0.05 * m[k] / (1 - 0.9**t) / (np.sqrt(v[k] / (1 - 0.999**t)) + 1e-7)
            for k, w in params[s].items()
        }

    def update(s, gradients):
        m, v = moments[s]
        done[s] += 1
        for k, g in gradients.items():
            if optimizer == "momentum":
                m[k] = 0.9 * m[k] + g
            else:
                m[k], v[k] = 0.9 * m[k] + 0.1 * g, 0.999 * v[k] + 0.001 * g * g
        params[s] = expected(s, 1)

    def scan(w, x):
        windows = np.lib.stride_tricks.sliding_window_view(np.eye(4)[x], 15, axis=1)
        scores = np.einsum("npcw,wcf->npf", windows, w["kernel"])
        return windows, scores.argmax(axis=1), np.maximum(scores.max(axis=1) + w["bias"], 0)

    hidden = {}
    for b in range(7):  # stage 0 forward of b, stage 1 both of b - 1, stage 0 backward of b - 1
        if b < 6:
            # One other update comes before b has left, but none before the first.
            hidden[b] = scan(expected(0, int(b > 0)), stacked["x"][b])[2]
        if b == 0:
            continue
        x, y, h = stacked["x"][b - 1], stacked["y"][b - 1], hidden.pop(b - 1)
        w = expected(1, 0)
        error = (1 / (1 + np.exp(-(h @ w["kernel"] + w["bias"])[:, 0])) - y)[:, None] / 16
        update(1, {"kernel": h.T @ error, "bias": error.sum(axis=0)})
        w0 = expected(0, 0)
        windows, best, now = scan(w0, x)
        passed = (error @ w["kernel"].T) * (now > 0)
        chosen = windows[np.arange(16)[:, None], best]  # [batch, filters, 4, width]
        update(0, {"kernel": np.einsum("nf,nfcw->wcf", passed, chosen), "bias": passed.sum(axis=0)})
    for own, name in zip(params, ("conv", "dense"), strict=True):
        for key, value in own.items():
            moved = np.abs(value - np.asarray(program_.init().params[name][key])).max()
            assert moved > 1e-3
            # Adam divides by the root of tiny second moments: float32 keeps 1e-7 of gradients that
            # may cancel to 1e-3 of their terms, and six steps of 0.05 add up.
            np.testing.assert_allclose(state.params[name][key], value, rtol=0, atol=1e-4 * 0.3)


def test_data_parallelism_inside_the_stages_changes_rounding_only():
    sgd = ("optimizer.name=sgd", "optimizer.learning_rate=0.1")
    alone, shared = program("tal1", 2, 4, *sgd), program("tal1", 2, 4, *sgd, data=2)
    assert [stage.mesh.size for stage in shared.stages] == [2, 2]
    stacked = batches(alone, 4)
    one, two = run(alone, "pipedream", stacked), run(shared, "pipedream", stacked)
    # Sums of 16 rows in another order: a few units of float32 in parameters below 1.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-6),
        one[0].params,
        two[0].params,
    )
    x = batches(alone, 3)["x"]
    logits = np.asarray(shared.predict_call(shared.init().params, x))
    ordinary = whole(alone)
    expected = np.asarray(ordinary.predict_call(ordinary.init().params, x))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-6)


def test_each_stage_holds_its_own_layers_only():
    program_ = program("cifar", *THREE)
    state = program_.init()
    for tree in (state.params, state.opt_state[0].mu):
        for stage in program_.stages:
            (home,) = stage.mesh.devices.flat
            for name in stage.params:
                assert all(leaf.devices() == {home} for leaf in jax.tree.leaves(tree[name]))
    # Micro-batches of 8: pixels of one byte; 15 x 15 of 32 filters; 2 x 2 of 64 filters.
    assert program_.input_bytes() == [8 * 32 * 32 * 3, 8 * 15 * 15 * 32 * 4, 8 * 256 * 4]


@pytest.fixture(scope="module")
def tal1():
    return load_dataset(load_config("configs/tal1.py", SHORT))


def trained(dataset, folder, *overrides):
    settings = [*SHORT, "strategy=pipeline", "mesh.stage=2", "mesh.data=1", *overrides]
    config = load_config("configs/tal1.py", settings)
    mesh = make_mesh(config, jax.devices()[:2])
    prepared = Prepared(mesh, dataset, PipelineProgram.of(config, mesh, dataset.spec))
    opened = RunFolder(folder)
    console = Console(quiet=True)
    with Guard(config.watchdog, owns_process=False) as guard, opened.locked(console):
        opened.open(prepared.program.config)
        opened.record_data(dataset)
        return train(prepared, opened, guard, console, lambda *_: "", EXIT_OK)


def test_tal1_reaches_its_score_under_every_schedule_of_stale_weights(tal1, tmp_path):
    """The synchronous ones have the bits of one device (above)."""
    quick = ["train.batch_size=128", "train.epochs=6", "pipeline.microbatches=2"]
    for schedule in ("pipedream", "2bw", "spectrain"):
        summary = trained(tal1, tmp_path / schedule, *quick, f"pipeline.schedule={schedule}")
        assert summary["ceiling"]["auroc"] > 0.995
        assert summary["test"]["auroc"] >= 0.98, schedule


def test_a_run_that_is_resumed_has_the_bits_of_one_that_is_not(tal1, tmp_path):
    few = {name: type(split)(split.x[:512], split.y[:512]) for name, split in tal1.splits.items()}
    small = replace(tal1, splits=few, ceiling=None, best_logits=None)
    options = ["pipeline.schedule=spectrain", "optimizer.schedule=constant", "train.epochs=4"]
    at_once = trained(small, tmp_path / "a", *options)
    trained(small, tmp_path / "b", *options[:-1], "train.epochs=2")
    again = trained(small, tmp_path / "b", *options)
    assert again["epochs"] == 4
    assert again["params_sha256"] == at_once["params_sha256"]
    start = program("tal1", 2, 4).init()
    assert at_once["params_sha256"] != params_sha256(start.params)


def test_cuts():
    names = ("a", "b", "c", "d")
    assert cut_at("b,3", names, 3) == [("a",), ("b", "c"), ("d",)]
    assert cut_at("", names, 1) == [names]
    assert balanced([1, 1, 1, 3], 2) == [3]
    assert balanced([5, 1, 1, 1], 3) == [1, 2]
    for boundaries, words in {
        "e": "'e' is not a layer",
        "b": "makes 2 stages, but --config.mesh.stage=3",
        "c,b": "must rise",
        "0,1": "must rise",
        "4,1": "'4' is not a layer",
    }.items():
        with pytest.raises(UserError, match=words):
            cut_at(boundaries, names, 3)


def test_the_dearest_layer_is_measured_and_gets_its_own_stage():
    def network():
        rngs = nnx.Rngs(0)
        ends = [Dense(64, 64, rngs=rngs), Dense(64, 1, rngs=rngs)]
        return Network({"small": ends[0], "big": Big(), "end": ends[1]})

    costs = measure(network, (64,), 8)
    assert max(costs, key=costs.get) == "big"
    assert balanced(list(costs.values()), 3) == [1, 2]


def test_a_measured_cut_stays_for_the_whole_run(tmp_path):
    asked = load_config("configs/mnist_mlp.py", ["strategy=pipeline", "mesh.stage=2"])
    mesh = make_mesh(asked, jax.devices()[:2])
    built = PipelineProgram.of(asked, mesh, Spec((28, 28, 1), of_classes(10), 1024))
    assert asked.pipeline.boundaries == ""
    assert built.config.pipeline.boundaries in built.stages[1].names
    folder = RunFolder(tmp_path / "run")
    with folder.locked(lambda text: None):
        built.config.pipeline.boundaries = "dense2"
        folder.open(built.config)
    assert folder.settle(asked).pipeline.boundaries == "dense2"
    assert folder.check(folder.settle(asked)) == []


class Big(Layer):
    """Two hundred products of the size of the layer before it."""

    def __init__(self):
        self.kernel = nnx.Param(jnp.eye(64))

    def __call__(self, x, rngs=None):
        return jax.lax.fori_loop(0, 200, lambda _, x: jnp.tanh(x @ self.kernel[...]), x)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["mesh.stage=3"], "mesh.stage=3 is more than the 2 layers of the network (conv, dense)"),
        (["pipeline.microbatches=3"], "does not divide the batch of 16; nearest legal: 2 or 4"),
        (["pipeline.microbatches=99"], "nearest legal: 16"),
        (["pipeline.schedule=zigzag"], "one of sequential, gpipe, 1f1b, pipedream, 2bw, spectrain"),
        (
            ["pipeline.schedule=spectrain", "optimizer.name=sgd"],
            "has none; legal: adam, momentum",
        ),
        (["pipeline.boundaries=hidden"], "'hidden' is not a layer"),
        (["strategy=spmd"], "mesh.stage=2 needs --config.strategy=pipeline"),
        (["strategy=pipelines"], "must be one of spmd, pipeline, parameter_server"),
        (["pipeline.microbatches=16", "mesh.data=2"], "on 2 data shards"),
    ],
)
def test_what_does_not_fit_is_one_sentence(overrides, words):
    def build():
        config = config_of("strategy=pipeline", "mesh.stage=2", "mesh.data=1", *overrides)
        mesh = make_mesh(config, jax.devices()[: config.mesh.stage * config.mesh.data])
        PipelineProgram.of(config, mesh, Spec((60,), of_classes(2), 64))

    with pytest.raises(UserError) as caught:
        build()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_2bw_says_how_many_micro_batches_it_needs():
    with pytest.raises(UserError, match="2bw of 4 stages; nearest legal: 4 or 8"):
        program("cifar", 4, 2, "pipeline.schedule=2bw")
