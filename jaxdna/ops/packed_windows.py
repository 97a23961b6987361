"""Windows of bases packed into integers, so that a winning window is kept instead of its place.

A word is an int32 with ten codes of three bits, the first code in the lowest bits. The two bits
above them are free.
"""

import jax.numpy as jnp
from jax import Array

CODE_BITS = 3
CODES_PER_WORD = 10


def word_count(width: int) -> int:
    """Words that a window of `width` bases takes."""
    return -(-width // CODES_PER_WORD)


def unpack(words: Array, width: int) -> list[Array]:
    """The codes of packed windows.

    Args:
        words: [words, ...] int32.
        width: bases in a window.

    Returns:
        For each word its codes, [10, ...] int32, the last one fewer: `width` in all. They are
        apart because a compiler joins them in memory and fuses them as they are.
    """
    shifts = (CODE_BITS * jnp.arange(CODES_PER_WORD)).reshape(-1, *[1] * (words.ndim - 1))
    mask = (1 << CODE_BITS) - 1
    starts = range(0, width, CODES_PER_WORD)
    return [
        word >> shifts[: width - start] & mask for word, start in zip(words, starts, strict=True)
    ]
