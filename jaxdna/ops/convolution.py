"""Image convolutions whose parameters get their gradients in a way that suits CPUs.

XLA derives that of a kernel as a convolution whose window is the whole image. Its CPU backend
transposes the activations for it, and computes bias and ReLU anew on the way, in large strides: two
thirds of a step. As matrix products of a few images at a time, activations are read as they lie.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

# Of the larger operand of one product, so that it stays in a core's cache. A device that is alone
# has all cores, which each want a part of it.
_CHUNK_BYTES, _CHUNK_BYTES_ALONE = 3 << 16, 1 << 19
# Up to so many, all of what the kernel meets is small enough to be written down at once.
_FEW_CHANNELS = 4


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

    mesh = jax.sharding.get_abstract_mesh()
    alone = mesh.empty or mesh.size == 1

    def by_products(x: Array, dy: Array) -> Array:
        padded, size = pad(x, kernel, padding), kernel.shape[:2]
        if x.shape[3] <= _FEW_CHANNELS:
            return _kernel_gradient_at_once(padded, dy, size)
        return _kernel_gradient(padded, dy, size, alone)

    (dx,) = jax.vjp(lambda x: plain(x, kernel, padding), x)[1](dy)
    return dx, lax.platform_dependent(x, dy, cpu=by_products, default=derived)


convolve.defvjp(_forward, _backward)


@jax.custom_vjp
def bias_relu(x: Array, bias: Array) -> Array:
    """ReLU of x [batch, height, width, filters] + bias [filters], for any sharding.

    Its derivative is told from the result, which a network keeps anyway: then nothing else reads
    the sums of a convolution, and a backend need not write them.
    """
    return jnp.maximum(x + bias, 0)


def _bias_relu(x: Array, bias: Array) -> tuple[Array, Array]:
    y = bias_relu(x, bias)
    return y, y


def _bias_relu_gradient(y: Array, dy: Array) -> tuple[Array, Array]:
    # XLA takes `y > 0` back to the sums.
    dx = jnp.where(y != 0, dy, 0)

    def by_product(dx: Array) -> Array:
        # XLA's CPU backend sums over leading axes six times as slowly. The columns stay: the wider
        # its result, the faster the product.
        ones = jnp.ones(dx.shape[:2], dx.dtype)
        columns = lax.dot_general(
            ones, dx, (((0, 1), (0, 1)), ((), ())), preferred_element_type=jnp.float32
        )
        return jnp.sum(columns, 0).astype(dx.dtype)

    def by_sum(dx: Array) -> Array:
        return jnp.sum(dx, (0, 1, 2))

    return dx, lax.platform_dependent(dx, cpu=by_product, default=by_sum)


bias_relu.defvjp(_bias_relu, _bias_relu_gradient)


def _kernel_gradient_at_once(x: Array, dy: Array, size: tuple[int, ...]) -> Array:
    """The gradient of a kernel as one product, for images of few channels.

    Args:
      x: [batch, height + rows - 1, width + columns - 1, channels], padded.
      dy: [batch, height, width, filters].
      size: rows and columns of the kernel.

    Returns:
      [rows, columns, channels, filters], in the type of `x`.
    """
    (_, height, width, filters), channels, (rows, columns) = dy.shape, x.shape[3], size
    planes = jnp.moveaxis(x, 3, 0)  # a few long rows, where shifting pixels copies a few bytes each
    shifted = [
        planes[:, :, i : i + height, j : j + width] for i in range(rows) for j in range(columns)
    ]
    left, right = jnp.stack(shifted).reshape(rows * columns * channels, -1), dy.reshape(-1, filters)
    product = jnp.dot(left, right, preferred_element_type=jnp.float32)
    return product.reshape(rows, columns, channels, filters).astype(x.dtype)


def _kernel_gradient(x: Array, dy: Array, size: tuple[int, ...], alone: bool) -> Array:
    """The gradient of a kernel, summed over some rows of an image, or some images, at a time.

    kernel[i, j] meets x[p + (i, j)] and dy[p] at every place p: with x shifted to all places of the
    kernel and joined to one operand, one product holds all pairs. Eigen divides a product among
    cores by its result, and here that is too small. A device that has all cores gets a larger one:
    with q = p + (i, 0) the pairs are x[q + (0, j)] and dy[q - (i, 0)], so x is shifted along
    columns, and dy along rows.

    Args:
      x: [batch, height + rows - 1, width + columns - 1, channels], padded.
      dy: [batch, height, width, filters].
      size: rows and columns of the kernel.
      alone: whether no other device computes on the same cores.

    Returns:
      [rows, columns, channels, filters], in the type of `x`.
    """
    (batch, height, width, filters), channels, (rows, columns) = dy.shape, x.shape[3], size
    dy_shifts = rows if alone else 1
    x_shifts = rows // dy_shifts
    widest = max(x_shifts * columns * channels, dy_shifts * filters)
    wanted = _CHUNK_BYTES_ALONE if alone else _CHUNK_BYTES
    wanted_rows = wanted / (width * widest * x.dtype.itemsize)
    some, images = _divisor(height, wanted_rows), _divisor(batch, wanted_rows / height)
    span, chunks = some + dy_shifts - 1, height // some
    order = 1 if alone else -1  # Eigen is a little faster so

    def add(total: Array, chunk: Array) -> tuple[Array, None]:
        start = (chunk // chunks * images, chunk % chunks * some, 0, 0)
        part = lax.dynamic_slice(x, start, (images, some + rows - 1, *x.shape[2:]))
        upstream = lax.dynamic_slice(dy, start, (images, some, width, filters))
        places = [(i, j) for i in range(x_shifts) for j in range(columns)]
        joined = (
            jnp.concatenate([part[:, i : i + span, j : j + width] for i, j in places], 3),
            jnp.concatenate(
                [
                    jnp.pad(upstream, ((0, 0), (i, dy_shifts - 1 - i), (0, 0), (0, 0)))
                    for i in range(dy_shifts)
                ],
                3,
            ),
        )
        # Operands have two axes: XLA copies those that it must turn first.
        left, right = (leaf.reshape(-1, leaf.shape[3]) for leaf in joined[::order])
        product = jnp.einsum("pl,pr->lr", left, right, preferred_element_type=jnp.float32)
        return total + product, None

    widths = (x_shifts * columns * channels, dy_shifts * filters)
    nothing = jnp.zeros(widths[::order], jnp.float32)
    total, _ = lax.scan(add, nothing, jnp.arange(batch // images * chunks))
    total = (total.T if alone else total).reshape(dy_shifts, filters, x_shifts, columns, channels)
    return total.transpose(0, 2, 3, 4, 1).reshape(rows, columns, channels, filters).astype(x.dtype)


def _divisor(number: int, wanted: float) -> int:
    """Returns the divisor of `number` whose ratio to `wanted` is nearest to 1."""
    divisors = [n for n in range(1, number + 1) if number % n == 0]
    return min(divisors, key=lambda n: max(n / wanted, wanted / n))
