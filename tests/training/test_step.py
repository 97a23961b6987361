import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdna.config import load_config
from jaxdna.data.sequences import reverse_complement
from jaxdna.ops.strands import complement_strand
from jaxdna.parallel.mesh import make_mesh
from jaxdna.tasks.kinds import of_classes
from jaxdna.training.program import Program
from jaxdna.training.step import flip_strands, make_predict, make_train_step

SMALL = ["optimizer.name=sgd", "optimizer.learning_rate=0.5", "train.batch_size=16"]


def program(*overrides, devices=1, examples=64, length=60):
    config = load_config("configs/tal1.py", [*SMALL, f"data.length={length}", *overrides])
    return Program(
        config, make_mesh(config, jax.devices()[:devices]), (length,), of_classes(2), examples
    )


def batches(steps, batch=16, length=60, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "x": rng.integers(0, 4, (steps, batch, length), dtype=np.uint8),
        "y": rng.integers(0, 2, (steps, batch), dtype=np.int32),
        "weight": np.ones((steps, batch), np.float32),
    }


def run(program, stacked):
    stacked = {
        name: jax.device_put(stacked[name], leaf.sharding)
        for name, leaf in program.abstract_batches(len(stacked["y"])).items()
    }
    state, metrics = program.train_call(program.init(), stacked)
    return jax.tree.map(np.asarray, (state, metrics))


def test_one_sgd_step_follows_the_gradient_of_the_mean_loss():
    """Central differences of a float64 NumPy loss along random directions."""
    program_ = program("data.reverse_complement=false", "optimizer.weight_decay=0")
    start = jax.tree.map(np.asarray, program_.init().params)
    stacked = batches(1)
    state, metrics = run(program_, stacked)
    rate = 0.5 / program_.steps_per_epoch  # the first step of the warm-up

    def loss(params):
        one_hot = np.eye(4)[stacked["x"][0]]
        windows = np.lib.stride_tricks.sliding_window_view(one_hot, 15, axis=1)
        scores = np.einsum("npcw,wcf->npf", windows, params["conv"]["kernel"])
        hidden = np.maximum(scores.max(axis=1) + params["conv"]["bias"], 0)
        logit = (hidden @ params["dense"]["kernel"] + params["dense"]["bias"])[:, 0]
        return np.mean(np.logaddexp(0, logit) - logit * stacked["y"][0])

    start64 = jax.tree.map(np.float64, start)
    moved = jax.tree.map(lambda new, old: np.float64(new) - old, state.params, start64)
    assert metrics["loss"][0] / 16 == pytest.approx(loss(start64), rel=1e-5)
    rng = np.random.default_rng(1)
    size = 1e-6  # small against the gaps between windows, so that no winner changes

    def at(direction, distance):
        return loss(jax.tree.map(lambda p, d: p + distance * d, start64, direction))

    for _ in range(5):
        direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), start64)
        slope = (at(direction, size) - at(direction, -size)) / (2 * size)
        along = jax.tree.map(lambda m, d: float((m * d).sum()), moved, direction)
        # 1e-4: float32 parameters of size 1 lose 2^-24 each when a step of about 0.01 is added.
        assert -sum(jax.tree.leaves(along)) / rate == pytest.approx(slope, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_any_number_of_data_shards_gives_the_parameters_of_one_device(devices):
    stacked = batches(20)
    alone, alone_metrics = run(program(), stacked)
    shared, shared_metrics = run(program(devices=devices), stacked)
    # Sums of 16 terms in another order: a few units of float32 per step, over 20 steps.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-6),
        alone.params,
        shared.params,
    )
    np.testing.assert_allclose(alone_metrics["loss"], shared_metrics["loss"], rtol=1e-5)


def test_rows_of_weight_zero_change_nothing():
    stacked = batches(3)
    stacked["weight"][:, 11:] = 0
    first, _ = run(program("data.reverse_complement=false"), stacked)
    stacked["x"][:, 11:] = 0
    stacked["y"][:, 11:] = 1
    second, metrics = run(program("data.reverse_complement=false"), stacked)
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
    assert metrics["weight"].tolist() == [11, 11, 11]


def test_many_steps_in_one_call_equal_the_steps_one_by_one():
    stacked = batches(6)
    together, _ = run(program(), stacked)
    program_ = program()
    state = program_.init()
    for i in range(6):
        state, _ = program_.train_call(state, {k: v[i : i + 1] for k, v in stacked.items()})
    assert int(state.step) == 6
    # The scan and the single step are two programs: XLA may fuse (round) differently.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6),
        together.params,
        jax.tree.map(np.asarray, state.params),
    )


def test_the_state_is_donated():
    program_ = program()
    state = program_.init()
    program_.train_call(state, batches(1))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_the_step_is_compiled_once_for_all_calls_of_one_length():
    program_ = program()
    state = program_.init()
    stacked = {
        name: jax.device_put(value, program_.abstract_batches(4)[name].sharding)
        for name, value in batches(4).items()
    }
    for _ in range(3):
        state, _ = program_.train_call(state, stacked)
    assert program_.train_call._cache_size() == 1


def test_flips_half_of_the_sequences_to_their_other_strand():
    codes = np.random.default_rng(0).integers(0, 6, (1000, 30), dtype=np.uint8)
    flipped = np.asarray(
        flip_strands({"x": jnp.asarray(codes)}, jax.random.key(0), of_classes(2))["x"]
    )
    turned = (flipped == reverse_complement(codes)).all(axis=1)
    kept = (flipped == codes).all(axis=1)
    assert (turned | kept).all()
    assert abs(turned.mean() - 0.5) < 4 * 0.5 / np.sqrt(1000)
    np.testing.assert_array_equal(complement_strand(jnp.asarray(codes)), reverse_complement(codes))


@pytest.mark.parametrize(
    "layout",
    [["mesh.data=2", "mesh.model=2", "train.accumulate=2"], ["gradient_sync.method=ring"]],
)
def test_a_scan_that_turns_sequences_by_itself_trains_as_one_that_is_given_them_turned(layout):
    stacked = batches(2)
    given, _ = run(program("model.scan=convolution"), stacked)
    by_itself, _ = run(program("model.scan=pallas_gpu", *layout, devices=4), stacked)
    for a, b in zip(*map(jax.tree.leaves, (by_itself.params, given.params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)


@pytest.mark.parametrize("strands", ["average", "max"])
def test_both_strands_of_a_sequence_get_the_same_prediction(strands):
    program_ = program(f"model.strands={strands}")
    params = program_.init().params
    codes = batches(1)["x"]
    forward = np.asarray(program_.predict_call(params, codes))
    np.testing.assert_array_equal(forward, program_.predict_call(params, reverse_complement(codes)))
    alone = make_predict(program_.apply, program_.task)
    each = [alone(params, codes), alone(params, reverse_complement(codes))]
    expected = np.mean(each, axis=0) if strands == "average" else np.max(each, axis=0)
    np.testing.assert_allclose(forward, expected, rtol=0, atol=1e-6)


def test_dropout_keys_differ_from_step_to_step():
    """A network that returns its key: the step must hand out another one each time."""
    seen = []

    def apply(params, x, key):
        seen.append(key)
        draw = jax.random.uniform(key, (x.shape[0], 1))
        return params["scale"] * draw

    optimizer = optax.sgd(0.0)
    program_ = program()
    params = {"scale": jnp.float32(1)}
    state = program_.init()
    state = type(state)(state.step, state.rng, params, optimizer.init(params))
    step = jax.jit(make_train_step(apply, program_.task, optimizer))
    one = {name: value[0] for name, value in batches(1).items()}
    state, first = step(state, one)
    _, second = step(state, one)
    assert first["loss"] != second["loss"]


def test_initial_parameters_compiled_for_one_use_have_the_bits_of_optimised_ones():
    small = program(devices=8)
    usual = jax.jit(small.initial_state, compiler_options={"xla_backend_optimization_level": 3})()
    jax.tree.map(np.testing.assert_array_equal, small.init(), usual)
