"""The operations and their derivatives in float64, written with NumPy as the formulas stand.

Each takes the arguments of the operation and the cotangent of its result, and returns the result
and the gradients of the arguments that have one.
"""

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.sequences import ONE_HOT_ROWS

Numbers = NDArray[np.float64]


def scan(codes: NDArray[np.uint8], kernel: Numbers, bias: Numbers, dy: Numbers) -> list[Numbers]:
    """The best score of each filter; windows with the same score share the gradient evenly.

    Args:
      codes: uint8 [batch, length].
      kernel: [width, 4, filters].
      bias: [filters].
      dy: [batch, filters].

    Returns:
      The scores [batch, filters], and the gradients of kernel and bias.
    """
    windows = np.lib.stride_tricks.sliding_window_view(ONE_HOT_ROWS[codes], kernel.shape[0], 1)
    scores = np.einsum("bpcw,wcf->bpf", windows, kernel) + bias
    best = scores.max(axis=1)
    wins = scores == best[:, None]
    share = wins / wins.sum(axis=1, keepdims=True) * dy[:, None]
    return [best, np.einsum("bpf,bpcw->wcf", share, windows), dy.sum(axis=0)]


def scan_and_dense(
    codes: NDArray[np.uint8], kernel: Numbers, bias: Numbers, weights: Numbers, dy: Numbers
) -> list[Numbers]:
    """`scan`, ReLU and a linear layer.

    Args:
      codes: uint8 [batch, length].
      kernel: [width, 4, filters].
      bias: [filters].
      weights: [filters, outputs].
      dy: [batch, outputs].

    Returns:
      The outputs [batch, outputs], and the gradients of kernel, bias and weights.
    """
    d_hidden = dy @ weights.T
    best = scan(codes, kernel, bias, d_hidden)[0]
    hidden = np.maximum(best, 0)
    return [hidden @ weights, *scan(codes, kernel, bias, d_hidden * (best > 0))[1:], hidden.T @ dy]


def convolution(x: Numbers, kernel: Numbers, dy: Numbers, same: bool) -> list[Numbers]:
    """An image convolution with stride 1.

    Args:
      x: [batch, height, width, channels].
      kernel: [rows, columns, channels, filters].
      dy: [batch, height', width', filters].
      same: whether there are zeros round the image, so that the result has its size.

    Returns:
      The result [batch, height', width', filters], and the gradients of x and kernel.
    """
    rows, columns = kernel.shape[:2]
    edges = [((n - 1) // 2, n // 2) if same else (0, 0) for n in (rows, columns)]
    padded = np.pad(x, ((0, 0), *edges, (0, 0)))
    height, width = padded.shape[1] - rows + 1, padded.shape[2] - columns + 1
    y = np.zeros((len(x), height, width, kernel.shape[3]))
    d_padded, d_kernel = np.zeros_like(padded), np.zeros_like(kernel)
    for i in range(rows):
        for j in range(columns):
            place = np.s_[:, i : i + height, j : j + width]
            y += padded[place] @ kernel[i, j]
            d_padded[place] += dy @ kernel[i, j].T
            d_kernel[i, j] = np.einsum("bhwc,bhwf->cf", padded[place], dy)
    (top, _), (left, _) = edges
    return [y, d_padded[:, top : top + x.shape[1], left : left + x.shape[2]], d_kernel]


def bias_relu(x: Numbers, bias: Numbers, dy: Numbers) -> list[Numbers]:
    """ReLU of x [batch, height, width, filters] + bias [filters], and the gradients of both."""
    sums = x + bias
    dx = np.where(sums > 0, dy, 0)
    return [np.maximum(sums, 0), dx, dx.sum(axis=(0, 1, 2))]


def max_pool(x: Numbers, dy: Numbers, size: int) -> list[Numbers]:
    """The maximum of each square of an image whose values differ, and its gradient.

    Args:
      x: [batch, height, width, channels]; both sides are multiples of `size`.
      dy: [batch, height / size, width / size, channels].
      size: side of a square.
    """
    batch, height, width, channels = x.shape
    squares = x.reshape(batch, height // size, size, width // size, size, channels)
    y = squares.max(axis=(2, 4))
    wins = squares == y[:, :, None, :, None]
    return [y, (wins * dy[:, :, None, :, None]).reshape(x.shape)]


def convolve_along(x: Numbers, kernel: Numbers, dy: Numbers, dilation: int) -> list[Numbers]:
    """A convolution along sequences that keeps their length; zeros lie beyond both ends.

    Args:
      x: [batch, length, channels].
      kernel: [width, channels, filters], of odd width.
      dy: [batch, length, filters].
      dilation: distance between two taps.

    Returns:
      The result [batch, length, filters], and the gradients of x and kernel.
    """
    reach, length = kernel.shape[0] // 2 * dilation, x.shape[1]
    padded = np.pad(x, ((0, 0), (reach, reach), (0, 0)))
    y, d_padded, d_kernel = np.zeros(dy.shape), np.zeros_like(padded), np.zeros_like(kernel)
    for tap, weights in enumerate(kernel):
        place = np.s_[:, tap * dilation : tap * dilation + length]
        y += padded[place] @ weights
        d_padded[place] += dy @ weights.T
        d_kernel[tap] = np.einsum("blc,blf->cf", padded[place], dy)
    return [y, d_padded[:, reach : reach + length], d_kernel]
