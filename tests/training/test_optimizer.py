import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdna.config import load_config
from jaxdna.training.optimizer import learning_rate, make_optimizer

PARAMS = {
    "conv": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)},
    "dense": {"kernel": jnp.ones((2, 1)), "bias": jnp.ones(1)},
}


def config(*overrides):
    return load_config("configs/tal1.py", overrides)


def after_steps(optimizer, steps=3):
    params, state = PARAMS, optimizer.init(PARAMS)
    for i in range(steps):
        gradients = jax.tree.map(lambda p, i=i: jnp.sin(p * (i + 1)), params)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("adam", lambda rate: optax.adam(rate, eps=1e-7)),
        ("sgd", optax.sgd),
        ("momentum", lambda rate: optax.sgd(rate, momentum=0.9)),
    ],
)
def test_each_name_is_optax_s_rule_of_that_name(name, same):
    flags = [f"optimizer.name={name}", "optimizer.schedule=constant", "optimizer.weight_decay=0"]
    made = make_optimizer(config(*flags, "optimizer.warmup_epochs=0"), 10, "dense")
    expected = after_steps(same(0.02))
    # Ours multiplies by the inverse where optax divides by the bias correction: the last bits.
    last_bits = 4 if name == "adam" else 0
    jax.tree.map(
        lambda a, b: np.testing.assert_array_max_ulp(a, b, last_bits), after_steps(made), expected
    )


@pytest.mark.parametrize(
    ("flags", "moved"), [([], [-0.02, -0.0002]), (["data.task=regression"], [-0.00125, -0.00125])]
)
def test_a_table_of_words_follows_the_mean_gradient_of_classes(flags, moved):
    steady = ["optimizer.schedule=constant", "optimizer.warmup_epochs=0"]
    steady += ["optimizer.learning_rate=0.02", *flags]
    words = {("conv", "words")}
    optimizer = make_optimizer(load_config("configs/fasta.py", steady), 10, "dense", words)
    params = {"conv": {"words": jnp.zeros(2)}, "dense": {"bias": jnp.zeros(2)}}
    gradients = jax.tree.map(lambda _: jnp.array([1.0, 0.01]), params)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    np.testing.assert_allclose(updates["conv"]["words"], moved, rtol=1e-4)
    np.testing.assert_allclose(updates["dense"]["bias"], [-0.02, -0.02], rtol=1e-4)


def test_weight_decay_shrinks_kernels_but_not_the_last_layer():
    flags = ["optimizer.name=sgd", "optimizer.schedule=constant", "optimizer.warmup_epochs=0"]
    plain = after_steps(make_optimizer(config(*flags, "optimizer.weight_decay=0"), 10, "dense"), 1)
    decayed = after_steps(make_optimizer(config(*flags), 10, "dense"), 1)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), plain, decayed)
    assert moved["conv"]["kernel"] == pytest.approx(0.02 * 0.1, rel=1e-4)
    assert moved["conv"]["bias"] == moved["dense"]["kernel"] == moved["dense"]["bias"] == 0


def test_the_rate_rises_over_the_warm_up_and_falls_to_zero():
    close = {"rel": 1e-6, "abs": 1e-8}  # float32

    def rate(step, *overrides):
        return float(learning_rate(config(*overrides), 400)(step))

    assert rate(0) == pytest.approx(0.02 / 400, **close)
    assert rate(399) == pytest.approx(0.02, **close)
    assert rate(400 + 19 * 400 // 2) == pytest.approx(0.01, **close)
    assert rate(8000) == pytest.approx(0, **close)
    assert rate(4200, "optimizer.schedule=linear") == pytest.approx(0.01, **close)
    assert rate(7999, "optimizer.schedule=constant") == pytest.approx(0.02, **close)
