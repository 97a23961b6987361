import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxdna.ops.max_pool import max_pool


@pytest.mark.parametrize(("shape", "size"), [((2, 7, 8, 3), 2), ((1, 9, 10, 2), 3)])
def test_equals_reduce_window_in_value_and_gradient(shape, size):
    x = jax.random.normal(jax.random.key(0), shape)

    def window(x):
        square = (1, size, size, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, square, square, "VALID")

    np.testing.assert_array_equal(max_pool(x, size), window(x))
    expected = jax.grad(lambda x: jnp.sum(jnp.sin(window(x))))(x)
    gradient = jax.grad(lambda x: jnp.sum(jnp.sin(max_pool(x, size))))(x)
    np.testing.assert_array_equal(gradient, expected)


def test_equal_values_share_the_gradient():
    gradient = jax.grad(lambda x: jnp.sum(max_pool(x, 2)))(jnp.zeros((1, 2, 2, 1)))
    assert gradient.sum() == 1
    assert (gradient > 0).all()
