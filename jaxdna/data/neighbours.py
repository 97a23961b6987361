"""Windows of a genome that share bases: a leak where they are in two splits."""

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.components import components


def overlap_groups(
    chromosomes: NDArray[np.str_],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    partners: tuple[NDArray[np.int64], NDArray[np.int64]],
    records: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Groups windows that overlap, directly or through others between them.

    Args:
      chromosomes: text [windows].
      starts: int64 [windows], first base of each, from 0.
      stops: int64 [windows], the base behind its last one.
      partners: two of int64 [pairs]: records that belong together for another reason.
      records: how many there are; the windows are the first ones.

    Returns:
      int64 [records], the group of each; and bool [windows], whether it overlaps another one.
    """
    order = np.lexsort((starts, chromosomes))
    one, other = order[:-1], order[1:]
    same = chromosomes[one] == chromosomes[other]
    # How far the windows up to each one reach: the chromosomes one behind the other.
    shift = np.concatenate([[0], np.cumsum(~same)]) * (stops.max(initial=0) + 1)
    reach = np.maximum.accumulate(stops[order] + shift)[:-1] - shift[:-1]
    near = same & (starts[other] < reach)
    overlapping = np.zeros(starts.size, dtype=bool)
    overlapping[other[near]] = True
    overlapping[one[same & (starts[other] < stops[one])]] = True
    edges = np.concatenate([one[near], partners[0]]), np.concatenate([other[near], partners[1]])
    return components(*edges, records), overlapping
