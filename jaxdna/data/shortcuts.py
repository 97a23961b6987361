"""What tells the classes apart without any motif: length, unknown letters, GC content.

A network finds such a shortcut before it finds a motif, and the score then says nothing about
binding. Each property alone is taken as a classifier, whose AUROC should be that of chance.
"""

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.negatives import gc_fraction
from jaxdna.data.sequences import UNKNOWN, Codes
from jaxdna.tasks.metrics import auroc

MUCH = 0.1  # AUROC off 0.5: the property alone ranks more than 6 of 10 pairs rightly
_ERRORS = 3.0  # standard errors: among few sequences chance alone goes beyond MUCH
_CHUNK_BASES = 64 * 2**20
_WARNINGS = {
    "length": "{found}, and padding shows the length to the network: the score may be too good "
    "(--config.data.lengths=center_crop, or negatives of the same lengths)",
    "share of N": "{found}: the score may be too good (negatives from the same kind of sequence)",
    "GC content": "{found}, which may be biology: negatives=gc_matched (with data.bed) or "
    "dinucleotide_shuffle show what remains without it",
}


def shortcut_notes(
    codes: Codes, labels: NDArray[np.int32], lengths: NDArray[np.int64], padded: bool
) -> list[str]:
    """Returns a sentence for each property that alone tells the classes apart.

    Args:
      codes: uint8 [records, length], what the network sees.
      labels: int32 [records], 1 for bound.
      lengths: int64 [records], bases before any padding or cropping.
      padded: whether shorter sequences are padded, which shows their lengths.
    """
    width = codes.shape[1]
    bases = np.minimum(lengths, width)
    unknown, gc = np.empty(len(labels), dtype=np.int64), np.empty(len(labels))
    rows = max(1, _CHUNK_BASES // max(1, width))
    for first in range(0, len(labels), rows):
        part = slice(first, first + rows)
        unknown[part] = np.count_nonzero(codes[part] >= UNKNOWN, axis=1)
        gc[part] = gc_fraction(codes[part])
    values = {
        "length": bases if padded else np.zeros(len(labels)),
        "share of N": (unknown - (width - bases)) / np.maximum(bases, 1),
        "GC content": gc,
    }
    bound = int(labels.sum())
    # Of the Mann-Whitney statistic where the property says nothing.
    pairs = max(1, bound * (len(labels) - bound))
    limit = max(MUCH, _ERRORS * np.sqrt((len(labels) + 1) / 12 / pairs))
    notes = []
    for name, value in values.items():
        area = auroc(labels, value)
        if area is not None and abs(area - 0.5) > limit:
            found = f"the {name} alone tells the classes apart with AUROC {max(area, 1 - area):.2f}"
            notes.append(_WARNINGS[name].format(found=found))
    return notes
