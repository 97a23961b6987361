"""The motif scan: one-hot convolution, bias and max over positions as one operation.

`motif_scan` takes bases as one byte each and returns every filter's best score in every sequence.
Its derivative touches the winning window alone, because a max passes no gradient to the others.

A max over equal scores has no single derivative. `jnp.max` splits the cotangent evenly among the
equal positions, and so does this operation: windows that win alone go through a sparse gather, and
the dense derivative runs only in a step in which a score that receives gradient is tied.

Scores are compared as float32 sums before the bias is added and before rounding to the kernel's
type. Where rounding alone makes different scores equal (bfloat16 has eight bits), the window with
the larger sum takes the gradient, and the rounded plain form would share it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxdna.ops import motif_scan_matmul
from jaxdna.ops.one_hot import one_hot
from jaxdna.ops.packed_windows import unpack
from jaxdna.ops.strands import Strands, read

# (codes, kernel) -> best score float32, its position int32, whether another window has the same
# score; each [batch, filters]. Where a score is tied the position means nothing.
Search = Callable[[Array, Array], tuple[Array, Array, Array]]


def _convolution(codes: Array, kernel: Array, dtype: jax.typing.DTypeLike | None = None) -> Array:
    return lax.conv_general_dilated(
        one_hot(codes, kernel.dtype),
        kernel,
        window_strides=(1,),
        padding="VALID",
        dimension_numbers=("NWC", "WIO", "NWC"),
        preferred_element_type=dtype,
    )


def _plain(codes: Array, kernel: Array, bias: Array) -> Array:
    return jnp.max(_convolution(codes, kernel) + bias, axis=1)


def _convolution_search(codes: Array, kernel: Array) -> tuple[Array, Array, Array]:
    scores = _convolution(codes, kernel, jnp.float32)
    best = jnp.max(scores, axis=1)
    wins = scores == best[:, None]
    position = jnp.argmax(wins, axis=1).astype(jnp.int32)
    return best, position, jnp.sum(wins, axis=1) > 1


def _platform_search(codes: Array, kernel: Array) -> tuple[Array, Array, Array]:
    # Decided when the program is lowered, so a program compiled here for another machine gets
    # the other machine's formulation.
    return lax.platform_dependent(
        codes, kernel, cpu=motif_scan_matmul.search, default=_convolution_search
    )


# The barriers below keep XLA from choosing the layout of the scores by what the next layer does to
# them: its sums would run in another order, and the last bits would depend on whether both layers
# are compiled together, as on one device, or apart, as in a pipeline.


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fused(search: Search, codes: Array, kernel: Array, bias: Array) -> Array:
    return lax.optimization_barrier(search(codes, kernel)[0]) + bias


Residuals = tuple[Any, Array, Array, Array, Array]


def _fused_forward(
    search: Search, codes: Array, kernel: Array, bias: Array
) -> tuple[Array, Residuals]:
    best, position, tied = lax.optimization_barrier(search(codes, kernel))
    return best + bias, (codes, kernel, bias, position, tied)


def _fused_backward(_: Search, residuals: Residuals, gradient: Array) -> tuple[None, Array, Array]:
    codes, kernel, bias, position, tied = residuals
    gradient = lax.optimization_barrier(gradient)
    alone = _winners_gradient(codes, position, gradient, kernel.shape[0])
    any_tied = jnp.any(tied & (gradient != 0))
    d_kernel = _filters_gradient(codes, kernel, gradient, alone, any_tied)
    return None, d_kernel.astype(kernel.dtype), jnp.sum(gradient, axis=0).astype(bias.dtype)


_fused.defvjp(_fused_forward, _fused_backward)


def shared_if_tied(
    outputs: Callable[..., Array],
    parameters: Sequence[Array],
    gradient: Array,
    alone: Sequence[Array],
    any_tied: Array,
) -> tuple[Array, ...]:
    """The parameters' gradients: `alone`, or with `any_tied` the dense ones, which share evenly.

    Args:
        outputs: of the parameters, written densely.
        parameters: float32.
        gradient: of the outputs.
        alone: of each parameter, as if no window were tied.
        any_tied: bool scalar.
    """

    def share(_: Any) -> tuple[tuple[Array, ...], Array]:
        return jax.vjp(outputs, *parameters)[1](gradient), jnp.zeros_like(any_tied)

    # A loop of at most one round, not `cond`: under vmap a `cond` would always run both branches.
    gradients, _done = lax.while_loop(lambda carry: carry[1], share, (tuple(alone), any_tied))
    return gradients


def _filters_gradient(
    codes: Any,
    kernel: Array,
    gradient: Array,
    alone: Array,
    any_tied: Array,
    read: Callable[[Any], Array] = lambda codes: codes,
) -> Array:
    def best(kernel: Array) -> Array:
        return motif_scan_matmul.best_scores(read(codes), kernel)

    float32 = kernel.astype(jnp.float32)
    (d_kernel,) = shared_if_tied(best, [float32], gradient, [alone], any_tied)
    return d_kernel


def _winners_gradient(codes: Array, position: Array, gradient: Array, width: int) -> Array:
    """Gradient of the kernel from one window per sequence and filter: [width, 4, filters]."""
    index = position[:, :, None] + jnp.arange(width)
    windows = jax.vmap(lambda row, at: row.at[at].get(mode="promise_in_bounds"))(codes, index)
    return jnp.einsum("bf,bfwc->wcf", gradient, one_hot(windows))


def one_scan(
    search: Callable[[Any, Array], Any], fits: Callable[[Any, Array], bool]
) -> Callable[[Any, Array], Any]:
    """Returns a kernel's `search` that scans the same codes once for all that `vmap` asks with.

    What a kernel makes of the codes, their one-hot form and the packed windows, it then makes once:
    filters of many networks are many filters.

    Args:
      search: (codes, kernel) -> arrays [..., filters, batch].
      fits: (codes, kernel) -> whether the kernel takes so many filters.
    """
    shared = jax.custom_batching.custom_vmap(search)

    @shared.def_vmap
    def _(networks: int, batched: Any, codes: Any, kernel: Array) -> tuple[Any, Any]:
        if batched[1] and not any(jax.tree.leaves(batched[0])):
            filters = kernel.shape[-1]
            joined = jnp.moveaxis(kernel, 0, 2).reshape(*kernel.shape[1:3], networks * filters)
            if fits(codes, joined):
                found = jax.tree.map(
                    lambda leaf: jnp.moveaxis(
                        leaf.reshape(*leaf.shape[:-2], networks, filters, leaf.shape[-1]), -3, 0
                    ),
                    search(codes, joined),
                )
                return found, jax.tree.map(lambda _: True, found)
        axes = jax.tree.map(lambda own: 0 if own else None, batched)
        found = jax.vmap(search, in_axes=tuple(axes))(codes, kernel)
        return found, jax.tree.map(lambda _: True, found)

    return shared


# On TPUs, where a gather is slow, the kernel hands over the winning windows and not their places.
# The modules of the kernels are imported where they are used: that takes longer than all others of
# `ops`.


@jax.custom_vjp
def _pallas(codes: Array, kernel: Array, bias: Array) -> Array:
    return _pallas_forward(codes, kernel, bias)[0]


def _pallas_forward(codes: Array, kernel: Array, bias: Array) -> tuple[Array, Residuals]:
    from jaxdna.ops import motif_scan_tpu

    search = one_scan(motif_scan_tpu.search, motif_scan_tpu.fits)
    best, windows, tied = search(codes, kernel)
    return best.T + bias, (codes, kernel, bias, windows, tied)


def _pallas_backward(residuals: Residuals, gradient: Array) -> tuple[None, Array, Array]:
    from jaxdna.ops import motif_scan_tpu

    codes, kernel, bias, windows, tied = residuals
    # The highest precision, because a TPU rounds float32 factors to bfloat16 otherwise.
    of_words = [
        jnp.einsum("bf,wfbc->wcf", gradient, one_hot(bases), precision="highest")
        for bases in unpack(windows, kernel.shape[0])
    ]
    any_tied = jnp.any(tied & (gradient.T != 0))
    # The loop over ties takes the codes as they lie; else every step would turn them round for it.
    d_kernel = _filters_gradient(
        codes, kernel, gradient, jnp.concatenate(of_words), any_tied, motif_scan_tpu.copied
    )
    return None, d_kernel.astype(kernel.dtype), jnp.sum(gradient, axis=0).astype(bias.dtype)


_pallas.defvjp(_pallas_forward, _pallas_backward)


# So it does on GPUs. There the derivative has the batch last: sums along it are not transposed.


@jax.custom_vjp
def _pallas_gpu(codes: Array | Strands, kernel: Array, bias: Array) -> Array:
    return _pallas_gpu_forward(codes, kernel, bias)[0]


def _pallas_gpu_forward(
    codes: Array | Strands, kernel: Array, bias: Array
) -> tuple[Array, Residuals]:
    from jaxdna.ops import motif_scan_gpu

    search = one_scan(motif_scan_gpu.search, lambda _, kernel: motif_scan_gpu.fits(kernel))
    best, windows, tied = search(codes, kernel)
    return best.T + bias, (codes, kernel, bias, windows, tied)


def _pallas_gpu_backward(residuals: Residuals, gradient: Array) -> tuple[None, Array, Array]:
    from jaxdna.ops import motif_scan_gpu

    codes, kernel, bias, windows, tied = residuals
    by_filter = lax.optimization_barrier(gradient.T)
    alone = motif_scan_gpu.winners_gradient(windows, by_filter, kernel.shape[0])
    # Sums of the same numbers in the same order are one kernel.
    of_tied = jnp.sum(jnp.where(tied, jnp.abs(by_filter), 0), axis=1)
    any_tied = jnp.any(of_tied > 0)
    d_kernel = _filters_gradient(codes, kernel, by_filter.T, alone, any_tied, read)
    return None, d_kernel.astype(kernel.dtype), jnp.sum(by_filter, axis=1).astype(bias.dtype)


_pallas_gpu.defvjp(_pallas_gpu_forward, _pallas_gpu_backward)


def turns_strands(implementation: str, device: jax.sharding.AbstractDevice | None) -> bool:
    """Whether a formulation turns the sequences of `Strands` while it reads them, on a device."""
    return implementation == "pallas_gpu" or (implementation == "auto" and on_gpu(device))


def on_gpu(device: jax.sharding.AbstractDevice | None) -> bool:
    """Whether the kernel has been compiled for such a device."""
    if device is None or device.platform != "gpu":
        return False
    from jaxdna.ops import motif_scan_gpu

    return motif_scan_gpu.suits(device)


def _suits_the_mesh(codes: Array | Strands, kernel: Array, bias: Array) -> Array:
    mesh = jax.sharding.get_abstract_mesh()
    device = mesh.abstract_device
    whole = mesh.size == 1 or set(mesh.manual_axes) == set(mesh.axis_names)
    if device and whole and on_gpu(device):
        from jaxdna.ops import motif_scan_gpu

        if motif_scan_gpu.fits(kernel):
            return _pallas_gpu(codes, kernel, bias)
    codes = read(codes)
    if device and whole and device.platform == "tpu":
        from jaxdna.ops import motif_scan_tpu

        if motif_scan_tpu.fits(codes, kernel):
            return _pallas(codes, kernel, bias)
    return _fused(_platform_search, codes, kernel, bias)


IMPLEMENTATIONS: dict[str, Callable[[Any, Array, Array], Array]] = {
    "plain": _plain,
    "convolution": partial(_fused, _convolution_search),
    "matmul": partial(_fused, motif_scan_matmul.search),
    "pallas_tpu": _pallas,
    "pallas_gpu": _pallas_gpu,
    "auto": _suits_the_mesh,
}


def motif_scan(
    codes: Array | Strands,
    kernel: Array,
    bias: Array,
    *,
    implementation: str = "auto",
    dtype: jax.typing.DTypeLike | None = None,
) -> Array:
    """Scores every filter against every window and keeps the best score per sequence.

    Equal to `max(conv(one_hot(codes), kernel) + bias)` over the positions of a convolution
    without padding, in value and in gradient, ties included.

    Args:
        codes: [batch, length] uint8, 0..3 for A C G T, 4 for unknown or padding, 5 for uniform; or
            their one-hot form, [batch, length, 4] float, which is scanned plainly and has a
            derivative of its own; or `Strands`.
        kernel: [width, 4, filters] float, width at most length.
        bias: [filters] float.
        implementation: a name in `IMPLEMENTATIONS`; "auto" is the one that suits the platform
            the program is compiled for, which need not be the platform that compiles it. On TPUs
            and the GPUs of `motif_scan_gpu.KINDS` that is the kernel, where it fits, the mesh is
            known and each device sees its own part; else the convolution.
        dtype: of the result; the kernel's if None. With float32 a score is not rounded before it
            is compared with others.

    Returns:
        [batch, filters].

    Raises:
        ValueError: the sequences are shorter than the filters, or no implementation has the name.
    """
    codes, kernel, bias = jax.tree.map(jnp.asarray, (codes, kernel, bias))
    length = jax.tree.leaves(codes)[0].shape[1]
    if length < kernel.shape[0]:
        raise ValueError(f"sequences of {length} are shorter than filters of {kernel.shape[0]}")
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"implementation={implementation!r}, expected one of {', '.join(IMPLEMENTATIONS)}"
        )
    if implementation not in ("auto", "pallas_gpu"):
        codes = read(codes)
    if not isinstance(codes, Strands) and jnp.issubdtype(codes.dtype, jnp.floating):
        implementation = "plain"
    return IMPLEMENTATIONS[implementation](codes, kernel, bias).astype(dtype or kernel.dtype)


def best_windows(codes: Array, kernel: Array, near: Array) -> tuple[Array, Array]:
    """Finds each filter's best window in each sequence, and whether any other comes near it.

    Args:
        codes: [batch, length] uint8.
        kernel: [width, 4, filters] float.
        near: [filters] float, the difference of scores below which a window comes near.

    Returns:
        The first base of the first window whose score is within `near` of the best, int32
        [batch, filters]; and whether it is the only one, bool [batch, filters].
    """
    scores = motif_scan_matmul.window_scores(codes, kernel)
    wins = scores >= jnp.max(scores, axis=2, keepdims=True) - near[:, None, None]
    first = jnp.argmax(wins, axis=2).astype(jnp.int32)
    return first.T, (jnp.sum(wins, axis=2) == 1).T
