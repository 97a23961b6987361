"""The motif scan: one-hot convolution, bias and max over positions as one operation.

`motif_scan` takes bases as one byte each and returns every filter's best score in every sequence.
Its derivative touches the winning window alone, because a max passes no gradient to the others.

A max over equal scores has no single derivative. `jnp.max` splits the cotangent evenly among the
equal positions, and so does this operation: the windows that win alone go through a sparse gather,
and the dense form runs only in a step in which some score that receives gradient is tied.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

UNKNOWN = 4
UNIFORM = 5

# Row `code` is what the convolution sees there: A, C, G, T, unknown or padding, uniform.
BASE_ROWS = np.concatenate([np.eye(4), np.zeros((1, 4)), np.full((1, 4), 0.25)])


def one_hot(codes: Array, dtype: jax.typing.DTypeLike = jnp.float32) -> Array:
    """Expands codes to one row of four per base.

    Args:
        codes: [...] uint8, 0..3 for A C G T, 4 for unknown or padding, 5 for uniform.
        dtype: of the result.

    Returns:
        [..., 4]: the unit row of a base, zeros for code 4, and 0.25 in each place for code 5.
    """
    bases = jnp.arange(4, dtype=codes.dtype)
    quarter = jnp.where(codes == UNIFORM, 0.25, 0.0).astype(dtype)
    return (codes[..., None] == bases).astype(dtype) + quarter[..., None]


def _plain(codes: Array, kernel: Array, bias: Array) -> Array:
    scores = lax.conv_general_dilated(
        one_hot(codes, kernel.dtype),
        kernel,
        window_strides=(1,),
        padding="VALID",
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    return jnp.max(scores + bias, axis=1)


def _windows(codes: Array, width: int, dtype: jax.typing.DTypeLike) -> Array:
    """Every window of every sequence as one row: [batch, positions, width * 4]."""
    rows = one_hot(codes, dtype)
    positions = codes.shape[1] - width + 1
    return jnp.concatenate([rows[:, i : i + positions] for i in range(width)], axis=-1)


def _scores(codes: Array, kernel: Array, bias: Array) -> Array:
    """All scores by one matrix product: [batch, positions, filters].

    XLA's CPU convolution loses its threads inside a loop and is slow on four channels; a matrix
    product does neither.
    """
    width, _, filters = kernel.shape
    return _windows(codes, width, kernel.dtype) @ kernel.reshape(width * 4, filters) + bias


@jax.custom_vjp
def _matmul(codes: Array, kernel: Array, bias: Array) -> Array:
    return jnp.max(_scores(codes, kernel, bias), axis=1)


Residuals = tuple[Array, Array, Array, Array, Array, Array]


def _matmul_forward(codes: Array, kernel: Array, bias: Array) -> tuple[Array, Residuals]:
    scores = _scores(codes, kernel, bias)
    best = jnp.max(scores, axis=1)
    wins = scores == best[:, None]
    position = lax.broadcasted_iota(jnp.int32, scores.shape, 1)
    first = jnp.min(jnp.where(wins, position, scores.shape[1] - 1), axis=1)
    last = jnp.max(jnp.where(wins, position, 0), axis=1)
    return best, (codes, kernel, bias, best, first, last)


def _matmul_backward(residuals: Residuals, gradient: Array) -> tuple[None, Array, Array]:
    codes, kernel, bias, best, first, last = residuals
    alone = _sparse_gradient(codes, first, gradient, kernel.shape[0])
    tied = jnp.any((first != last) & (gradient != 0))

    def split(_: tuple[Array, Array]) -> tuple[Array, Array]:
        return _dense_gradient(codes, kernel, bias, best, gradient), jnp.zeros_like(tied)

    # A loop of at most one round, not `cond`: under vmap a `cond` would run both branches always.
    d_kernel, _ = lax.while_loop(lambda carry: carry[1], split, (alone, tied))
    d_bias = jnp.sum(gradient, axis=0, dtype=jnp.float32)
    return None, d_kernel.astype(kernel.dtype), d_bias.astype(bias.dtype)


_matmul.defvjp(_matmul_forward, _matmul_backward)


def _sparse_gradient(codes: Array, first: Array, gradient: Array, width: int) -> Array:
    """Gradient of the kernel from one window per sequence and filter: [width, 4, filters]."""
    batch = jnp.arange(codes.shape[0])[:, None, None]
    offsets = jnp.arange(width)
    winners = codes.at[batch, first[:, :, None] + offsets].get(mode="promise_in_bounds")
    rows = one_hot(winners)
    return jnp.einsum("bf,bfwc->wcf", gradient.astype(jnp.float32), rows)


def _dense_gradient(
    codes: Array, kernel: Array, bias: Array, best: Array, gradient: Array
) -> Array:
    """Gradient of the kernel, each cotangent split evenly among the windows with that score."""
    width, _, filters = kernel.shape
    wins = _scores(codes, kernel, bias) == best[:, None]
    share = gradient.astype(jnp.float32) / jnp.sum(wins, axis=1)
    weights = jnp.where(wins, share[:, None], 0.0)
    windows = _windows(codes, width, jnp.float32)
    return jnp.einsum("bpk,bpf->kf", windows, weights).reshape(width, 4, filters)


IMPLEMENTATIONS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "plain": _plain,
    "matmul": _matmul,
}


def motif_scan(codes: Array, kernel: Array, bias: Array, *, implementation: str = "auto") -> Array:
    """Scores every filter against every window and keeps the best score per sequence.

    Equal to `max(conv(one_hot(codes), kernel) + bias)` over the positions of a convolution
    without padding, in value and in gradient, ties included.

    Args:
        codes: [batch, length] uint8, 0..3 for A C G T, 4 for unknown or padding, 5 for uniform.
        kernel: [width, 4, filters] float, width at most length.
        bias: [filters] float.
        implementation: a name in `IMPLEMENTATIONS`, or "auto" for the one that suits the platform
            the program is compiled for, which need not be the platform that compiles it.

    Returns:
        [batch, filters], in the kernel's type.

    Raises:
        ValueError: the sequences are shorter than the filters, or no implementation has the name.
    """
    codes, kernel, bias = jnp.asarray(codes), jnp.asarray(kernel), jnp.asarray(bias)
    if codes.shape[1] < kernel.shape[0]:
        raise ValueError(
            f"sequences of {codes.shape[1]} are shorter than filters of {kernel.shape[0]}"
        )
    if implementation == "auto":
        return lax.platform_dependent(codes, kernel, bias, cpu=_matmul, default=_plain)
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"implementation={implementation!r}, expected auto or one of "
            f"{', '.join(IMPLEMENTATIONS)}"
        )
    return IMPLEMENTATIONS[implementation](codes, kernel, bias)
