"""The derivative of a maximum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdna.models.sequence_layers import normalised
from jaxdna.ops.largest import largest

RNG = np.random.default_rng(5)


def test_the_derivative_is_the_winners_in_both_directions():
    x = RNG.normal(size=(3, 7, 5)).astype(np.float32)
    change, weight = RNG.normal(size=(2, 3, 7, 5)).astype(np.float32)
    weight = weight[:, 0]
    value, forward = jax.jvp(lambda x: largest(x, 1), (x,), (change,))
    np.testing.assert_array_equal(value, x.max(axis=1))
    at = x.argmax(axis=1)[:, None]
    np.testing.assert_array_equal(forward, np.take_along_axis(change, at, axis=1)[:, 0])
    (back,) = jax.vjp(lambda x: largest(x, 1), x)[1](weight)
    wanted = np.zeros_like(x)
    np.put_along_axis(wanted, at, weight[:, None], axis=1)
    np.testing.assert_array_equal(back, wanted)


def test_the_first_of_equal_values_has_it():
    x = jnp.array([[1.0, 3.0, 3.0, 2.0, 3.0]])
    np.testing.assert_array_equal(jax.grad(lambda x: largest(x, 1)[0])(x), [[0, 1, 0, 0, 0]])


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_none_of_it_is_lost_however_little_the_compiler_optimizes(level):
    """The bias is added to whatever wins, so its derivative is all that comes back."""
    x = RNG.normal(size=(2, 125, 32)).astype(np.float32)
    scale, bias, weight = RNG.uniform(1, 2, size=(3, 32)).astype(np.float32)

    def best(x, scale, bias):
        scaled = normalised(x, scale, bias, (1, 2))[:, :124]
        return largest(largest(scaled.reshape(2, 31, 4, 32), 2), 1)

    values = x, scale, bias
    back = jax.jit(lambda *values: jax.vjp(best, *values)[1](jnp.stack([weight] * 2)))
    done = back.lower(*values).compile(compiler_options={"xla_backend_optimization_level": level})
    np.testing.assert_allclose(done(*values)[2], 2 * weight, rtol=1e-6)
