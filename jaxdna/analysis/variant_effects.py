"""What a variant does to the score: reference and alternative allele, each in its window."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from jaxdna.analysis.scorer import Scorer
from jaxdna.data.prediction_files import probabilities
from jaxdna.data.variants import Variant

_AT_ONCE, _AT_ONCE_BASES = 4096, 2**26
HEADER = (
    "chromosome\tposition\tid\treference\talternative\treference_probability\t"
    "alternative_probability\treference_logit\talternative_logit\tlogit_change\tnote\n"
)


@dataclass(frozen=True)
class ScoredVariants:
    """Some alleles with their scores.

    Attributes:
      variants: in the order of the file.
      reference: float32 [alleles], logit of the window with the reference allele, or NaN.
      alternative: float32 [alleles], the same with the alternative allele.
    """

    variants: list[Variant]
    reference: NDArray[np.float32]
    alternative: NDArray[np.float32]


def score_variants(variants: Iterable[Variant], scorer: Scorer) -> Iterator[ScoredVariants]:
    """Yields every allele with its scores, in order, many at a time."""
    remaining = iter(variants)
    at_once = max(1, min(_AT_ONCE, _AT_ONCE_BASES // scorer.length))
    while chunk := list(islice(remaining, at_once)):
        logits = np.full((2, len(chunk)), np.nan, dtype=np.float32)
        windows, there = [], []
        for row, variant in enumerate(chunk):
            if variant.reference_codes is not None and variant.alternative_codes is not None:
                windows += [variant.reference_codes, variant.alternative_codes]
                there.append(row)
        if windows:
            codes = np.concatenate(windows)
            length = windows[0].size
            starts = np.arange(len(windows), dtype=np.int64) * length
            positions = np.full(len(windows), length - scorer.width + 1)
            logits[:, there] = scorer.logits(codes, starts, positions).reshape(-1, 2).T
        yield ScoredVariants(chunk, logits[0], logits[1])


def variant_lines(scored: ScoredVariants) -> str:
    """Returns one line per allele, in the columns of `HEADER`; NA where there is no score."""
    columns: list[NDArray] = [
        probabilities(scored.reference),
        probabilities(scored.alternative),
        scored.reference,
        scored.alternative,
        scored.alternative - scored.reference,
    ]
    lines = []
    for variant, values in zip(scored.variants, np.stack(columns, 1).tolist(), strict=True):
        texts = ["NA" if value != value else f"{value:.6g}" for value in values]
        place = (variant.chromosome, str(variant.position), variant.id)
        alleles = (variant.reference, variant.alternative)
        lines.append("\t".join([*place, *alleles, *texts, variant.note]))
    return "".join(f"{line}\n" for line in lines)
