"""Each filter's best window in each sequence, as float64 sees it.

The devices scan in float32 and name a window wherever no other comes near its score. Sequences with
repeats have several that do, and rounding must not pick among them: their scores are added up again
in float64, tap by tap from the first, so that equal windows have equal scores wherever they lie.

Of windows that tie, the first counts: on the forward strand before the other, and along each strand
in its own direction.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from jaxdna.data.sequences import ONE_HOT_ROWS, Codes, reverse_complement
from jaxdna.ops.motif_scan import best_windows
from jaxdna.progress import counted
from jaxdna.runs.trained import Trained

_BATCH = 64
_CHUNK_NUMBERS = 2**18  # what stays in a core's cache


@dataclass(frozen=True)
class Windows:
    """Each filter's best window in each sequence, over both strands.

    Attributes:
      activation: float64 [sequences, filters], after ReLU.
      start: int32 [sequences, filters], first base of the window on the forward strand.
      reverse: bool [sequences, filters], whether the window is read on the other strand.
      width: bases of a window.
    """

    activation: NDArray[np.float64]
    start: NDArray[np.int32]
    reverse: NDArray[np.bool_]
    width: int


def find_windows(trained: Trained, codes: Codes, both_strands: bool = True) -> Windows:
    """Returns each filter's best window in each sequence; of equal ones the first.

    Args:
      trained: a network that begins with a motif scan.
      codes: uint8 [sequences, length].
      both_strands: look at the other strand too, as a network that averages both does.
    """
    filters = trained.filters
    if not filters:
        raise ValueError("the network has no filters to look at")
    kernel, bias = np.asarray(filters.kernel[...]), np.asarray(filters.bias[...])
    strands = [codes, reverse_complement(codes)] if both_strands else [codes]
    title = "looking for the filters' best windows"
    (score, start), *others = [scan(one, kernel) for one in counted(title, strands, len(strands))]
    reverse = np.zeros(score.shape, dtype=bool)
    for other, other_start in others:
        reverse = other > score
        turned = codes.shape[1] - len(kernel) - other_start
        score, start = np.maximum(score, other), np.where(reverse, turned, start)
    return Windows(np.maximum(score + bias.astype(np.float64), 0), start, reverse, len(kernel))


def scan(
    codes: Codes, kernel: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Scores every filter against every window of one strand.

    Args:
      codes: uint8 [sequences, length].
      kernel: [width, 4, filters] float.

    Returns:
      The best score of each filter in each sequence, without bias, float64 [sequences, filters];
      and the first base of the first window that has it, int32 [sequences, filters].
    """
    start, sure = _candidates(codes, kernel)
    score = np.empty(start.shape, dtype=np.float64)
    by_base = np.einsum("cb,wbf->fwc", ONE_HOT_ROWS.astype(np.float64), kernel.astype(np.float64))
    width, positions = len(kernel), codes.shape[1] - len(kernel) + 1
    for number, taps in counted("adding up", enumerate(by_base), len(by_base)):
        for rows in _chunks(np.flatnonzero(sure[:, number]), width):
            places = start[rows, number, None] + np.arange(width)
            score[rows, number] = _add_up(codes[rows[:, None], places], taps)
        for rows in _chunks(np.flatnonzero(~sure[:, number]), positions):
            scores = _add_up(sliding_window_view(codes[rows], positions, axis=1), taps)
            best = scores.argmax(axis=1)
            start[rows, number] = best
            score[rows, number] = scores[np.arange(len(rows)), best]
    return score, start


def _candidates(
    codes: Codes, kernel: NDArray[np.floating]
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Returns a window whose float32 score is near the best, and whether it is alone there."""
    batches = -(-len(codes) // _BATCH)
    rows = np.minimum(np.arange(batches * _BATCH), len(codes) - 1)
    stacked = codes[rows].reshape(batches, _BATCH, -1)
    # A sum of n terms is off by n halves of a rounding of their absolute values at most, whatever
    # its order; two of them are compared.
    largest = np.abs(kernel).max(axis=1).sum(axis=0)
    rounding = np.finfo(np.float32).eps * 4 * len(kernel) * largest
    found = _scan_batches(jnp.asarray(stacked), jnp.asarray(kernel), jnp.asarray(rounding))
    start, alone = (np.array(part).reshape(len(rows), -1)[: len(codes)] for part in found)
    return start, alone


@jax.jit
def _scan_batches(codes: jax.Array, kernel: jax.Array, rounding: jax.Array) -> tuple:
    return lax.map(lambda rows: best_windows(rows, kernel, rounding), codes)


def _chunks(rows: NDArray[np.intp], each: int) -> Iterator[NDArray[np.intp]]:
    """Cuts rows of `each` numbers so that few are held at once."""
    size = max(1, _CHUNK_NUMBERS // each)
    return (rows[first : first + size] for first in range(0, len(rows), size))


def _add_up(codes: Codes, taps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adds up taps [width, codes of bases] over axis 1 of codes [rows, width, ...], in order."""
    return sum(by_code[codes[:, i]] for i, by_code in enumerate(taps))
