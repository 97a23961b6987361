import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxdna.ops import convolution
from jaxdna.ops.convolution import bias_relu, convolve, plain


def gradients(function, x, kernel, dy, padding):
    return jax.vjp(lambda x, kernel: function(x, kernel, padding), x, kernel)[1](dy)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("channels", [1, 3, 12])
@pytest.mark.parametrize(("batch", "rows", "columns"), [(7, 3, 3), (6, 2, 3), (1, 4, 1)])
def test_value_and_gradients_are_those_of_xla_s_convolution(
    monkeypatch, padding, channels, batch, rows, columns
):
    monkeypatch.setattr(convolution, "_CHUNK_BYTES_ALONE", 1 << 15)  # one image or three
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x = jnp.asarray(rng.normal(size=(batch, 9, 8, channels)))
        kernel = jnp.asarray(rng.normal(size=(rows, columns, channels, 5)))
        y = plain(x, kernel, padding)
        dy = jnp.asarray(rng.normal(size=y.shape))
        exact = gradients(plain, x, kernel, dy, padding)
    single = [jnp.asarray(leaf, jnp.float32) for leaf in (x, kernel, dy)]
    np.testing.assert_array_equal(convolve(*single[:2], padding), plain(*single[:2], padding))
    made = jax.jit(gradients, static_argnums=(0, 4))(convolve, *single, padding)
    # A sum of n products rounds to sqrt(n) halves of the last bit of its size, and rarely to more.
    for ours, true in zip(made, exact, strict=True):
        np.testing.assert_allclose(ours, true, rtol=0, atol=2e-6 * np.abs(true).max())
        assert ours.dtype == jnp.float32


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("chunk", [1, 3 << 11, 1 << 20])  # a row, some, all images
@pytest.mark.parametrize(("rows", "columns", "channels"), [(3, 3, 12), (2, 3, 12), (3, 3, 5)])
def test_a_kernel_s_gradient_does_not_depend_on_its_chunks(
    monkeypatch, alone, chunk, rows, columns, channels
):
    for name in ("_CHUNK_BYTES", "_CHUNK_BYTES_ALONE"):
        monkeypatch.setattr(convolution, name, chunk)
    rng = np.random.default_rng(0)
    # Small integers: all sums are exact.
    x = jnp.asarray(rng.integers(-3, 4, (6, 12, 9, channels)), jnp.float32)
    dy = jnp.asarray(rng.integers(-3, 4, (6, 13 - rows, 10 - columns, 5)), jnp.float32)
    kernel = jnp.zeros((rows, columns, channels, 5))
    _, exact = gradients(plain, x, kernel, dy, "VALID")
    made = convolution._kernel_gradient(x, dy, (rows, columns), alone)
    np.testing.assert_array_equal(made, exact)


@pytest.mark.parametrize("chunk", [1, 1 << 20])  # an image, all images
@pytest.mark.parametrize(("height", "width"), [(8, 5), (5, 8), (3, 1)])
@pytest.mark.parametrize("columns", [3, 1])
def test_minimal_filtering_rounds_little_more_than_products(
    monkeypatch, chunk, height, width, columns
):
    monkeypatch.setattr(convolution, "_CHUNK_BYTES_FILTERED", chunk)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, height + 2, width + columns - 1, 7)).astype(np.float32)
    dy = rng.normal(size=(6, height, width, 5)).astype(np.float32)
    with jax.enable_x64(True):
        double = [jnp.asarray(leaf, jnp.float64) for leaf in (x, dy)]
        _, exact = gradients(plain, double[0], jnp.zeros((3, columns, 7, 5)), double[1], "VALID")
    made = jax.jit(convolution._kernel_gradient_filtered, static_argnums=2)(x, dy, columns)
    assert made.dtype == jnp.float32
    np.testing.assert_allclose(made, exact, rtol=0, atol=2e-6 * np.abs(exact).max())


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("dtype", "filtered"), [("float32", True), ("bfloat16", False)])
def test_devices_with_a_core_each_filter_where_it_is_exact_enough(
    monkeypatch, padding, dtype, filtered
):
    other = "_kernel_gradient" if filtered else "_kernel_gradient_filtered"
    monkeypatch.setattr(convolution, other, None)  # called, it would raise an error
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 9, 8, 16)), dtype)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 16, 16)), dtype)
    dy = jnp.asarray(rng.normal(size=plain(x, kernel, padding).shape), dtype)
    with jax.enable_x64(True):
        double = [jnp.asarray(leaf, jnp.float64) for leaf in (x, kernel, dy)]
        exact = gradients(plain, *double, padding)
    mesh = jax.sharding.Mesh(jax.devices()[:2], "data")
    own = jax.shard_map(
        lambda *leaves: jax.lax.psum(gradients(convolve, *leaves, padding)[1], "data"),
        mesh=mesh,
        in_specs=(P("data"), P(), P("data")),
        out_specs=P(),
        check_vma=False,
    )
    dk = jax.jit(own)(x, kernel, dy)
    atol = {"float32": 2e-6, "bfloat16": 1e-2}[dtype] * np.abs(exact[1]).max()
    np.testing.assert_allclose(np.asarray(dk, np.float64), exact[1], rtol=0, atol=atol)


def test_sums_over_images_are_float32_where_activations_are_bfloat16():
    # 512 images of ones: each adds 64 to every sum, far beyond where bfloat16 still counts by 64.
    x = jnp.ones((512, 10, 10, 8), jnp.bfloat16)
    kernel = jnp.ones((3, 3, 8, 4), jnp.bfloat16)
    _, dk = gradients(convolve, x, kernel, jnp.ones((512, 8, 8, 4), jnp.bfloat16), "VALID")
    assert dk.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(dk, np.float32), 512 * 64)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bias_and_relu_have_the_value_and_gradients_of_jax_s(dtype):
    rng = np.random.default_rng(0)
    x, bias = (jnp.asarray(rng.normal(size=n), dtype) for n in ((6, 5, 4, 3), 3))
    x = x.at[0].set(-bias)  # sums of 0, which pass nothing back
    dy = jnp.asarray(rng.normal(size=(6, 5, 4, 3)), dtype)
    y, derive = jax.vjp(bias_relu, x, bias)
    # Whatever else is kept, a convolution must be computed or written down once more for.
    [kept] = jax.tree.leaves(derive)
    np.testing.assert_array_equal(kept, y)
    wanted, derive_plainly = jax.vjp(lambda x, bias: jax.nn.relu(x + bias), x, bias)
    np.testing.assert_array_equal(y, wanted)
    dx, d_bias = derive(dy)
    np.testing.assert_array_equal(dx, derive_plainly(dy)[0])
    exact = np.asarray(dx, np.float64).sum((0, 1, 2))
    assert d_bias.dtype == dtype
    precision = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(d_bias, np.float64), exact, rtol=0, atol=20 * precision)
