"""The motif scan against its plain composition and against float64 NumPy."""

import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdna.data.sequences import ONE_HOT_ROWS as BASE_ROWS
from jaxdna.ops.motif_scan import IMPLEMENTATIONS, motif_scan
from jaxdna.ops.sharded_scan import motif_scan_on_mesh
from jaxdna.ops.strands import Strands
from jaxdna.parallel.mesh import AXES

NAMES = list(IMPLEMENTATIONS)
FORMS = [name for name in NAMES if name != "auto"]  # which is one of them


def draw(batch=3, length=40, width=15, filters=16, seed=0, letters=6):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, letters, (batch, length)).astype(np.uint8)
    kernel = rng.normal(size=(width, 4, filters)).astype(np.float32)
    bias = rng.normal(size=filters).astype(np.float32)
    weight = rng.normal(size=(batch, filters)).astype(np.float32)
    return codes, kernel, bias, weight


def numpy_scan(codes, kernel, bias, weight):
    """Value, d_kernel and d_bias of sum(weight * scan), in float64, ties split evenly."""
    width = kernel.shape[0]
    rows = BASE_ROWS[codes]
    windows = np.stack([rows[:, i : i + width] for i in range(codes.shape[1] - width + 1)], 1)
    scores = np.einsum("bpwc,wcf->bpf", windows, kernel.astype(np.float64)) + bias
    best = scores.max(axis=1)
    wins = scores == best[:, None]
    share = wins / wins.sum(axis=1, keepdims=True) * weight[:, None]
    return best, np.einsum("bpf,bpwc->wcf", share, windows), weight.sum(axis=0, dtype=np.float64)


def other_strand(codes, turned):
    complement = np.array([3, 2, 1, 0, 4, 5], np.uint8)
    return np.where(turned[:, None], complement[codes[:, ::-1]], codes)


def compiler_options(name):
    """What interprets a kernel of TPUs or GPUs runs nowhere but here, and need not be fast."""
    return {"xla_backend_optimization_level": 0} if name.startswith("pallas") else None


@cache
def scan_and_gradient(name):
    def both(codes, kernel, bias, weight):
        def objective(kernel, bias):
            best = motif_scan(codes, kernel, bias, implementation=name)
            return jnp.sum(weight * best), best

        return jax.grad(objective, argnums=(0, 1), has_aux=True)(kernel, bias)

    return jax.jit(both, compiler_options=compiler_options(name))


def run(name, codes, kernel, bias, weight):
    (d_kernel, d_bias), best = scan_and_gradient(name)(codes, kernel, bias, weight)
    return best, d_kernel, d_bias


def assert_close(actual, expected, terms):
    """Within the rounding of a float32 sum of `terms` terms, each at most the largest seen."""
    largest = max(1.0, float(np.abs(expected).max()))
    bound = terms * np.finfo(np.float32).eps * largest
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


SHAPES = {
    "usual": {},
    "one window": {"length": 15},
    "one sequence": {"batch": 1},
    "odd sizes": {"batch": 5, "length": 37, "width": 7, "filters": 3},
    "one base wide": {"width": 1, "filters": 1},
    "a window of two words": {"length": 70, "width": 33, "filters": 2},
    "more than a block": {"batch": 130, "length": 24, "width": 11, "filters": 9},
    "real length": {"batch": 4, "length": 500},
    "bases only": {"batch": 8, "length": 101, "letters": 4},
    "many filters": {"batch": 2, "width": 17, "filters": 70},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("name", FORMS)
def test_value_and_gradient_equal_numpy(name, shape):
    codes, kernel, bias, weight = draw(**shape)
    if shape.get("width") == 1:
        kernel, bias = np.round(kernel * 8) / 8, np.round(bias * 8) / 8
    best, d_kernel, d_bias = run(name, codes, kernel, bias, weight)
    expected = numpy_scan(codes, kernel, bias, weight)
    assert best.shape == weight.shape and best.dtype == jnp.float32
    assert_close(best, expected[0], kernel.shape[0] * 4 + 1)
    assert_close(d_kernel, expected[1], codes.size)
    assert_close(d_bias, expected[2], codes.shape[0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("step", [0.0, 1.0], ids=["zero kernel", "coarse kernel"])
def test_ties_between_different_windows_split_evenly(name, dtype, step):
    codes, kernel, bias, weight = draw(batch=6, length=120, filters=4)
    # Whole numbers of at most three: every sum is exact in both types, in any order.
    kernel = (np.clip(np.round(kernel), -3, 3) * step).astype(dtype)
    codes[codes == 5] = 4
    bias, weight = np.round(bias).astype(dtype), np.round(weight * 4).astype(dtype)
    best, d_kernel, d_bias = run(name, codes, kernel, bias, weight)
    floats = [array.astype(np.float32) for array in (kernel, bias, weight)]
    expected = numpy_scan(codes, *floats)
    assert best.dtype == dtype and d_kernel.dtype == dtype
    np.testing.assert_array_equal(np.asarray(best, np.float64), expected[0])
    # One rounding of each sum; the plain form's derivative adds up all the shares in this type.
    terms = codes.size if name == "plain" else 1
    for actual, exact in ((d_kernel, expected[1]), (d_bias, expected[2])):
        bound = terms * float(jnp.finfo(dtype).eps) * np.abs(exact).max()
        np.testing.assert_allclose(np.asarray(actual, np.float64), exact, rtol=0, atol=bound)


@pytest.mark.parametrize("name", FORMS)
def test_repeats_and_padding_tie_as_plain_does(name):
    codes, kernel, bias, weight = draw(batch=4, length=90, letters=4)
    codes[0] = np.tile(codes[0, :3], 30)
    codes[1, 45:] = codes[1, :45]
    codes[2] = 4
    codes[3, 20:] = 4
    best, d_kernel, _ = run(name, codes, kernel, bias, weight)
    expected = numpy_scan(codes, kernel, bias, weight)
    assert_close(best, expected[0], 61)
    assert_close(d_kernel, expected[1], codes.size)


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_training_loop_equals_plain(name):
    codes, kernel, bias, weight = draw(batch=20, length=60, letters=4)

    def train(name):
        def step(parameters, i):
            batch = jax.lax.dynamic_slice_in_dim(codes, i * 4, 4)

            def loss(parameters):
                scan = motif_scan(batch, *parameters, implementation=name)
                return jnp.mean(jax.nn.relu(scan) * weight[:4])

            value, gradient = jax.value_and_grad(loss)(parameters)
            return jax.tree.map(lambda p, g: p - 0.1 * g, parameters, gradient), value

        start = (jnp.asarray(kernel), jnp.asarray(bias))
        loop = jax.jit(
            lambda: jax.lax.scan(step, start, jnp.arange(5)),
            compiler_options=compiler_options(name),
        )
        return loop()

    (actual, losses), (expected, plain_losses) = train(name), train("plain")
    assert_close(losses, plain_losses, 61 * 5)
    assert_close(actual[0], expected[0], 61 * 5)


@pytest.mark.parametrize("name", NAMES)
def test_members_by_vmap_equal_members_one_by_one(name):
    codes, kernel, bias, weight = draw()
    kernels, biases = np.stack([kernel, 0 * kernel, -kernel]), np.stack([bias, bias, bias])
    actual = jax.vmap(lambda k, b: run(name, codes, k, b, weight))(kernels, biases)
    for member in range(3):
        expected = run("plain", codes, kernels[member], biases[member], weight)
        for a, e in zip(actual, expected, strict=True):
            assert_close(a[member], e, codes.size)


@pytest.mark.parametrize("name", ["pallas_tpu", "pallas_gpu"])
def test_one_kernel_scans_the_same_codes_for_all_members(name):
    codes, kernel, bias, _ = draw()
    kernels = np.stack([kernel] * 3)
    scan = partial(motif_scan, implementation=name)
    program = jax.make_jaxpr(jax.vmap(lambda one: scan(codes, one, bias)))(kernels)
    found = re.findall(r"f32\[(\d+),(\d+)\][^=]*= pallas_call", str(program))
    assert found and all(int(filters) >= 3 * kernel.shape[2] for filters, _ in found)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_makes_its_filter_s_scores_so(name, wrong):
    codes, kernel, bias, _ = draw(batch=2, length=20, filters=3, letters=4)
    kernel[4, 1, 2] = wrong
    best = motif_scan(codes, kernel, bias, implementation=name)
    assert np.isfinite(best[:, :2]).all() and not np.isfinite(best[:, 2]).any()


@pytest.mark.parametrize("name", NAMES)
def test_sequences_shorter_than_the_filters_are_refused(name):
    codes, kernel, bias, _ = draw(length=14)
    with pytest.raises(ValueError, match="14 are shorter than filters of 15"):
        motif_scan(codes, kernel, bias, implementation=name)


def test_an_unknown_implementation_is_refused():
    codes, kernel, bias, _ = draw()
    with pytest.raises(ValueError, match="'fast', expected one of plain"):
        motif_scan(codes, kernel, bias, implementation="fast")


@pytest.mark.parametrize("name", ["auto", "pallas_gpu"])
@pytest.mark.parametrize("letters", [4, 6])
def test_turned_sequences_are_scanned_as_their_other_strand(name, letters):
    codes, kernel, bias, weight = draw(batch=6, length=50, filters=4, letters=letters)
    turned = np.array([True, False, True, False, True, True])
    # With whole numbers scores tie, and the derivative reads the codes again.
    kernel, bias = (np.round(values) if letters == 4 else values for values in (kernel, bias))
    expected = numpy_scan(other_strand(codes, turned), kernel, bias, weight)
    actual = run(name, Strands(jnp.asarray(codes), jnp.asarray(turned)), kernel, bias, weight)
    for a, e in zip(actual, expected, strict=True):
        assert_close(a, e, codes.size)


@pytest.mark.parametrize(
    "sizes", [{"seq": 8}, {"data": 4, "model": 2}, {"data": 2, "seq": 2, "model": 2}]
)
@pytest.mark.parametrize("name", ["auto", "pallas_gpu"])
def test_value_and_gradient_on_a_mesh_equal_numpy(name, sizes):
    devices = np.reshape(jax.devices(), [sizes.get(axis, 1) for axis in AXES])
    mesh = jax.sharding.Mesh(devices, AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(AXES))
    codes, kernel, bias, weight = draw(batch=4, length=160, filters=6)
    turned = np.array([True, False, False, True])

    def objective(kernel, bias):
        best = motif_scan_on_mesh(Strands(codes, turned), kernel, bias, name)
        return jnp.sum(weight * best), best

    both = jax.grad(objective, argnums=(0, 1), has_aux=True)
    with jax.set_mesh(mesh):
        (d_kernel, d_bias), best = jax.jit(both, compiler_options=compiler_options(name))(
            kernel, bias
        )
    expected = numpy_scan(other_strand(codes, turned), kernel, bias, weight)
    assert_close(best, expected[0], 61)
    assert_close(d_kernel, expected[1], codes.size)
    assert_close(d_bias, expected[2], codes.shape[0])


@pytest.mark.parametrize("seq", [2, 8])
def test_stretches_on_a_mesh_are_compared_before_bfloat16_rounds_their_scores(seq):
    devices = np.reshape(jax.devices()[:seq], [seq if axis == "seq" else 1 for axis in AXES])
    mesh = jax.sharding.Mesh(devices, AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(AXES))
    codes, *drawn = draw(batch=64, length=240, letters=4)
    kernel, bias, weight = (jnp.asarray(values, jnp.bfloat16) for values in drawn)

    def objective(kernel, bias):
        best = motif_scan_on_mesh(codes, kernel, bias)
        return jnp.sum(weight.astype(jnp.float32) * best), best

    with jax.set_mesh(mesh):
        (d_kernel, d_bias), best = jax.jit(jax.grad(objective, argnums=(0, 1), has_aux=True))(
            kernel, bias
        )
    exact = numpy_scan(codes, *(np.asarray(drawn, np.float64) for drawn in (kernel, bias, weight)))
    # The scores are rounded once, to 2^-8; of the gradient each stretch its part, and then the sum.
    for actual, expected, roundings in zip((best, d_kernel, d_bias), exact, (1, 2, 2), strict=True):
        apart = np.linalg.norm(np.asarray(actual, np.float64) - expected)
        assert apart < roundings * 2.0**-8 * np.linalg.norm(expected)
