"""The motif scan, ReLU and a linear layer as two GPU kernels: outputs, and all their gradients.

Between the two kernels a sequence has only its outputs and, for each filter, the packed window that
won. The second kernel scores the windows again, so neither scores nor their gradients ever are in
device memory. Where ReLU makes a score zero there is no window, and so nothing to learn from it.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from jaxdna.data.sequences import UNIFORM
from jaxdna.ops import motif_scan_gpu as scan_gpu
from jaxdna.ops.motif_scan_gpu import CODES_PER_HALF, TAPS, TIED, triton
from jaxdna.ops.packed_windows import CODE_BITS, CODES_PER_WORD
from jaxdna.ops.strands import Strands

MOST_OUTPUTS = 64
ROWS = 32  # sequences that a block of the second kernel takes at a time
NO_BASE = (1 << CODE_BITS) - 1  # as a code
NO_BASES = (1 << CODE_BITS * CODES_PER_WORD) - 1  # as a word
SILENT = TIED - 1  # as a half


def _outputs_of_sequence(*refs: jax.Ref, block: int) -> None:
    """One sequence and all filters.

    Args:
        refs: in this order,
            codes: [batch, length] uint8, the input;
            kernel: [width, 4, filters] float32, the input;
            bias: [filters] float32, the input;
            weights: [filters, outputs] float32, the input;
            turned: [batch] uint8, the input if there are `Strands`;
            outputs: [batch, outputs] float32, output;
            windows: [halves, filters, batch] uint16, output.
        block: number of filters or more, a power of two.
    """
    codes_ref, kernel_ref, bias_ref, weights_ref, *turned_refs, outputs_ref, windows_ref = refs
    filters, outputs = weights_ref.shape
    own, output = jnp.arange(block), jnp.arange(pl.next_power_of_2(outputs))
    best, windows, tied = scan_gpu.best_windows(codes_ref, kernel_ref, turned_refs, own)
    best += triton.load(bias_ref.at[own], mask=own < filters, other=0.0)
    silent = best <= 0
    windows = [jnp.where(silent, NO_BASES, word) for word in windows]
    scan_gpu.store_windows(windows_ref, own, windows, tied & ~silent)
    weights = triton.load(
        weights_ref.at[own[:, None], output[None, :]],
        mask=(own < filters)[:, None] & (output < outputs)[None, :],
        other=0.0,
    )
    sums = jnp.sum(jnp.where(silent, 0.0, best)[:, None] * weights, axis=0)
    triton.store(outputs_ref.at[pl.program_id(0), output], sums, mask=output < outputs)


def _gradients_of_filter(
    kernel_ref: jax.Ref,
    bias_ref: jax.Ref,
    weights_ref: jax.Ref,
    windows_ref: jax.Ref,
    gradient_ref: jax.Ref,
    d_kernel_ref: jax.Ref,
    d_bias_ref: jax.Ref,
    d_weights_ref: jax.Ref,
    of_tied_ref: jax.Ref,
) -> None:
    """One filter and all sequences; arguments and results are those of `gradients`."""
    (width, _, _), (batch, outputs) = kernel_ref.shape, gradient_ref.shape
    own, output = pl.program_id(0), jnp.arange(pl.next_power_of_2(outputs))
    column = jnp.arange(4 * TAPS)
    starts = [start + column // 4 for start in range(0, width, TAPS)]
    base = column % 4
    taps = [
        triton.load(kernel_ref.at[tap, base, own], mask=tap < width, other=0.0) for tap in starts
    ]
    bias = triton.load(bias_ref.at[own])
    weights = triton.load(weights_ref.at[own, output], mask=output < outputs, other=0.0)

    def add(number: Array, sums: tuple[Array, ...]) -> tuple[Array, ...]:
        d_bias, d_weights, of_tied, *d_taps = sums
        row = number * ROWS + jnp.arange(ROWS)
        gradient = triton.load(
            gradient_ref.at[row[:, None], output[None, :]],
            mask=(row < batch)[:, None] & (output < outputs)[None, :],
            other=0.0,
        )
        halves = [
            triton.load(
                windows_ref.at[half, own, row], mask=row < batch, other=jnp.uint16(SILENT)
            ).astype(jnp.int32)
            for half in range(windows_ref.shape[0])
        ]
        silent = halves[0] & NO_BASE == NO_BASE
        best = jnp.full((ROWS,), bias)
        has_base = []
        for tap, values in zip(starts, taps, strict=True):
            words = jnp.broadcast_to(halves[0][:, None], (ROWS, 4 * TAPS))
            for half in range(1, len(halves)):
                before = (tap < half * CODES_PER_HALF)[None, :]
                words = jnp.where(before, words, halves[half][:, None])
            codes = words >> (CODE_BITS * (tap % CODES_PER_HALF))[None, :] & NO_BASE
            uniform = jnp.where(codes == UNIFORM, 0.25, 0.0)
            has_base.append(jnp.where(codes == base[None, :], 1.0, uniform))
            best += jnp.sum(has_base[-1] * values[None, :], axis=1)
        best = jnp.where(silent, 0.0, best)
        d_best = jnp.where(silent, 0.0, jnp.sum(gradient * weights[None, :], axis=1))
        asked = jnp.sum(jnp.abs(gradient), axis=1)
        return (
            d_bias + jnp.sum(d_best),
            d_weights + jnp.sum(gradient * best[:, None], axis=0),
            of_tied + jnp.sum(jnp.where(halves[0] >= TIED, asked, 0.0)),
            *(
                d + jnp.sum(has * d_best[:, None], axis=0)
                for d, has in zip(d_taps, has_base, strict=True)
            ),
        )

    zero = jnp.float32(0)
    zeros = zero, jnp.zeros_like(weights), zero, *map(jnp.zeros_like, taps)
    d_bias, d_weights, of_tied, *d_taps = lax.fori_loop(0, pl.cdiv(batch, ROWS), add, zeros)
    for tap, values in zip(starts, d_taps, strict=True):
        triton.store(d_kernel_ref.at[tap, base, own], values, mask=tap < width)
    triton.store(d_bias_ref.at[own], d_bias)
    triton.store(d_weights_ref.at[own, output], d_weights, mask=output < outputs)
    triton.store(of_tied_ref.at[own], of_tied)


def _outputs(
    interpret: bool, codes: Array, kernel: Array, bias: Array, weights: Array, *turned: Array
) -> list[Array]:
    (batch, length), (width, bases, filters) = codes.shape, kernel.shape
    block = scan_gpu.block_of(filters)
    return pl.pallas_call(
        partial(_outputs_of_sequence, block=block),
        grid=(batch,),
        out_shape=[
            jax.ShapeDtypeStruct((batch, weights.shape[1]), jnp.float32),
            scan_gpu.stored_windows(width, filters, batch),
        ],
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=1),
        metadata=scan_gpu.costs(2 * (length - width + 1) * width * bases * block),
        interpret=interpret,
        name="motif_dense",
    )(codes, kernel, bias, weights, *turned)


def _gradients(interpret: bool, *arrays: Array) -> list[Array]:
    kernel, bias, weights, _, gradient = arrays
    results = kernel, bias, weights, bias
    return pl.pallas_call(
        _gradients_of_filter,
        grid=bias.shape,
        out_shape=[jax.ShapeDtypeStruct(like.shape, jnp.float32) for like in results],
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=1),
        metadata=scan_gpu.costs(4 * gradient.shape[0] * kernel.shape[0] * kernel.shape[1]),
        interpret=interpret,
        name="motif_dense_gradients",
    )(*arrays)


def fits(kernel: Array, bias: Array, weights: Array) -> bool:
    """Whether the kernels have been compiled for a layer of these sizes and types."""
    return (
        scan_gpu.fits(kernel)
        and kernel.shape[2] <= scan_gpu.MOST_FILTERS
        and weights.shape[1] <= MOST_OUTPUTS
        and all(array.dtype == jnp.float32 for array in (kernel, bias, weights))
    )


def outputs(
    codes: Array | Strands, kernel: Array, bias: Array, weights: Array
) -> tuple[Array, Array]:
    """Computes the outputs of all sequences.

    Args:
        codes: [batch, length] uint8, or `Strands`.
        kernel: [width, 4, filters] float32.
        bias: [filters] float32, of the best scores.
        weights: [filters, outputs] float32.

    Returns:
        [batch, outputs] float32; and the windows as `motif_scan_gpu.search` returns them, without
        those that `silence` takes away.
    """
    own, *turned = scan_gpu.arrays_of(codes)
    found, windows = scan_gpu.launch(_outputs, own, kernel, bias, weights, *turned)
    return found, windows


def silence(windows: Array, best: Array) -> Array:
    """Takes away the windows whose score is not positive, after which ReLU is zero.

    Args:
        windows: [halves, filters, batch] uint16, as `motif_scan_gpu.search` returns them.
        best: [filters, batch] float32, with the bias.
    """
    return jnp.where(best <= 0, jnp.uint16(SILENT), windows)


def gradients(
    kernel: Array, bias: Array, weights: Array, windows: Array, gradient: Array
) -> tuple[Array, Array, Array, Array]:
    """Computes what `outputs` passes on of a gradient.

    Args:
        kernel: [width, 4, filters] float32.
        bias: [filters] float32.
        weights: [filters, outputs] float32.
        windows: [halves, filters, batch] uint16.
        gradient: [batch, outputs] float32, of the outputs.

    Returns:
        The gradients of kernel, bias and weights, and whether they are wrong: different windows
        share a score of a sequence that receives a gradient.
    """
    *of_parameters, of_tied = scan_gpu.launch(_gradients, kernel, bias, weights, windows, gradient)
    d_kernel, d_bias, d_weights = of_parameters
    return d_kernel, d_bias, d_weights, jnp.any(of_tied > 0)
