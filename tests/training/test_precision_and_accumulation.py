"""What stays equal when a batch is taken in parts, and how far bfloat16 drifts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdna.config import load_config
from jaxdna.errors import UserError
from jaxdna.parallel.mesh import make_mesh
from jaxdna.tasks.kinds import of_classes
from jaxdna.training.program import Program

BATCH = 16
PLAIN = [
    f"train.batch_size={BATCH}",
    "optimizer.name=sgd",
    "optimizer.learning_rate=0.1",
    "optimizer.schedule=constant",
    "optimizer.warmup_epochs=0",
    "optimizer.weight_decay=0",
]
IMAGE = ["model.dropout=0", "data.synthetic=true"]
# Network: config, flags, shape of an example, logits.
NETWORKS = {
    "tal1": ("tal1", ["data.reverse_complement=false", "data.length=60"], (60,), 2),
    "cnn": ("mnist", [*IMAGE, "model.filters=3", "model.dense=8"], (10, 10, 1), 10),
    "mlp": ("mnist_mlp", [*IMAGE, "model.dense=12,8"], (10, 10, 1), 10),
}


def program(network, *overrides, devices=1):
    name, flags, shape, classes = NETWORKS[network]
    config = load_config(f"configs/{name}.py", [*PLAIN, *flags, *overrides])
    return Program(
        config, make_mesh(config, jax.devices()[:devices]), shape, of_classes(classes), 4 * BATCH
    )


def train(program_, steps=3):
    """Learnable batches: the class is which of two prototypes an example was drawn near."""
    rng = np.random.default_rng(0)
    high = 4 if len(program_.example_shape) == 1 else 256
    prototypes = rng.integers(0, high, (2, *program_.example_shape), dtype=np.uint8)
    state, losses = program_.init(), []
    shapes = program_.abstract_batches(1)
    for _ in range(steps):
        y = rng.integers(0, 2, BATCH, dtype=np.int32)
        noise = rng.integers(0, high, (BATCH, *program_.example_shape), dtype=np.uint8)
        x = np.where(rng.random(noise.shape) < 0.7, prototypes[y], noise)
        weight = np.ones(BATCH, np.float32)
        weight[-5:] = 0  # padding, spread over the parts of the batch
        batch = {"x": x[None], "y": y[None], "weight": weight[None]}
        batch = {key: jax.device_put(batch[key], shapes[key].sharding) for key in batch}
        state, metrics = program_.train_call(state, batch)
        losses.append(float(metrics["loss"][0] / metrics["weight"][0]))
        assert float(metrics["weight"][0]) == BATCH - 5
    return state, losses


@pytest.mark.parametrize(("network", "devices"), [("tal1", 2), ("cnn", 1), ("mlp", 2)])
def test_a_batch_in_parts_gives_the_update_of_the_whole(network, devices):
    whole, losses = train(program(network))
    parts, part_losses = train(program(network, "train.accumulate=4", devices=devices))
    # Sums of 16 terms below 1 in another order, over three SGD steps of 0.1.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-6),
        whole.params,
        parts.params,
    )
    np.testing.assert_allclose(losses, part_losses, rtol=1e-5)


def test_parts_work_with_gradients_summed_by_hand():
    whole, _ = train(program("tal1"))
    ring = program("tal1", "train.accumulate=2", "gradient_sync.method=ring", devices=4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-6),
        whole.params,
        train(ring)[0].params,
    )


def test_parts_need_less_memory():
    def temporaries(*flags):
        made = program("tal1", "train.batch_size=1024", *flags)
        compiled = made.train_call.lower(made.abstract_state, made.abstract_batches(1)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # Scores are nearly all of it, and of those an eighth remains at a time.
    assert temporaries("train.accumulate=8") < temporaries() / 2


def test_a_batch_that_does_not_divide_into_the_parts_is_a_user_error():
    with pytest.raises(UserError, match=r"data x fsdp = 2 x train.accumulate=3; nearest legal: 12"):
        program("tal1", "train.accumulate=3", devices=2)


@pytest.mark.parametrize("network", NETWORKS)
def test_bfloat16_computes_in_it_and_keeps_everything_else_in_float32(network):
    made = program(network, "train.precision=bfloat16")
    state, _ = train(made, steps=1)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype("float32")}
    x = np.zeros((2, *made.example_shape), np.uint8)
    assert made.apply(state.params, x, None).dtype == np.float32
    text = str(jax.make_jaxpr(lambda p: made.apply(p, x, None))(state.params))
    assert "bf16" in text
    assert "bf16" not in str(
        jax.make_jaxpr(lambda p: program(network).apply(p, x, None))(state.params)
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_answers_have_float32_whichever_precision_trained(network):
    made = program(network, "train.precision=bfloat16")
    params = made.init().params
    x = np.random.default_rng(0).integers(0, 4, (1, 8, *made.example_shape), dtype=np.uint8)
    answers = made.predict_call(params, x)
    assert np.array_equal(answers, program(network).predict_call(params, x))
    assert not np.array_equal(answers[0], made.apply(params, x[0], None))


@pytest.mark.parametrize("network", NETWORKS)
def test_bfloat16_drifts_by_no_more_than_its_roundings(network):
    """Each of up to five layers rounds its kernel, its input and its output to 2^-9 at most.

    To first order the logits are then off by 15 * 2^-9 = 3 % of their size, gradients by twice
    that (forward and backward), and so is what three steps of SGD move.
    """
    exact, losses = train(program(network))
    rough, rough_losses = train(program(network, "train.precision=bfloat16"))
    start = program(network).init().params
    drift = jax.tree.map(lambda a, b: jnp.linalg.norm(a - b), exact.params, rough.params)
    moved = jax.tree.map(lambda a, b: jnp.linalg.norm(a - b), exact.params, start)
    total = [float(jnp.linalg.norm(jnp.array(jax.tree.leaves(tree)))) for tree in (drift, moved)]
    assert 0 < total[0] < 0.06 * total[1]
    np.testing.assert_allclose(losses, rough_losses, rtol=0.03)
