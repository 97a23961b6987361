"""The motif scan as one GPU kernel: the codes are read once, and no score leaves the chip.

A block of threads takes one sequence and up to 64 filters, and a tile of neighbouring positions at
a time. Sixteen bases of the filters at once are a matrix product of one-hot codes and weights,

    [positions, 4 * 16] @ [4 * 16, filters]

and its result is folded into the running best, together with the packed windows that have it: the
least and the largest of them, which differ where different windows share the best score.

Tensor cores multiply bfloat16. One-hot codes are exact in it, and a float32 weight is the sum of
three bfloat16 parts, so three products give float32 scores.

Pallas' Triton backend compiles it. jax has said since 0.11 that this backend will go, and Pallas'
other one takes no GPU before Hopper. Where it is gone, `suits` is false of every device.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from jaxdna.data.sequences import UNIFORM, UNKNOWN
from jaxdna.ops.one_hot import one_hot
from jaxdna.ops.packed_windows import CODE_BITS, CODES_PER_WORD, word_count
from jaxdna.ops.strands import Strands

try:
    from jax.experimental.pallas import triton
except ImportError:
    triton = None  # type: ignore[assignment]

# GPUs that the kernel has been compiled for; Triton needs those of Ampere and later.
KINDS = ("A6000", "A100", "H100", "H200", "B200")

MOST_WIDTH = 64  # of filters; wider ones take the compiler minutes

TAPS = 16
SCORES = 4096  # of a tile, in the registers of its threads
LEAST, MOST_FILTERS = 16, 64  # rows and columns of a matrix product, and how many filters at most
UPPER_HALF = -(1 << 16)  # the bits of a float32 that a bfloat16 has
NO_WINDOW = 1 << CODE_BITS * CODES_PER_WORD, -1  # above and below all packed words

# A packed word is stored in two halves, so that a window of fifteen bases takes six bytes.
CODES_PER_HALF = CODES_PER_WORD // 2
HALF_BITS = CODE_BITS * CODES_PER_HALF
TIED = 1 << HALF_BITS  # marks in its first half a window that shares its score with a different one


def _split(values: Array, parts: int) -> list[Array]:
    """Float32 values as a sum of bfloat16 values; exact in three parts, eight bits in each."""
    result = []
    for _ in range(parts - 1):
        bits = lax.bitcast_convert_type(values, jnp.int32) & jnp.int32(UPPER_HALF)
        upper = lax.bitcast_convert_type(bits, jnp.float32)
        result.append(upper.astype(jnp.bfloat16))
        values = values - upper
    return [*result, values.astype(jnp.bfloat16)]


def best_windows(
    codes_ref: jax.Ref, kernel_ref: jax.Ref, turned_refs: Sequence[jax.Ref], own: Array
) -> tuple[Array, list[Array], Array]:
    """Scans the sequence of the block's number, inside a kernel.

    Args:
        codes_ref: [batch, length] uint8.
        kernel_ref: [width, 4, filters] float.
        turned_refs: [batch] uint8, if there are `Strands`; else none.
        own: [block] int32, the block's filters; a power of two of them.

    Returns:
        The best score of each filter, float32 [block]; the words of its window, int32 [block] each;
        and whether a different window has it too, bool [block].
    """
    (_, length), (width, _, filters) = codes_ref.shape, kernel_ref.shape
    (block,), sequence = own.shape, pl.program_id(0)
    positions, words = length - width + 1, word_count(width)
    tile = min(SCORES // block, max(LEAST, pl.next_power_of_2(positions)))
    starts = range(0, width, TAPS)
    column = jnp.arange(4 * TAPS)
    tap, base = column // 4, column % 4

    turned = [triton.load(ref.at[sequence]) != 0 for ref in turned_refs]
    weights, poison = [], jnp.zeros((block,), jnp.float32)
    for start in starts:
        values = triton.load(
            kernel_ref.at[(start + tap)[:, None], base[:, None], own[None, :]],
            mask=(start + tap < width)[:, None] & (own < filters)[None, :],
            other=0.0,
        ).astype(jnp.float32)
        weights.append(_split(values, 1 if kernel_ref.dtype == jnp.bfloat16 else 3))
        poison += jnp.sum(values * 0.0, axis=0)  # NaN where a weight is not finite

    def fold(number: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        best, *ends = carry
        position = number * tile + jnp.arange(tile)
        scores = jnp.zeros((tile, block), jnp.float32)
        packed = [jnp.zeros((tile,), jnp.int32)] * words
        for start, parts in zip(starts, weights, strict=True):
            place = position[:, None] + (start + tap)[None, :]
            exists = place < length
            for other in turned:
                place = jnp.where(other, length - 1 - place, place)
            codes = triton.load(
                codes_ref.at[sequence, place], mask=exists, other=jnp.uint8(UNKNOWN)
            ).astype(jnp.int32)
            for other in turned:
                codes = jnp.where(other & (codes < 4), 3 - codes, codes)
            uniform = jnp.where(codes == UNIFORM, 0.25, 0.0)
            has_base = jnp.where(codes == base[None, :], 1.0, uniform).astype(jnp.bfloat16)
            # From the smallest part to the largest, which loses least.
            for part in reversed(parts):
                scores += jnp.dot(has_base, part, preferred_element_type=jnp.float32)
            for word in range(start // CODES_PER_WORD, min(words, word_count(start + TAPS))):
                digit = start + tap - word * CODES_PER_WORD
                its = (base == 0) & (start + tap < width) & (digit >= 0) & (digit < CODES_PER_WORD)
                shifted = codes << (CODE_BITS * jnp.where(its, digit, 0))[None, :]
                packed[word] += jnp.sum(jnp.where(its[None, :], shifted, 0), axis=1)
        scores = jnp.where((position < positions)[:, None], scores, -jnp.inf)
        top = jnp.max(scores, axis=0)
        wins = scores == top[None, :]
        new_ends = []
        for i, end in enumerate(ends):
            least = i % 2 == 0
            of_wins = jnp.where(wins, packed[i // 2][:, None], NO_WINDOW[i % 2])
            new = jnp.min(of_wins, axis=0) if least else jnp.max(of_wins, axis=0)
            both = jnp.minimum(end, new) if least else jnp.maximum(end, new)
            new_ends.append(jnp.where(top > best, new, jnp.where(top == best, both, end)))
        return jnp.maximum(best, top), *new_ends

    nothing = jnp.full((block,), -jnp.inf, jnp.float32)
    no_windows = [jnp.full((block,), end, jnp.int32) for end in NO_WINDOW * words]
    best, *ends = lax.fori_loop(0, pl.cdiv(positions, tile), fold, (nothing, *no_windows))
    windows = ends[::2]
    tied = reduce(jnp.logical_or, map(jnp.not_equal, windows, ends[1::2]))
    return best + poison, windows, tied


def store_windows(windows_ref: jax.Ref, own: Array, windows: list[Array], tied: Array) -> None:
    """Stores what `best_windows` returns of windows in [halves, filters, batch] uint16."""
    for half in range(windows_ref.shape[0]):
        values = windows[half // 2] >> HALF_BITS * (half % 2) & (1 << HALF_BITS) - 1
        if half == 0:
            values = jnp.where(tied, values | TIED, values)
        place = windows_ref.at[half, own, pl.program_id(0)]
        triton.store(place, values.astype(jnp.uint16), mask=own < windows_ref.shape[1])


def _scan_sequence(*refs: jax.Ref, block: int) -> None:
    """One sequence and a block of filters.

    Args:
        refs: in this order,
            codes: [batch, length] uint8, the input;
            kernel: [width, 4, filters] float, the input;
            turned: [batch] uint8, the input if there are `Strands`;
            best: [filters, batch] float32, output;
            windows: [halves, filters, batch] uint16, output.
        block: filters of this block, a power of two.
    """
    codes_ref, kernel_ref, *turned_refs, best_ref, windows_ref = refs
    own = pl.program_id(1) * block + jnp.arange(block)
    best, windows, tied = best_windows(codes_ref, kernel_ref, turned_refs, own)
    triton.store(best_ref.at[own, pl.program_id(0)], best, mask=own < best_ref.shape[0])
    store_windows(windows_ref, own, windows, tied)


def block_of(filters: int) -> int:
    """Filters of a block of threads: a power of two."""
    return min(MOST_FILTERS, max(LEAST, pl.next_power_of_2(filters)))


def stored_windows(width: int, filters: int, batch: int) -> jax.ShapeDtypeStruct:
    """Shape and type of the packed windows in memory."""
    return jax.ShapeDtypeStruct((pl.cdiv(width, CODES_PER_HALF), filters, batch), jnp.uint16)


def costs(flops_of_block: int) -> dict[str, str]:
    """What stays of it in the compiled program, which keeps no cost estimate of such kernels."""
    return {"flops_of_block": str(flops_of_block)}


def _scan(interpret: bool, codes: Array, kernel: Array, *turned: Array) -> list[Array]:
    (batch, length), (width, bases, filters) = codes.shape, kernel.shape
    block = block_of(filters)
    return pl.pallas_call(
        partial(_scan_sequence, block=block),
        grid=(batch, pl.cdiv(filters, block)),
        out_shape=[
            jax.ShapeDtypeStruct((filters, batch), jnp.float32),
            stored_windows(width, filters, batch),
        ],
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=1),
        metadata=costs(2 * (length - width + 1) * width * bases * block),
        interpret=interpret,
        name="motif_scan",
    )(codes, kernel, *turned)


def _on_gpu(kernel: Callable[..., list[Array]], *arrays: Array) -> list[Array]:
    # jax 0.12 wants to know the GPU's generation, and knows few of those that are not there. The
    # kernel is the same for all: XLA compiles it for the GPU that it will run on.
    mesh, known = (
        jax.sharding.get_abstract_mesh(),
        jax.sharding.AbstractDevice("NVIDIA A100", None, "gpu"),
    )
    with jax.sharding.use_abstract_mesh(mesh.update(abstract_device=known)):
        return kernel(False, *arrays)


def launch(kernel: Callable[..., list[Array]], *arrays: Array) -> list[Array]:
    """Returns what a kernel makes of arrays.

    Args:
        kernel: (whether it is interpreted, *arrays) -> results.
        arrays: of `kernel`.
    """
    # Off NVIDIA's GPUs a kernel is interpreted, which is slow and for tests. That branch also comes
    # first: the results belong to its mesh, which is that of the context.
    interpreted = partial(kernel, True)
    return lax.platform_dependent(
        *arrays, cpu=interpreted, cuda=partial(_on_gpu, kernel), default=interpreted
    )


def arrays_of(codes: Array | Strands) -> list[Array]:
    """The codes as a kernel takes them, and of `Strands` which are turned, uint8."""
    if isinstance(codes, Strands):
        return [codes.codes, codes.turned.astype(jnp.uint8)]
    return [codes]


def suits(device: jax.sharding.AbstractDevice) -> bool:
    """Whether the kernel has been compiled for such a device."""
    return triton is not None and any(kind in device.device_kind for kind in KINDS)


def fits(kernel: Array) -> bool:
    """Whether the kernel has been compiled for filters of this width."""
    return kernel.shape[0] <= MOST_WIDTH


def search(codes: Array | Strands, kernel: Array) -> tuple[Array, Array, Array]:
    """Finds each filter's best window in each sequence.

    The compiler cannot divide a kernel over devices by itself: this is for one device, or for
    inside `shard_map`.

    Args:
        codes: [batch, length] uint8, or `Strands`.
        kernel: [width, 4, filters] float.

    Returns:
        The best score [filters, batch] float32; the window that has it, packed, [halves, filters,
        batch] uint16; and whether a different window has it too, [filters, batch] bool. Where that
        is so, the window itself means nothing.
    """
    own, *turned = arrays_of(codes)
    best, windows = launch(_scan, own, kernel, *turned)
    return best, windows, windows[0] >= TIED


def winners_gradient(windows: Array, gradient: Array, width: int) -> Array:
    """Gradient of the kernel from one window per sequence and filter.

    Args:
        windows: [halves, filters, batch] uint16, as `search` returns them.
        gradient: [filters, batch] float32, of the best scores.
        width: bases in a window.

    Returns:
        [width, 4, filters] float32.
    """
    tap = jnp.arange(width)[:, None, None]
    words = windows[0]
    for half in range(1, len(windows)):
        words = jnp.where(tap < half * CODES_PER_HALF, words, windows[half])
    bases = words >> (CODE_BITS * (tap % CODES_PER_HALF)) & (1 << CODE_BITS) - 1
    return jnp.sum(one_hot(bases, axis=1) * gradient, axis=3)
