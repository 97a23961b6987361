import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdna.parallel.sharded_convolution import convolve_on_mesh


@pytest.mark.parametrize(
    ("padding", "seq", "model"), itertools.product(("SAME", "VALID"), (1, 2), (1, 2))
)
def test_value_and_gradients_do_not_depend_on_what_is_split(padding, seq, model):
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (2, 8, 8, 3))
    kernel = jax.random.normal(keys[1], (3, 3, 3, 4))

    def plain(x, kernel):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=dimensions)

    mesh = Mesh(
        np.array(jax.devices()[: seq * model]).reshape(seq, model), ("seq", "model"),
        axis_types=(AxisType.Auto,) * 2,
    )  # fmt: skip
    shardings = (
        NamedSharding(mesh, P(None, "seq")),
        NamedSharding(mesh, P(None, None, None, "model")),
    )

    def on_mesh(x, kernel):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return convolve_on_mesh(x, kernel, padding)

    def outcome(convolve, **options):
        def loss(x, kernel):
            y = convolve(x, kernel)
            return jnp.sum(jnp.sin(y)), y

        both = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
        (_, y), gradients = jax.jit(both, **options)(x, kernel)
        return y, *gradients

    expected, found = outcome(plain), outcome(on_mesh, in_shardings=shardings)
    # 27 products and up to 128 positions, each rounded to 2^-24 of values below 16.
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=155 * 16 * 2.0**-24)
