"""Image convolutions whose parameters get their gradients in a way that suits CPUs.

XLA derives that of a kernel as a convolution whose window is the whole image. Its CPU backend
transposes the activations for it, and computes bias and ReLU anew on the way, in large strides: two
thirds of a step. As matrix products of a few images at a time, activations are read as they lie.
"""

from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

# Of the larger operand of one product, so that it stays in a core's cache. A device that is alone
# has all cores, which each want a part of it.
_CHUNK_BYTES, _CHUNK_BYTES_ALONE = 3 << 16, 1 << 19
# Minimal filtering of whole images has six products at a time.
_CHUNK_BYTES_FILTERED = 1 << 16
_KERNEL_ROWS, _TILE_ROWS = 3, 4
# Where it evaluates polynomials; with -2 for -1/2 sums would round a quarter farther.
_POINTS = (0.0, 1.0, -1.0, 2.0, -0.5)
# Where it was faster on one core: images of several rows that fit into its cache, and products wide
# enough to outweigh the sums.
_FEWEST_ROWS_FILTERED, _FEWEST_CHANNELS_FILTERED, _LARGEST_FILTERED = 4, 16, 1 << 20
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
        if not alone and _filtered_is_faster(padded, dy, size):
            return _kernel_gradient_filtered(padded, dy, size[1])
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
    y = _computed_once(bias_relu(x, bias))
    return y, y


def _bias_relu_gradient(y: Array, dy: Array) -> tuple[Array, Array]:
    # XLA takes `y > 0` back to the sums.
    dx = _computed_once(jnp.where(y != 0, dy, 0))

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


def _computed_once(x: Array) -> Array:
    """The same. XLA's CPU backend computes sums and choices anew for every use of them.

    jaxlib 0.12 does not look beyond a barrier for that; 0.10 ignores it.
    """
    return lax.platform_dependent(x, cpu=lax.optimization_barrier, default=lambda x: x)


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


def _filtered_is_faster(x: Array, dy: Array, size: tuple[int, ...]) -> bool:
    """Whether `_kernel_gradient_filtered` can be used and is faster on one core."""
    (_, height, _, filters), channels = dy.shape, x.shape[3]
    return (
        size[0] == _KERNEL_ROWS
        and x.dtype == jnp.float32
        and height >= _FEWEST_ROWS_FILTERED
        and min(channels, filters) >= _FEWEST_CHANNELS_FILTERED
        and _filtered_bytes(x, dy, size[1]) <= _LARGEST_FILTERED
    )


def _filtered_bytes(x: Array, dy: Array, columns: int) -> int:
    """Returns the size of one image's part of the larger operand of one of the six products."""
    _, height, width, _ = dy.shape
    return -(-height // _TILE_ROWS) * width * columns * x.shape[3] * x.dtype.itemsize


def _minimal_filtering() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Winograd's F(3, 4) (Lavin and Gray 2016, arXiv 1509.09308): 6 multiplications, not 12.

    The sums f[i] of x[i + p] dy[p] over p are f = after ((of_x x) * (of_dy dy)). That transposes
    the product of two polynomials by way of its values at 5 points and its leading coefficient.

    Returns:
      `of_x` [6, 6], `of_dy` [6, 4] and `after` [3, 6].
    """
    points = np.array(_POINTS)
    others = [np.delete(points, i) for i in range(len(points))]
    leading = np.eye(len(points))[-1]

    def values(coefficients: int) -> np.ndarray:
        at_points = np.vander(points, coefficients, increasing=True)
        return np.vstack([at_points, leading[-coefficients:]])

    of_x = np.zeros((len(points) + 1, len(points) + 1))
    of_x[:-1, :-1] = [np.poly(other)[::-1] for other in others]
    of_x[-1] = np.poly(points)[::-1]
    scales = [np.prod(point - other) for point, other in zip(points, others, strict=True)]
    return of_x, values(_TILE_ROWS), values(_KERNEL_ROWS).T / [*scales, 1]


def _kernel_gradient_filtered(x: Array, dy: Array, columns: int) -> Array:
    """The gradient of a kernel of 3 rows, with half of the multiplications.

    Four rows of `dy` at a time go through minimal filtering, and sums round two to three times as
    far. With columns too a quarter of the multiplications would be left, and twice that rounding.

    Args:
      x: float32 [batch, height + 2, width + columns - 1, channels], padded.
      dy: float32 [batch, height, width, filters].
      columns: columns of the kernel.

    Returns:
      float32 [3, columns, channels, filters].
    """
    (batch, height, width, filters), channels = dy.shape, x.shape[3]
    images = _divisor(batch, _CHUNK_BYTES_FILTERED / _filtered_bytes(x, dy, columns))
    tiles = -(-height // _TILE_ROWS)
    below = tiles * _TILE_ROWS - height + 1
    of_x, of_dy, after = _minimal_filtering()

    def rows_of(leaf: Array, chunk: Array) -> Array:
        """Rows of some images, and zeros: [images, rows, ...]."""
        some = lax.dynamic_slice_in_dim(leaf, chunk * images, images)
        # One more than tiles need: XLA does not vectorise sums that it fuses with this slice, but
        # it never fuses them past padding.
        return jnp.pad(some.reshape(images, leaf.shape[1], -1), ((0, 0), (0, below), (0, 0)))

    def weighted(rows: Array, weights: np.ndarray) -> list[Array]:
        """Sums over rows of each tile, by each row of the weights: [images, tiles, ...]."""
        end = (tiles - 1) * _TILE_ROWS + 1
        of_tiles = [rows[:, i : i + end : _TILE_ROWS] for i in range(weights.shape[1])]
        return [
            reduce(jnp.add, [w * row for w, row in zip(line.tolist(), of_tiles, strict=True) if w])
            for line in weights
        ]

    def add(totals: list[Array], chunk: Array) -> tuple[list[Array], None]:
        # stack writes the sums down once; without it each shift would compute them again.
        lines = jnp.stack(weighted(rows_of(x, chunk), of_x)).reshape(len(of_x), -1, *x.shape[2:])
        right = [
            jnp.concatenate([line[:, j : j + width] for j in range(columns)], 2) for line in lines
        ]
        left = [leaf.reshape(-1, filters) for leaf in weighted(rows_of(dy, chunk), of_dy)]
        return [
            total + jnp.einsum("pl,pr->lr", leaf, other.reshape(-1, columns * channels))
            for total, leaf, other in zip(totals, left, right, strict=True)
        ], None

    nothing = [jnp.zeros((filters, columns * channels), jnp.float32)] * len(of_x)
    totals, _ = lax.scan(add, nothing, jnp.arange(batch // images))
    total = jnp.einsum("ia,alr->irl", after, jnp.stack(totals), precision="highest")
    return total.reshape(_KERNEL_ROWS, columns, channels, filters).astype(x.dtype)


def _divisor(number: int, wanted: float) -> int:
    """Returns the divisor of `number` whose ratio to `wanted` is nearest to 1."""
    divisors = [n for n in range(1, number + 1) if number % n == 0]
    return min(divisors, key=lambda n: max(n / wanted, wanted / n))
