"""The motif scan, ReLU and a linear layer as one operation, against float64 NumPy."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdna.models.layers import Dense
from jaxdna.models.motif_cnn import MotifScan, ScanAndDense
from jaxdna.models.network import Network
from jaxdna.ops import motif_dense_gpu
from jaxdna.ops.motif_dense import joins, motif_dense
from jaxdna.ops.strands import Strands
from jaxdna.parallel.mesh import AXES
from jaxdna.study.oracles import scan, scan_and_dense

# Interpreted kernels run nowhere but here, and need not be fast.
compiled = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def draw(batch=3, length=40, width=15, filters=16, outputs=1, letters=6, whole=False):
    """Biases are such that about half of the filters are silent in a sequence."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, letters, (batch, length)).astype(np.uint8)
    shapes = (width, 4, filters), (filters,), (filters, outputs), (batch, outputs)
    drawn = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    kernel, bias, weights, dy = [np.round(2 * values) for values in drawn] if whole else drawn
    middle = np.median(scan(codes, kernel, bias, np.zeros((batch, filters)))[0])
    return codes, kernel, bias - np.round(middle).astype(np.float32), weights, dy


def derived(codes, kernel, bias, weights, dy):
    outputs, derivative = jax.vjp(partial(motif_dense, codes), kernel, bias, weights)
    return outputs, *derivative(dy)


run = compiled(derived)


def assert_close(actual, expected, terms):
    """Within the rounding of a float32 sum of `terms` terms, each at most the largest seen."""
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == jnp.float32
        bound = terms * np.finfo(np.float32).eps * max(1.0, np.abs(e).max())
        np.testing.assert_allclose(a, e, rtol=0, atol=bound)


@pytest.mark.parametrize(
    "shape",
    [
        {"batch": 5, "length": 37, "width": 7, "filters": 3, "outputs": 3},
        {"batch": 2, "length": 70, "width": 33, "filters": 2},
        {"batch": 70, "length": 24, "width": 11, "filters": 9, "outputs": 2},
        {"batch": 4, "length": 101, "letters": 4, "whole": True, "outputs": 2},
    ],
    ids=["odd sizes", "seven words", "more than a block", "ties"],
)
def test_value_and_gradients_equal_numpy(shape):
    arguments = draw(**shape)
    assert_close(run(*arguments), scan_and_dense(*arguments), arguments[0].size)


@pytest.mark.parametrize("whole", [False, True])
def test_turned_sequences_count_as_their_other_strand(whole):
    codes, *others = draw(batch=6, length=50, whole=whole)
    turned = np.array([True, False, False, True, True, False])
    complement = np.array([3, 2, 1, 0, 4, 5], np.uint8)
    read = np.where(turned[:, None], complement[codes[:, ::-1]], codes)
    actual = run(Strands(jnp.asarray(codes), jnp.asarray(turned)), *others)
    assert_close(actual, scan_and_dense(read, *others), codes.size)


def test_only_ties_that_get_a_gradient_ask_for_the_dense_derivative():
    codes, kernel, _, weights, dy = draw(filters=4, whole=True, letters=4)
    kernel = 0 * kernel  # every window ties with every other
    gradients = compiled(motif_dense_gpu.gradients)

    def any_tied(bias, dy):
        biases = np.full(4, bias, np.float32)
        _, windows = motif_dense_gpu.outputs(codes, kernel, biases, weights)
        return gradients(kernel, biases, weights, windows, dy)[3]

    assert any_tied(1, dy)
    assert not any_tied(0, dy)  # silent
    assert not any_tied(1, 0 * dy)  # rows that fill up a batch have no gradient


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_makes_all_outputs_so(wrong):
    codes, kernel, bias, weights, _ = draw(length=20, filters=3, letters=4)
    kernel[4, 1, 2] = wrong
    assert not np.isfinite(compiled(motif_dense)(codes, kernel, bias, weights)).any()


@pytest.mark.parametrize("shared", [True, False])
def test_members_by_vmap_equal_members_one_by_one_and_scan_what_they_share_once(shared):
    codes, *parameters, dy = draw(filters=4)
    stacked = [np.stack([values, -values, 0 * values]) for values in parameters]
    own = codes if shared else np.stack([codes, codes[::-1], codes[:, ::-1]])
    members = jax.vmap(derived, in_axes=(None if shared else 0, 0, 0, 0, None))
    actual = compiled(members)(own, *stacked, dy)
    for i in range(3):
        each = [values[i] for values in stacked]
        expected = scan_and_dense(codes if shared else own[i], *each, dy)
        assert_close([a[i] for a in actual], expected, codes.size)
    scans = r"f32\[(\d+),3\] \w+:u16\[[^=]*= pallas_call"
    found = set(re.findall(scans, str(jax.make_jaxpr(members)(own, *stacked, dy))))
    assert found == ({"12"} if shared else set())  # the filters of all


def layers():
    return MotifScan(7, 2, "pallas_gpu", rngs=nnx.Rngs(0)), Dense(2, 1, rngs=nnx.Rngs(1))


CODES = np.random.default_rng(0).integers(0, 6, (8, 40)).astype(np.uint8)


def test_a_scan_takes_the_dense_layer_after_it_along_where_the_kernels_fit():
    conv, dense = layers()
    assert isinstance(conv.joined(dense, CODES), ScanAndDense)
    assert conv.joined(dense, np.eye(4, dtype=np.float32)[CODES % 4]) is None
    assert conv.joined(nnx.Linear(2, 1, rngs=nnx.Rngs(0)), CODES) is None
    conv.implementation = "auto"  # on a CPU
    assert conv.joined(dense, CODES) is None


@pytest.mark.parametrize(
    ("filters", "outputs", "dtype", "fits"),
    [
        (64, 64, np.float32, True),
        (65, 1, np.float32, False),
        (1, 65, np.float32, False),
        (1, 1, jnp.bfloat16, False),
    ],
)
def test_many_filters_many_outputs_and_rounded_filters_stay_apart(filters, outputs, dtype, fits):
    kernel, bias, weights = (
        np.zeros((7, 4, filters), dtype),
        np.zeros(filters, dtype),
        np.zeros((filters, outputs), np.float32),
    )
    assert joins("pallas_gpu", kernel, bias, weights) is fits


@pytest.mark.parametrize(("axis", "joined"), [("data", True), ("model", False), ("seq", False)])
def test_on_a_mesh_each_device_has_whole_sequences_and_filters_or_the_layers_stay_apart(
    axis, joined
):
    conv, dense = layers()
    dense.activation = jnp.tanh
    network = Network({"conv": conv, "dense": dense})
    conv.implementation = "convolution"
    expected = dense(conv(CODES))
    conv.implementation = "pallas_gpu"
    sizes = [2 if name == axis else 1 for name in AXES]
    types = (jax.sharding.AxisType.Auto,) * len(AXES)
    mesh = jax.sharding.Mesh(np.reshape(jax.devices()[:2], sizes), AXES, axis_types=types)
    with jax.set_mesh(mesh):
        assert isinstance(conv.joined(dense, CODES), ScanAndDense) is joined
        actual = compiled(lambda codes: network(codes))(CODES)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)
