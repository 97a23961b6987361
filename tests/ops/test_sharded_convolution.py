import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdna.ops.sharded_convolution import convolve_on_mesh
from jaxdna.parallel.mesh import AXES, BATCH_AXES

SPLITS = [dict.fromkeys(axes, 2) for n in (1, 2, 3) for axes in itertools.combinations(
    ("data", "fsdp", "seq", "model"), n
)]  # fmt: skip


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("sizes", SPLITS, ids=str)
def test_value_and_gradients_do_not_depend_on_what_is_split(padding, sizes):
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (4, 8, 8, 16))
    kernel = jax.random.normal(keys[1], (3, 3, 16, 16))

    def plain(x, kernel):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=dimensions)

    devices = np.array(jax.devices()[: 2 ** len(sizes)])
    mesh = Mesh(
        devices.reshape([sizes.get(axis, 1) for axis in AXES]), AXES,
        axis_types=(AxisType.Auto,) * len(AXES),
    )  # fmt: skip
    # The input as the layer before leaves it, the kernel as `fsdp` and `model` keep it.
    specs = P(BATCH_AXES, "seq", None, "model"), P(None, None, "fsdp", "model")
    shardings = tuple(NamedSharding(mesh, spec) for spec in specs)

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

    out_shardings = ((None, None), shardings)
    expected = outcome(plain)
    found = outcome(on_mesh, in_shardings=shardings, out_shardings=out_shardings)
    # 144 products and up to 256 positions, each rounded to 2^-24 of values below 16.
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=400 * 16 * 2.0**-24)
