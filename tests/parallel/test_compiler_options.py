"""With its generation's options a compiled step's gradients travel beside back-propagation."""

import importlib.util
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdna.parallel import gradient_sync as sync
from jaxdna.parallel.compiler_options import OVERLAP, overlap_options
from jaxdna.study.schedule import collectives, overlap_fraction
from jaxdna.study.topology import topology

# Four convolutions of 3x3, then two products; the largest gradients are those of the last layers.
CONVS = [(3, 3, 3, 32), (3, 3, 32, 64), (3, 3, 64, 64), (3, 3, 64, 64)]
DENSE = [(4 * 4 * 64, 256), (256, 10)]


def loss(params, x):
    for at, kernel in enumerate(params[:4]):
        x = lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x)
        if at % 2:
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = jax.nn.relu(x.reshape(x.shape[0], -1) @ params[4])
    return jnp.mean((x @ params[5]) ** 2)


def step(params, x):
    grads = sync.hold_update(jax.grad(loss)(params, x))
    return [p - 0.1 * g for p, g in zip(params, grads, strict=True)]


def compiled(name: str, options: dict[str, str]) -> str:
    mesh = Mesh(np.array(topology(name).devices), ("data",))

    def argument(shape, spec):
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))

    params = [argument(shape, P()) for shape in CONVS + DENSE]
    lowered = jax.jit(step).lower(params, argument((32 * mesh.size, 16, 16, 3), P("data")))
    return lowered.compile(compiler_options=options).as_text()


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra [plan]")
@pytest.mark.parametrize(
    ("name", "kind"), [("v5e:2x2", "TPU v5 lite"), ("v5p:2x2x1", "TPU v5")], ids=["v5e", "v5p"]
)
def test_most_gradient_bytes_overlap_and_without_the_options_none(name, kind):
    assert topology(name).devices[0].device_kind == kind
    plain = collectives(compiled(name, {}))
    tuned = collectives(compiled(name, overlap_options(kind, bucket_mb=0)))
    everything = 4 * sum(math.prod(shape) for shape in CONVS + DENSE)
    assert sum(c.bytes for c in plain) == sum(c.bytes for c in tuned) == everything
    assert overlap_fraction(plain) == 0
    assert overlap_fraction(tuned, matmuls_only=True) >= 0.5


def test_every_generation_has_its_options_and_others_none():
    for kind in ("TPU v4", "TPU v5 lite", "TPU v5", "TPU v6 lite", "TPU7x"):
        options = overlap_options(kind, 0.25)
        assert options["xla_jf_crs_combiner_threshold_in_bytes"] == "262144"
    assert overlap_options("cpu", 0.25) == {}
    assert all(option.reason for options in OVERLAP.values() for option in options)
