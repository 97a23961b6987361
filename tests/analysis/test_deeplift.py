"""DeepLIFT by the jaxpr: exact for what functions do, and a name for what has no rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdna.analysis.deeplift import multipliers
from jaxdna.errors import UserError

RNG = np.random.default_rng(5)
SHAPE = (12, 4)
KERNEL = jnp.asarray(RNG.normal(size=(5, 4, 3)).astype(np.float32))
SQUARE = jnp.asarray(RNG.normal(size=(4, 4)).astype(np.float32))


def convolved(x):
    return jax.lax.conv_general_dilated(
        x[None], KERNEL, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
    )[0]


def unrolled(x):
    """Gated units, as a network with a memory has them, one after the other."""
    state = jnp.zeros(4)
    for row in x:
        state = nnx.sigmoid(state @ SQUARE) * nnx.tanh(row @ SQUARE + state)
    return state


FUNCTIONS = {
    "linear": lambda x: jnp.einsum("lc,cd->d", x, SQUARE),
    "relu of a convolution": lambda x: nnx.relu(convolved(x)).sum(axis=0),
    "maximum of a convolution": lambda x: convolved(x).max(axis=0),
    "minimum of a convolution": lambda x: convolved(x).min(axis=0),
    "windows that overlap": lambda x: nnx.max_pool(convolved(x)[None], (3,), (2,))[0].sum(axis=0),
    "larger of two": lambda x: jnp.maximum(x @ SQUARE, x @ SQUARE.T).sum(axis=0),
    "smaller of two": lambda x: jnp.minimum(x @ SQUARE, x @ SQUARE.T).sum(axis=0),
    "softmax": lambda x: jax.nn.softmax(x @ SQUARE, axis=0)[3],
    "log of softmax": lambda x: jax.nn.log_softmax(x @ SQUARE, axis=0)[3],
    "log of a sum of exponentials": lambda x: jax.nn.logsumexp(x @ SQUARE, axis=0),
    "attention": lambda x: jax.nn.dot_product_attention(
        (x @ SQUARE)[None, :, None], x[None, :, None], (x @ SQUARE.T)[None, :, None]
    )[0, :, 0].sum(axis=0),
    "layer normalisation": lambda x: jax.nn.standardize(x @ SQUARE)[2],
    "quotient": lambda x: (x @ SQUARE).sum(axis=0) / (3 + (x**2).sum()),
    "powers": lambda x: (2 + x[0] @ SQUARE) ** 3 + jnp.sqrt(5 + x.sum()) + (2 + x.sum(0)) ** 0.3,
    "gated units": unrolled,
    "gelu": lambda x: nnx.gelu(x @ SQUARE).sum(axis=0),
    "exact gelu": lambda x: nnx.gelu(x @ SQUARE, approximate=False).sum(axis=0),
    "leaky relu": lambda x: nnx.leaky_relu(x @ SQUARE).sum(axis=0),
    "elu": lambda x: nnx.elu(x @ SQUARE).sum(axis=0),
    "silu": lambda x: nnx.silu(x @ SQUARE).sum(axis=0),
    "softplus": lambda x: nnx.softplus(x @ SQUARE).sum(axis=0),
    "clipped": lambda x: jnp.clip(x @ SQUARE, -0.5, 0.5).sum(axis=0),
    "size": lambda x: jnp.abs(x @ SQUARE).sum(axis=0),
    "remat": jax.checkpoint(lambda x: jnp.tanh(x @ SQUARE).sum(axis=0)),
    "gathered": lambda x: jnp.tanh(x @ SQUARE)[jnp.array([3, 3, 7])].sum(axis=0),
    "masked": lambda x: jnp.where(jnp.arange(12)[:, None] > 4, jnp.tanh(x), 0).sum(axis=0),
    "joined": lambda x: jnp.concatenate([x, x[::-1] ** 2]).reshape(-1, 2).cumsum(axis=0)[-1],
    "sum over rows": lambda x: jax.vmap(lambda row: jnp.tanh(row @ SQUARE))(x).mean(axis=0),
}


def draws(count):
    """Rows of one-hot form, and others with nothing and with a quarter of each base."""
    rows = np.concatenate([np.eye(4), np.zeros((1, 4)), np.full((1, 4), 0.25)])
    return jnp.asarray(rows[RNG.integers(0, 6, (count, SHAPE[0]))].astype(np.float32))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_multipliers_times_the_change_of_the_input_are_the_change_of_the_output(name):
    function, count = FUNCTIONS[name], 20
    sequences, references = draws(count), draws(count)
    found = jax.jit(jax.vmap(lambda x, r: multipliers(function, x, r)))(sequences, references)
    shares = found * (sequences - references)[:, None]
    each = jax.vmap(function)
    change = each(sequences) - each(references)
    assert abs(change).max() > 0.01
    largest = abs(shares).sum(axis=(2, 3)).max()  # which is what rounding goes by
    np.testing.assert_allclose(shares.sum(axis=(2, 3)), change, atol=1e-6 * max(1, largest))


def test_of_a_linear_function_they_are_its_weights():
    found = multipliers(FUNCTIONS["linear"], draws(1)[0], draws(1)[0])
    np.testing.assert_allclose(found, np.broadcast_to(SQUARE.T[:, None], (4, *SHAPE)), rtol=1e-6)


def test_a_product_is_shared_out_evenly_and_a_maximum_goes_to_its_winners():
    x, r = jnp.array([3.0, 5.0]), jnp.array([1.0, 2.0])
    # 15 - 2: each factor's change times the mean of the other's ends
    np.testing.assert_allclose(multipliers(lambda v: v[0:1] * v[1:2], x, r), [[3.5, 2.0]])
    # 6 at the sequence and 4 at the reference: the first one's own change was 5
    top = multipliers(lambda v: v.max()[None], jnp.array([6.0, 2.0, 0]), jnp.array([1.0, 4, 0]))
    np.testing.assert_allclose(top, [[2 / 5, 0, 0]])
    # and the other way round it is the second one's, which has changed by -2
    top = multipliers(lambda v: v.max()[None], jnp.array([1.0, 2.0, 0]), jnp.array([0.0, 4, 0]))
    np.testing.assert_allclose(top, [[0, 1, 0]])
    # a winner that hardly changes, or does not, has nothing where another has lost the maximum
    for step in (-1e-3, -1e-6, 0, 1e-6, 1e-3):
        x, r = jnp.array([2.0, 1.0, 0]), jnp.array([2.0 - step, 4, 0])
        found = multipliers(lambda v: v.max()[None], x, r)
        np.testing.assert_allclose(found, [[0, 2 / 3, 0]], rtol=0, atol=np.finfo(np.float32).eps)
    # and all where it has had it before
    found = multipliers(lambda v: v.max()[None], x, jnp.array([2.0, 0, 0]))
    np.testing.assert_allclose(found, [[1, 0, 0]])


def test_what_ties_for_a_maximum_shares_it():
    x, r = jnp.array([2.0, 2.0, -1.0]), jnp.array([0.0, 1.0, -1.0])
    found = multipliers(lambda v: v.max()[None], x, r)
    np.testing.assert_allclose(found * (x - r), [[0.5, 0.5, 0.0]])


def test_a_rectifier_has_the_share_of_the_way_on_which_it_is_open():
    found = multipliers(lambda v: nnx.relu(v), jnp.array([3.0, 2.0, -1]), jnp.array([-1.0, 1, -4]))
    np.testing.assert_allclose(jnp.diag(found), [0.75, 1, 0])


def test_a_change_that_is_hardly_one_has_the_slope_of_the_place():
    x = jnp.array([0.3, -0.3, 2.0, 0.0])
    for function in (nnx.tanh, nnx.sigmoid, jnp.exp, nnx.gelu, lambda v: 1 / (v + 3)):
        slopes = jax.vmap(jax.grad(function))(x)
        for step in (0.0, 3e-8, 1e-5, 1e-3):
            found = jnp.diag(multipliers(function, x + step, x - step))
            np.testing.assert_allclose(found, slopes, rtol=3e-4, atol=1e-6)


def test_what_the_output_does_not_depend_on_adds_nothing():
    found = multipliers(lambda v: jax.lax.stop_gradient(v[0]) * 0 + 2, draws(1)[0], draws(1)[0])
    assert not found.any()


@pytest.mark.parametrize(
    ("primitive", "function"),
    [
        ("sort", lambda x: jnp.sort(x @ SQUARE, axis=0)[0]),
        ("gt", lambda x: jnp.where(x > 0.5, 2 * x, x).sum(axis=0)),
        ("scan", lambda x: jax.lax.scan(lambda s, row: (jnp.tanh(s + row), 0), x[0], x)[0]),
        ("cond", lambda x: jax.lax.cond(jnp.arange(3).sum() > 2, jnp.sin, jnp.cos, x[0])),
        ("argmax", lambda x: x[0] * x.argmax(axis=0)),
        ("rem", lambda x: (x @ SQUARE % (x + 1)).sum(axis=0)),
    ],
)
def test_what_has_no_rule_is_named(primitive, function):
    with pytest.raises(UserError, match=f"uses {primitive} of jax.lax.*try --method=ism, sal"):
        multipliers(function, draws(1)[0], draws(1)[0])
