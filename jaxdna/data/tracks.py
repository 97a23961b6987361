"""Targets of genome windows from tracks: what bigWig files say of them."""

import struct
from collections.abc import Callable, Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.genome import Genome, naming_hint
from jaxdna.data.intervals import Windows
from jaxdna.errors import UserError
from jaxdna.storage.fetched import local_path

_MAGIC = 0x888FFC26.to_bytes(4, "little")  # of either byte order
_HEADER_BYTES, _ZOOM_BYTES = 64, 24
STATISTICS: dict[str, Callable[[NDArray], Any]] = {"mean": np.mean, "sum": np.sum, "max": np.max}


def track_names(paths: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of tracks, those of their files without the suffix.

    Raises:
      UserError: two are called the same.
    """
    names = tuple(Path(path).stem for path in paths)
    for i, name in enumerate(names):
        if name in names[:i]:
            raise UserError(
                f"--config.data.tracks={','.join(paths)}: two tracks are called '{name}'; give "
                "files whose names differ"
            )
    return names


def read_tracks(
    paths: Sequence[str], windows: Windows, genome: Genome, statistic: str, bases: int
) -> NDArray[np.float32]:
    """Returns a number of each track for each window: float32 [windows, tracks].

    A base that a track says nothing of counts 0.

    Args:
      paths: bigWig files.
      windows: where; the strand does not matter.
      genome: that they lie on.
      statistic: a key of `STATISTICS`, over the window's bases.
      bases: in its middle that count; 0: all.

    Raises:
      UserError: a file is not a bigWig, or is one of another genome.
    """
    if find_spec("pyBigWig") is None:
        raise UserError(
            f"--config.data.tracks={','.join(paths)} needs pyBigWig; run pip install "
            "'jaxdna[bigwig]'"
        )
    width = bases or windows.length
    if width > windows.length:
        raise UserError(
            f"--config.data.track_bases={bases} is more than the {windows.length} bases of a "
            f"window; legal: 0 to {windows.length}"
        )
    starts = windows.starts + (windows.length - width) // 2
    return np.stack([_read(path, windows, starts, width, genome, statistic) for path in paths], 1)


def _read(
    path: str,
    windows: Windows,
    starts: NDArray[np.int64],
    width: int,
    genome: Genome,
    statistic: str,
) -> NDArray[np.float32]:
    import pyBigWig

    found, measure = np.empty(len(windows), np.float32), STATISTICS[statistic]
    try:
        at = str(local_path(path))
        _check_begin(at)
        with closing(pyBigWig.open(at)) as track:
            _require_same(path, track.chroms(), windows, genome)
            # One chromosome after the other: the file is read in order.
            for row in np.lexsort((starts, windows.chromosomes)).tolist():
                start = int(starts[row])
                name = str(windows.chromosomes[row])
                values = track.values(name, start, start + width, numpy=True)
                found[row] = measure(np.nan_to_num(values.astype(np.float64), nan=0.0))
    except RuntimeError as error:  # whatever the library meets
        cause = " ".join(str(error).split())
        raise UserError(
            f"--config.data.tracks: {path} cannot be read as a bigWig ({cause}); give a bigWig file"
        ) from error
    return found


def _check_begin(path: str) -> None:
    """Raises RuntimeError where a file does not begin as a bigWig, or ends before its index.

    The library tells stderr of the first more than once, and crashes on some of the second.
    """
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        head = file.read(_HEADER_BYTES)
    order = {_MAGIC: "<", _MAGIC[::-1]: ">"}.get(head[:4])
    if order is None:
        raise RuntimeError("it does not begin as a bigWig does")
    # Kent et al., BigWig and BigBed, Bioinformatics, 2010, supplement
    zooms, *places = struct.unpack_from(f"{order}HQQQ", head.ljust(_HEADER_BYTES, b"\0"), 6)
    if size < _HEADER_BYTES + zooms * _ZOOM_BYTES or max(places) >= size:
        raise RuntimeError(f"its {size:,} bytes are not the complete file")


def _require_same(path: str, sizes: dict[str, int], windows: Windows, genome: Genome) -> None:
    """Raises UserError where a track is not one of the genome."""
    for name, size in sizes.items():
        if genome.lengths.get(name, size) != size:
            raise UserError(
                f"--config.data.tracks: {path} has {size:,} bases of {name}, and {genome.path} "
                f"{genome.lengths[name]:,}; give a track of the same genome"
            )
    for name in dict.fromkeys(windows.chromosomes.tolist()):
        if name not in sizes:
            raise UserError(
                f"--config.data.tracks: {path} lacks chromosome {name}, on which windows lie; "
                + naming_hint(name, sizes)
            )
