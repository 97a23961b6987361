"""The motif scan as one TPU kernel: the codes are read once, and no score leaves the chip.

128 sequences lie in the 128 lanes of a vector register, positions in its rows. Sixteen
neighbouring positions share one matrix product, against the filters shifted once for each:

    [16 * filters, 4 * span] @ [4 * span, 128],  span = bases that sixteen windows touch

and its result is folded into the running best at once, together with the packed window that the
score belongs to. A block of 128 sequences of 500 bases takes 1 MiB of the chip's memory.

The matrix unit multiplies bfloat16. One-hot codes are exact in it, and a float32 filter is the
sum of three bfloat16 parts, so three products give float32 scores.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxdna.data.sequences import UNIFORM, UNKNOWN
from jaxdna.ops.packed_windows import CODE_BITS, CODES_PER_WORD, word_count

LANES = 128
SUBLANES = 8
GROUP = 16
TIED = 1 << 30  # marks in its first word a window that shares its score with a different one
UPPER_HALF = -(1 << 16)  # the bits of a float32 that a bfloat16 has

# Of the 16 MiB that every TPU since v4 grants a kernel; the rest is for what the compiler spills.
MEMORY_LIMIT = 12 << 20

Carry = tuple[Array, tuple[Array, ...]]


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _split(values: Array, parts: int) -> list[Array]:
    """Float32 values as a sum of bfloat16 values; exact in three parts, eight bits in each."""
    result = []
    for _ in range(parts - 1):
        upper = pltpu.bitcast(pltpu.bitcast(values, jnp.int32) & jnp.int32(UPPER_HALF), jnp.float32)
        result.append(upper.astype(jnp.bfloat16))
        values = values - upper
    return [*result, values.astype(jnp.bfloat16)]


def _scan_block(
    codes_ref: jax.Ref,
    filters_ref: jax.Ref,
    best_ref: jax.Ref,
    windows_ref: jax.Ref,
    bases_ref: jax.Ref,
    packed_ref: jax.Ref,
    shifted_ref: jax.Ref,
    *,
    width: int,
    positions: int,
) -> None:
    """One block of 128 sequences.

    Args:
        codes_ref: [128, rows] uint8, the input.
        filters_ref: [filters, 4 * span] float32, tap `t` of base `c` at column c * span + t.
        best_ref: [filters, 128] float32, output.
        windows_ref: [words, filters, 128] int32, output.
        bases_ref: [bases, 128] int32, scratch: the codes with sequences in lanes.
        packed_ref: [words, positions rounded up, 128] int32, scratch: the window at a position.
        shifted_ref: [parts, 16 * filters, 4 * span] bfloat16, scratch.
        width: of the filters.
        positions: of a filter in a sequence.
    """
    filters, columns = filters_ref.shape
    parts = shifted_ref.shape[0]
    words, padded_positions, _ = packed_ref.shape
    rows = codes_ref.shape[1]

    for start in range(0, rows, LANES):
        lanes = codes_ref[:, start : start + LANES].astype(jnp.int32)
        bases_ref[start : start + LANES] = lanes.T & (1 << CODE_BITS) - 1
    bases_ref[rows:] = jnp.full((bases_ref.shape[0] - rows, LANES), UNKNOWN, jnp.int32)

    for word in range(words):
        start = word * CODES_PER_WORD
        packed = bases_ref[start : start + padded_positions]
        for i in range(1, min(CODES_PER_WORD, width - start)):
            packed |= bases_ref[start + i : start + i + padded_positions] << (CODE_BITS * i)
        packed_ref[word] = packed

    # A base's taps lie before so many zeros that rotating all columns shifts each base's own.
    for shift in range(GROUP):
        taps = pltpu.roll(filters_ref[...], shift, 1)
        for part, values in enumerate(_split(taps, parts)):
            shifted_ref[part, shift * filters : (shift + 1) * filters] = values

    def unmarked(windows: tuple[Array, ...]) -> tuple[Array, ...]:
        return (windows[0] & ~TIED, *windows[1:])

    def fold(group: Array, carry: Carry) -> Carry:
        best, windows = carry
        start = pl.multiple_of(group * GROUP, GROUP)
        bases = bases_ref[pl.ds(start, columns // 4)]
        uniform = jnp.where(bases == UNIFORM, 0.25, 0.0)
        one_hot = jnp.concatenate([jnp.where(bases == base, 1.0, uniform) for base in range(4)])
        one_hot = one_hot.astype(jnp.bfloat16)
        # From the smallest part to the largest, which loses least.
        products = [
            jnp.dot(shifted_ref[part], one_hot, preferred_element_type=jnp.float32)
            for part in reversed(range(parts))
        ]
        scores = reduce(jnp.add, products)
        packed = [packed_ref[word, pl.ds(start, GROUP)] for word in range(words)]
        for shift in range(GROUP):
            score = scores[shift * filters : (shift + 1) * filters]
            score = jnp.where(start + shift < positions, score, -jnp.inf)
            better = (score > best) | jnp.isnan(score)
            new = [words_at[shift : shift + 1] for words_at in packed]
            another = reduce(jnp.logical_or, map(jnp.not_equal, new, unmarked(windows)))
            tied = jnp.where((score == best) & another, windows[0] | TIED, windows[0])
            best = jnp.where(better, score, best)
            old = (tied, *windows[1:])
            windows = tuple(jnp.where(better, *pair) for pair in zip(new, old, strict=True))
        return best, windows

    nothing = jnp.full((filters, LANES), -jnp.inf, jnp.float32)
    no_window = jnp.zeros((filters, LANES), jnp.int32)
    best, windows = lax.fori_loop(
        0, pl.cdiv(positions, GROUP), fold, (nothing, (no_window,) * words)
    )
    best_ref[...] = best
    for word in range(words):
        windows_ref[word] = windows[word]


@dataclass(frozen=True)
class _Sizes:
    """Padded sizes of one kernel call; see `_scan_block`."""

    width: int
    positions: int
    filters: int
    rows: int
    span: int
    parts: int

    @classmethod
    def of(cls, codes: Array, kernel: Array) -> "_Sizes":
        width, _, filters = kernel.shape
        return cls(
            width=width,
            positions=codes.shape[1] - width + 1,
            filters=_round_up(filters, SUBLANES),
            rows=_round_up(codes.shape[1], LANES),
            span=_round_up(GROUP + width - 1, LANES // 4),
            parts=1 if kernel.dtype == jnp.bfloat16 else 3,
        )

    @property
    def scratch(self) -> list[jax.ShapeDtypeStruct]:
        words, places = word_count(self.width), _round_up(self.positions, GROUP)
        bases = places + max(words * CODES_PER_WORD, self.span)
        return [
            jax.ShapeDtypeStruct(
                (_round_up(max(self.rows, bases) + 1, SUBLANES), LANES), jnp.int32
            ),
            jax.ShapeDtypeStruct((words, places, LANES), jnp.int32),
            jax.ShapeDtypeStruct((self.parts, GROUP * self.filters, 4 * self.span), jnp.bfloat16),
        ]

    @property
    def bytes(self) -> int:
        scores = 2 * GROUP * self.filters * LANES * 4
        scratch = sum(array.size * array.dtype.itemsize for array in self.scratch)
        return int(scratch + scores + 2 * LANES * self.rows)


def fits(codes: Array, kernel: Array) -> bool:
    """Whether the chip's memory holds a block of these sequences and filters."""
    return _Sizes.of(codes, kernel).bytes <= MEMORY_LIMIT


def _scan(interpret: bool, codes: Array, kernel: Array) -> tuple[Array, Array, Array]:
    sizes = _Sizes.of(codes, kernel)
    batch, (width, _, filters), words = codes.shape[0], kernel.shape, word_count(sizes.width)
    padding = ((0, sizes.filters - filters), (0, 0), (0, sizes.span - width))
    taps = jnp.pad(kernel.astype(jnp.float32).transpose(2, 1, 0), padding)
    best, windows = pl.pallas_call(
        partial(_scan_block, width=width, positions=sizes.positions),
        grid=(pl.cdiv(batch, LANES),),
        in_specs=[
            pl.BlockSpec((LANES, sizes.rows), lambda block: (block, 0)),
            pl.BlockSpec((sizes.filters, 4 * sizes.span), lambda block: (0, 0)),
        ],
        out_specs=[
            pl.BlockSpec((sizes.filters, LANES), lambda block: (0, block)),
            pl.BlockSpec((words, sizes.filters, LANES), lambda block: (0, 0, block)),
        ],
        out_shape=[
            jax.ShapeDtypeStruct((sizes.filters, batch), jnp.float32),
            jax.ShapeDtypeStruct((words, sizes.filters, batch), jnp.int32),
        ],
        scratch_shapes=[pltpu.VMEM(array.shape, array.dtype) for array in sizes.scratch],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
        interpret=interpret,
        name="motif_scan",
    )(codes, taps.reshape(sizes.filters, -1))
    windows = windows[:, :filters]
    return best[:filters], windows, windows[0] >= TIED


def _copy(interpret: bool, codes: Array) -> Array:
    block = pl.BlockSpec((LANES, _round_up(codes.shape[1], LANES)), lambda block: (block, 0))

    def copy_block(codes_ref: jax.Ref, copy_ref: jax.Ref) -> None:
        copy_ref[...] = codes_ref[...]

    return pl.pallas_call(
        copy_block,
        grid=(pl.cdiv(codes.shape[0], LANES),),
        in_specs=[block],
        out_specs=block,
        out_shape=jax.ShapeDtypeStruct(codes.shape, codes.dtype),
        interpret=interpret,
        name="copy_codes",
    )(codes)


def copied(codes: Array) -> Array:
    """Returns the codes, read from memory in the order in which `search` reads them.

    The compiler chooses how an array lies in memory by what reads it. What reads this copy has no
    say in how the original lies.

    Args:
        codes: [batch, length] uint8.
    """
    return _on_platform(_copy, codes)


def _on_platform(kernel: Callable[..., Any], *arrays: Array) -> Any:
    # Off TPUs a kernel is interpreted, which is slow and for tests.
    return lax.platform_dependent(
        *arrays, tpu=partial(kernel, False), default=partial(kernel, True)
    )


def search(codes: Array, kernel: Array) -> tuple[Array, Array, Array]:
    """Finds each filter's best window in each sequence.

    The compiler cannot divide a kernel over devices by itself: this is for one device, or for
    inside `shard_map`.

    Args:
        codes: [batch, length] uint8.
        kernel: [width, 4, filters] float.

    Returns:
        The best score [filters, batch] float32; the window that has it, packed, [words, filters,
        batch] int32; and whether a different window has it too, [filters, batch] bool. Where that
        is so, the window itself means nothing.
    """
    best, windows, tied = _on_platform(_scan, codes, kernel)
    return best, windows, tied
