"""Sequences to attribute: of a FASTA file, of windows on a genome, or of variants' alleles."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxdna.data.fasta import read_fasta_blocks
from jaxdna.data.genome import Genome
from jaxdna.data.intervals import Windows, place_windows, read_intervals, read_windows
from jaxdna.data.records import Records, check_minimum, fit_length
from jaxdna.data.sequence_stats import SequenceStats
from jaxdna.data.sequences import Codes
from jaxdna.data.streams import display
from jaxdna.data.variants import MISMATCH, read_variants, shorten
from jaxdna.runs.trained import Trained

Blocks = Iterator[tuple[Sequence[str], Codes]]

_VARIANTS_AT_ONCE = 256


def fitted_blocks(trained: Trained, blocks: Iterable[Records], where: str) -> Blocks:
    """Yields records with lengths as in training.

    All have one length: that of training, or, where the network reads any and lengths are taken as
    they are, that of the first record.

    Args:
      trained: the network.
      blocks: the records.
      where: what the user gave them by.

    Raises:
      UserError: a sequence has a length that is not mended.
    """
    policy, length = trained.config.data.get("lengths", "error"), 0
    for block in filter(len, blocks):
        if trained.scan:
            check_minimum(block, trained.width, where)
        own = trained.scan and policy == "error"
        length = length or (int(block.lengths[0]) if own else trained.length)
        yield block.ids, fit_length(block, length, policy, where, trained.width)


def fasta_blocks(trained: Trained, path: str | Path, stats: SequenceStats) -> Blocks:
    """Yields the records of a FASTA file, with lengths and letters as in training.

    Raises:
      UserError: the file is wrong, or a sequence has a length that is not mended.
    """
    ambiguous = trained.config.data.get("ambiguous", "zero")
    return fitted_blocks(trained, read_fasta_blocks(path, ambiguous, stats), display(path))


def windows_of(trained: Trained, path: str, genome: Genome) -> tuple[Windows, list[str]]:
    """Returns a window of the length of training for each interval of a BED file, and notes.

    Raises:
      UserError: the file is wrong, or the genome does not fit it.
    """
    intervals = read_intervals(path)
    windows = place_windows(intervals, genome, trained.length, display(path))
    return windows, [*intervals.notes(), *windows.notes()]


def window_blocks(windows: Windows, genome: Genome) -> Blocks:
    """Yields what the genome has in the windows, in order."""
    for records in read_windows(windows, genome):
        yield records.ids, records.codes.reshape(len(records), windows.length)


def variant_blocks(
    trained: Trained,
    path: str,
    genome: Genome,
    skipped: Callable[[str], None],
    noted: Callable[[str], None],
) -> Blocks:
    """Yields two sequences of each allele of a VCF file: with the reference allele, and with it.

    Args:
      trained: has the length of the windows.
      path: of the VCF file.
      genome: that it refers to.
      skipped: is told which allele has no windows, and why.
      noted: is told of which allele that has some the reference is not the genome's.
    """
    ids: list[str] = []
    held: list[Codes] = []
    for variant in read_variants(path, genome, trained.length):
        place = f"{variant.chromosome}:{variant.position}"
        change = f"{shorten(variant.reference)}>{shorten(variant.alternative)}"
        if variant.reference_codes is None or variant.alternative_codes is None:
            skipped(f"{place}:{change}, {variant.note}")
            continue
        if variant.note.startswith(MISMATCH):
            noted(f"{place}:{change}, {variant.note}")
        ids += [
            f"{place}:{variant.reference}",
            f"{place}:{variant.reference}>{variant.alternative}",
        ]
        held += [variant.reference_codes, variant.alternative_codes]
        if len(ids) >= _VARIANTS_AT_ONCE:
            yield ids, np.stack(held)
            ids, held = [], []
    if ids:
        yield ids, np.stack(held)
