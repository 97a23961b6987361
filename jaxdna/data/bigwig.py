"""bigWig, the track that genome browsers read: what a bedGraph holds, compressed and indexed."""

from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from jaxdna.data.prediction_files import appears_whole
from jaxdna.errors import UserError


class _Spans:
    """Takes bedGraph lines as a file does; keeps start, stop and value by chromosome.

    The types are C's long and double, the ones that pyBigWig takes as arrays.
    """

    def __init__(self) -> None:
        self.columns: dict[str, tuple[array, array, array]] = {}

    def write(self, text: str) -> None:
        for line in text.split("\n")[:-1]:
            name, *fields = line.split("\t")
            columns = self.columns.setdefault(name, (array("l"), array("l"), array("d")))
            for column, kind, field in zip(columns, (int, int, float), fields, strict=True):
                column.append(kind(field))


@contextmanager
def open_bigwig(path: str, sizes: Mapping[str, int]) -> Iterator[_Spans]:
    """Opens a bigWig to which bedGraph lines are written, in any order of the chromosomes.

    All spans are held, 24 bytes each, since the file wants its chromosomes sorted by name.

    Args:
      path: the file, which appears whole if nothing fails.
      sizes: bases of each chromosome; may be filled until the end.

    Raises:
      UserError: it cannot be written, or two chromosomes have one name.
    """
    import pyBigWig

    spans = _Spans()
    with appears_whole(path) as partial:
        yield spans
        try:
            _write(pyBigWig.open(str(partial), "w"), path, sizes, spans)
        except RuntimeError as error:  # whatever the library meets, a full disk first of all
            cause = " ".join(str(error).split())
            raise UserError(f"--output={path} cannot be written ({cause})") from error


def _write(file: Any, path: str, sizes: Mapping[str, int], spans: _Spans) -> None:
    file.addHeader(sorted(sizes.items()))
    for name, columns in sorted(spans.columns.items()):
        starts, stops, values = (np.array(column) for column in columns)
        if (starts[1:] < stops[:-1]).any() or stops[-1] > sizes[name]:
            raise UserError(
                f"--output={path}: two records are called '{name}', but each name may be in a "
                "track only once; rename one, or write .bed"
            )
        file.addEntries([name] * len(starts), starts, ends=stops, values=values)
    file.close()
