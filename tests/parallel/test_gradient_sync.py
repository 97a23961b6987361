"""Ring, hierarchical and bucketed sums equal psum, on eight simulated devices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from jaxdna.parallel import gradient_sync as sync

UNIT = 2.0**-24  # unit roundoff of float32


def on_mesh(function: Callable, shape: tuple[int, ...], names: tuple[str, ...]) -> Callable:
    """Runs ``function`` on one summand per device; returns the stacked results of all devices."""
    devices = np.array(jax.devices()[: np.prod(shape)]).reshape(shape)
    mesh = jax.sharding.Mesh(devices, names)

    def shard(stacked):
        return jax.tree.map(lambda y: y[None], function(jax.tree.map(lambda x: x[0], stacked)))

    return jax.jit(
        jax.shard_map(shard, mesh=mesh, in_specs=P(names), out_specs=P(names), check_vma=False)
    )


def ring(x):
    return sync.ring_all_reduce(x, "data")


def hierarchical(x):
    return sync.hierarchical_all_reduce(x, inner_axis="data", outer_axis="host")


def whole_numbers(shape, dtype=np.float32, seed=0):
    """Every partial sum of a few of these is exact in float32 and in bfloat16 (at most 256)."""
    return np.random.default_rng(seed).integers(-16, 17, shape).astype(dtype)


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (8,), (13, 5), (2, 3, 4), (0,)])
def test_ring_sum_is_exact_where_addition_is(devices, shape):
    x = whole_numbers((devices, *shape))
    total = on_mesh(ring, (devices,), ("data",))(x)
    np.testing.assert_array_equal(total, np.broadcast_to(x.sum(0), x.shape))


@pytest.mark.parametrize("mesh", [(2, 4), (4, 2), (1, 8), (8, 1), (1, 1)])
@pytest.mark.parametrize("shape", [(), (7,), (13, 5)])
def test_hierarchical_sum_is_exact_where_addition_is(mesh, shape):
    x = whole_numbers((mesh[0] * mesh[1], *shape))
    total = on_mesh(hierarchical, mesh, ("host", "data"))(x)
    np.testing.assert_array_equal(total, np.broadcast_to(x.sum(0), x.shape))


@pytest.mark.parametrize(
    ("reduce", "mesh", "names"),
    [(ring, (8,), ("data",)), (hierarchical, (2, 4), ("host", "data"))],
    ids=["ring", "hierarchical"],
)
def test_sum_equals_psum_to_rounding_and_replicas_to_the_bit(reduce, mesh, names):
    x = np.random.default_rng(1).normal(size=(8, 1001)).astype(np.float32)
    ours = np.asarray(on_mesh(reduce, mesh, names)(x))
    psum = np.asarray(on_mesh(lambda y: lax.psum(y, names), mesh, names)(x))
    assert all(replica.tobytes() == ours[0].tobytes() for replica in ours)
    # n - 1 additions in any order err by at most (n - 1) u sum|x| each, to first order (Higham,
    # Accuracy and Stability, eq. 4.4); the two sums may err to opposite sides.
    bound = 2 * 7 * UNIT * np.abs(x).sum(0) * (1 + 8 * UNIT)
    assert np.all(np.abs(ours - psum) <= bound)


def test_ring_talks_to_its_neighbour_only():
    lowered = on_mesh(ring, (8,), ("data",)).lower(jnp.ones((8, 64)))
    text = lowered.as_text()
    assert text.count("collective_permute") == 14  # 7 rounds to reduce and 7 to gather
    assert "all_reduce" not in text and "all_gather" not in text


def test_ring_over_one_axis_of_two_sums_that_axis_only():
    x = whole_numbers((8, 5))
    total = np.asarray(on_mesh(ring, (2, 4), ("host", "data"))(x))
    wanted = np.repeat(x.reshape(2, 4, 5).sum(1), 4, axis=0)
    np.testing.assert_array_equal(total, wanted)


@pytest.mark.parametrize("bucket_bytes", [0, 64, 200, 1e9])
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_bucketed_keeps_shapes_dtypes_and_the_sum(bucket_bytes, dtype):
    grads = {
        "conv": {
            "kernel": whole_numbers((8, 3, 5), dtype),
            "bias": whole_numbers((8, 5), dtype, 1),
        },
        "scale": whole_numbers((8,), np.float32, 2),
        "steps": whole_numbers((8, 4), np.int32, 3),
        "dense": [whole_numbers((8, 6, 7), np.float32, 4), whole_numbers((8, 7), dtype, 5)],
    }
    reduced = on_mesh(lambda g: sync.bucketed(g, bucket_bytes, ring), (8,), ("data",))(grads)

    def check(total, x):
        assert total.dtype == x.dtype
        exact = np.broadcast_to(x.astype(np.float64).sum(0), x.shape)
        np.testing.assert_array_equal(np.asarray(total, np.float64), exact)

    jax.tree.map(check, reduced, grads)


def test_bucketed_gradients_equal_those_of_the_whole_batch():
    # Small whole numbers and divisions by powers of two: exact, in whatever order they are added.
    params = {"in": whole_numbers((6, 9), seed=2), "out": whole_numbers((9,), seed=3)}
    x = whole_numbers((16, 6), seed=4)

    def loss(params, x):
        hidden = x @ params["in"]
        return jnp.mean(hidden @ params["out"]) + jnp.mean(jnp.sum(hidden**2, axis=-1))

    def shard(params, x):
        mine = jax.grad(loss)(params, x)
        return sync.bucketed(mine, 100, lambda g: ring(g) / lax.axis_size("data"))

    mesh = jax.sharding.Mesh(jax.devices(), ("data",))
    spread = jax.jit(
        jax.shard_map(shard, mesh=mesh, in_specs=(P(), P("data")), out_specs=P(), check_vma=False)
    )(params, x)
    jax.tree.map(np.testing.assert_array_equal, spread, jax.grad(loss)(params, x))


def test_buckets_take_every_leaf_once_last_first_and_within_the_size():
    leaves = [jax.ShapeDtypeStruct((n,), jnp.float32) for n in (100, 10, 10, 10, 400, 5)]
    assert sync.buckets(leaves, 80) == [[5], [4], [3, 2], [1], [0]]
    assert sync.buckets(leaves, 0) == [[5], [4], [3], [2], [1], [0]]
    assert sync.buckets(leaves, 1e6) == [[5, 4, 3, 2, 1, 0]]
    assert sync.buckets(leaves, 80, order=[4, 5, 0, 1, 2, 3]) == [[4], [5], [0], [1, 2], [3]]


def test_a_bucket_holds_one_dtype():
    dtypes = [jnp.float32, jnp.bfloat16, jnp.float32, jnp.bfloat16]
    leaves = [jax.ShapeDtypeStruct((4,), dtype) for dtype in dtypes]
    assert sync.buckets(leaves, 1e6) == [[3, 1], [2, 0]]


def test_backward_order_goes_by_layer_and_not_by_name():
    layers = [f"dense{i}" for i in range(12)]  # sorted by name, dense10 follows dense1
    params = {name: jnp.eye(4) for name in layers}

    def loss(params, x):
        for name in layers:
            x = jnp.tanh(x @ params[name])
        return jnp.sum(x)

    order = sync.backward_order(jax.grad(loss), params, jnp.ones((2, 4)))
    by_name = sorted(layers)
    assert [by_name[i] for i in order] == layers[::-1]
