"""Image convolutions whose parameters get their gradients in a way that suits CPUs.

XLA derives that of a kernel as a convolution whose window is the whole image. Its CPU backend
transposes the activations for it, and computes bias and ReLU anew on the way, in large strides: two
thirds of a step. As matrix products of a few images at a time, activations are read as they lie.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

# Of the larger operand of one product, so that it stays in a core's cache.
_CHUNK_BYTES = 3 << 18
# With fewer channels a product would have too few rows.
_FEW_CHANNELS = 8


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: Array, kernel: Array, padding: str) -> Array:
    """A convolution with stride 1, on one device.

    Args:
      x: [batch, height, width, channels].
      kernel: [rows, columns, channels, filters], in the type of `x`.
      padding: `SAME` or `VALID`.

    Returns:
      [batch, height', width', filters].
    """
    return plain(x, kernel, padding)


def plain(x: Array, kernel: Array, padding: str) -> Array:
    """The same with XLA's own derivative, for any sharding but of rows."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def pad(x: Array, kernel: Array, padding: str) -> Array:
    """Adds the zeros that a VALID convolution needs to be this one."""
    if padding == "VALID":
        return x
    edges = [((n - 1) // 2, n // 2) for n in kernel.shape[:2]]
    return jnp.pad(x, ((0, 0), *edges, (0, 0)))


def _forward(x: Array, kernel: Array, padding: str) -> tuple[Array, tuple[Array, Array]]:
    return plain(x, kernel, padding), (x, kernel)


def _backward(padding: str, residuals: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = residuals

    def derived(x: Array, dy: Array) -> Array:
        return jax.vjp(lambda kernel: plain(x, kernel, padding), kernel)[1](dy)[0]

    def by_products(x: Array, dy: Array) -> Array:
        return _kernel_gradient(pad(x, kernel, padding), dy, *kernel.shape[:2])

    (dx,) = jax.vjp(lambda x: plain(x, kernel, padding), x)[1](dy)
    return dx, lax.platform_dependent(x, dy, cpu=by_products, default=derived)


convolve.defvjp(_forward, _backward)


@jax.custom_vjp
def add_bias(x: Array, bias: Array) -> Array:
    """Returns x [batch, height, width, filters] + bias [filters], for any sharding."""
    return x + bias


def _bias_gradient(_: None, dy: Array) -> tuple[Array, Array]:
    def by_product(dy: Array) -> Array:
        # XLA's CPU backend sums over leading axes six times as slowly.
        leading = tuple(range(dy.ndim - 1))
        ones = jnp.ones(dy.shape[:-1], dy.dtype)
        sums = lax.dot_general(
            ones, dy, ((leading, leading), ((), ())), preferred_element_type=jnp.float32
        )
        return sums.astype(dy.dtype)

    def by_sum(dy: Array) -> Array:
        return jnp.sum(dy, range(dy.ndim - 1))

    return dy, lax.platform_dependent(dy, cpu=by_product, default=by_sum)


add_bias.defvjp(lambda x, bias: (x + bias, None), _bias_gradient)


def _kernel_gradient(x: Array, dy: Array, rows: int, columns: int) -> Array:
    """The gradient of a kernel, summed over a few images at a time.

    kernel[i, j] meets x[p + (i, j)] and dy[p] at every place p. With q = p + (i, 0) that is
    x[q + (0, j)] and dy[q - (i, 0)]: with x shifted along columns joined to one operand, and dy
    shifted along rows to the other, one product holds all pairs.

    Args:
      x: [batch, height + rows - 1, width + columns - 1, channels], padded.
      dy: [batch, height, width, filters].
      rows: of the kernel.
      columns: of the kernel.

    Returns:
      [rows, columns, channels, filters], in the type of `x`.
    """
    (batch, _, _, channels), (_, height, width, filters) = x.shape, dy.shape
    whole = channels < _FEW_CHANNELS  # all shifts on the side of x

    def operands(x: Array, dy: Array) -> tuple[Array, Array]:
        if whole:
            places = [(i, j) for i in range(rows) for j in range(columns)]
            shifted = [x[:, i : i + height, j : j + width] for i, j in places]
            return jnp.concatenate(shifted, 3), dy
        along_columns = [x[:, :, j : j + width] for j in range(columns)]
        along_rows = [jnp.pad(dy, ((0, 0), (i, rows - 1 - i), (0, 0), (0, 0))) for i in range(rows)]
        return jnp.concatenate(along_columns, 3), jnp.concatenate(along_rows, 3)

    one_image = jax.eval_shape(operands, x[:1], dy[:1])
    most = max(1, _CHUNK_BYTES // max(leaf.size * leaf.dtype.itemsize for leaf in one_image))
    images = max(n for n in range(1, min(most, batch) + 1) if batch % n == 0)

    # Images are sliced out of the whole: XLA computes anew what it would have to cut into pieces.
    # Operands have two axes: it copies those that it must turn first.
    def add(total: Array, first: Array) -> tuple[Array, None]:
        few = [lax.dynamic_slice_in_dim(leaf, first, images) for leaf in (x, dy)]
        left, right = (leaf.reshape(-1, leaf.shape[3]) for leaf in operands(*few))
        product = jnp.einsum("pc,pf->cf", left, right, preferred_element_type=jnp.float32)
        return total + product, None

    nothing = jnp.zeros([leaf.shape[3] for leaf in one_image], jnp.float32)
    total, _ = lax.scan(add, nothing, jnp.arange(0, batch, images))
    if not whole:
        total = total.reshape(columns, channels, rows, filters).transpose(2, 0, 1, 3)
    return total.reshape(rows, columns, channels, filters).astype(x.dtype)
