"""Scores of bases along a genome: windows that overlap make one track."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from jaxdna.analysis.attributed import Attributed
from jaxdna.data.intervals import Windows


class Track:
    """Collects the contributions of windows, in the order in which they are scored.

    All of them are held, four bytes a base: a genome browser wants its places sorted, and windows
    need not be.
    """

    def __init__(self, windows: Windows):
        """Takes where the windows lie."""
        self._windows, self._scores = windows, list[NDArray[np.float32]]()

    def add(self, part: Attributed) -> None:
        """Adds the next windows, scored for one answer."""
        for scores in part.contributions[:, 0]:
            minus = self._windows.reverse[len(self._scores)]
            self._scores.append(scores[::-1] if minus else scores)

    def lines(self) -> Iterator[str]:
        """Yields bedGraph lines, sorted; where windows overlap, the mean of their scores."""
        starts, length = self._windows.starts, self._windows.length
        names = self._windows.chromosomes
        for name in dict.fromkeys(sorted(names.tolist())):
            rows = np.flatnonzero(names == name)
            rows = rows[np.argsort(starts[rows], kind="stable")]
            apart = np.flatnonzero(np.diff(starts[rows]) > length) + 1
            for run in np.split(rows, apart):  # of windows that touch
                first = int(starts[run[0]])
                sums = np.zeros(int(starts[run[-1]]) + length - first)
                counts = np.zeros(sums.size)
                for row in run.tolist():
                    part = slice(int(starts[row]) - first, int(starts[row]) - first + length)
                    sums[part] += self._scores[row]
                    counts[part] += 1
                yield "".join(
                    f"{name}\t{place}\t{place + 1}\t{score:.6g}\n"
                    for place, score in enumerate((sums / counts).tolist(), first)
                )
