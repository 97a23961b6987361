"""Records that belong into one split: near-copies, and sequences whose names overlap."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.duplicates import find_duplicates
from jaxdna.data.neighbours import overlap_groups

# chr1:0-200, chr1:0-200(+), peak7::chr1:0-200, chr1_0_200
_PLACE = re.compile(r"(?:.*::)?(.+?)(?::(\d{1,12})-|_(\d{1,12})_)(\d{1,12})(?:\([+.-]\))?")


@dataclass(frozen=True)
class Relation:
    """Why some records belong together.

    Attributes:
      groups: int64 [records], equal for records that do, directly or through others.
      how: as a sentence goes on that begins with the number of such sequences.
    """

    groups: NDArray[np.int64]
    how: str

    def leaks(self, split: NDArray[np.integer]) -> bool:
        """Returns whether some of them are in different splits; see `notes`."""
        inside = split >= 0
        groups = self.groups[inside]
        return bool(find_duplicates(groups, split[inside], np.zeros_like(groups)).across)

    def notes(
        self,
        split: NDArray[np.integer],
        alone: NDArray[np.integer] | None,
        ids: Sequence[str],
    ) -> list[str]:
        """Returns a sentence about those that stay in one split, or about those that do not.

        Args:
          split: integer [records]; a record of a negative one is in none.
          alone: the same, as it would be without any relation; None where it is as it is.
          ids: the records' names.
        """
        inside = np.flatnonzero(split >= 0)
        groups = np.unique(self.groups[inside], return_inverse=True)[1]
        sizes = np.bincount(groups, minlength=1)
        together = sizes[sizes > 1]
        across = find_duplicates(groups, split[inside], np.zeros_like(groups))
        if across.across:
            shown = ", ".join(
                f"'{ids[inside[one]]}' and '{ids[inside[other]]}'" for one, other in across.examples
            )
            why = "" if alone is None else "; kept together, they would leave too few for a split"
            return [
                f"{across.across} sequences {self.how} in another split ({shown}{why}): the score "
                "may be too good"
            ]
        if not together.size:
            return []
        note = (
            f"{together.sum()} sequences {self.how} and stay in the same split "
            f"({together.size} families; the largest has {together.max()}"
        )
        if alone is not None:
            apart = find_duplicates(self.groups, alone, np.zeros_like(self.groups)).across
            note += f"; with --config.data.similarity=0, {apart} sequences are in two splits"
        return [f"{note})"]


def named_overlaps(ids: Sequence[str], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Groups records whose names are places on a genome that overlap, directly or through others.

    A name counts as a place if it looks like one and is as long as its sequence, whether the file
    counts from 0, as bedtools does, or from 1, as samtools does.

    Args:
      ids: the records' names.
      lengths: int64 [records], bases before any padding or cropping.

    Returns:
      int64 [records], equal for records of one group.
    """
    records, chromosomes, starts, stops = [], [], [], []
    for record, (name, length) in enumerate(zip(ids, lengths.tolist(), strict=True)):
        place = _PLACE.fullmatch(name)
        if place is None:
            continue
        start, stop = int(place[2] or place[3]), int(place[4])
        from_one = stop - start + 1 == length
        if from_one or stop - start == length:
            records.append(record)
            chromosomes.append(place[1])
            starts.append(start - from_one)
            stops.append(stop)
    # Places first, as `overlap_groups` has them.
    order = np.concatenate([records, np.setdiff1d(np.arange(len(ids)), records)]).astype(np.int64)
    none = np.arange(0)
    spans = (
        np.array(chromosomes, dtype=str),
        np.array(starts, np.int64),
        np.array(stops, np.int64),
    )
    groups = np.empty(len(ids), dtype=np.int64)
    groups[order] = overlap_groups(*spans, (none, none), len(ids))[0]
    return groups
