"""Which settings of the user's own files go together."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from jaxdna.data.targets import AUTO
from jaxdna.errors import UserError
from jaxdna.tasks.classes import Binary, Multiclass
from jaxdna.tasks.labels import Multilabel
from jaxdna.tasks.numbers import Counts, Regression

SHUFFLE, GC_MATCHED = "dinucleotide_shuffle", "gc_matched"
_WAYS = (
    "legal: --config.data.positives=A.fa --config.data.negatives=B.fa, or "
    "--config.data.bed=X.bed --config.data.genome=G.fa, or --config.data.table=T.tsv"
)

_NEEDS = (
    ("genome", "bed"),
    ("valid_chroms", "bed"),
    ("test_chroms", "bed"),
    ("tracks", "bed"),
    ("labels_in_headers", "positives"),
    ("targets", "table"),
    ("test_positives", "positives"),
    ("test_table", "table"),
)
_BY_CLASS: tuple[str, ...] = (AUTO, Binary.kind)
_NUMBERS: tuple[str, ...] = (Regression.kind, Counts.kind)


def check_settings(data: Any) -> None:
    """Raises UserError where the settings of `data` do not go together.

    Args:
      data: `config.data`, whose name is `fasta`.
    """
    _check_sources(data)
    _check_task(data)


def _check_sources(data: Any) -> None:
    given = [key for key in ("positives", "bed", "table") if data[key]]
    if len(given) != 1:
        shown = " and ".join(f"--config.data.{key}={data[key]}" for key in given)
        raise UserError(f"{shown or 'no data'} given; {_WAYS}")
    for key, needs in _NEEDS:
        if data[key] and not data[needs]:
            raise UserError(f"--config.data.{key}={data[key]} needs --config.data.{needs} as well")
    # Bound and unbound ones in files of their own, unless the headers say which is which.
    paired = not data.labels_in_headers
    if bool(data.test_negatives) != bool(data.test_positives and paired):
        raise UserError(
            f"--config.data.test_positives={data.test_positives} and --config.data.test_negatives="
            f"{data.test_negatives} go together; give both or neither"
        )
    if data.table:
        if data.negatives not in ("", SHUFFLE):
            raise UserError(
                f"--config.data.negatives={data.negatives} does not go with --config.data.table, "
                "whose rows have both classes; legal: one of them, or "
                f"negatives={SHUFFLE} where all rows are bound"
            )
        return
    if data.bed and not data.genome:
        raise UserError(f"--config.data.bed={data.bed} needs --config.data.genome, a FASTA file")
    if alone := next((key for key in ("tracks", "labels_in_headers") if data[key]), None):
        if data.negatives:
            raise UserError(
                f"--config.data.negatives={data.negatives} does not go with --config.data.{alone}, "
                "which has a target for each record; legal: one of them"
            )
        return
    if not data.negatives:
        legal = f"a FASTA file or {SHUFFLE}"
        if data.bed:
            legal = f"a BED or FASTA file, {SHUFFLE} or {GC_MATCHED}"
        raise UserError(f"--config.data.negatives is missing; legal: {legal}")
    drawn = (SHUFFLE, GC_MATCHED) if data.bed else (SHUFFLE,)
    close = get_close_matches(data.negatives, drawn, n=1, cutoff=0.5)
    if close and close != [data.negatives] and not Path(data.negatives).exists():
        raise UserError(
            f"--config.data.negatives={data.negatives} is not a file; did you mean {close[0]}?"
        )
    if data.negatives == GC_MATCHED and not data.bed:
        raise UserError(
            f"--config.data.negatives={GC_MATCHED} draws from a genome and needs "
            "--config.data.bed and --config.data.genome; legal with data.positives: a FASTA file "
            f"or {SHUFFLE}"
        )


def _check_task(data: Any) -> None:
    """Raises UserError where `data.task` is not what the files can say."""
    if data.tracks:
        source, legal = f"--config.data.tracks={data.tracks}", _NUMBERS
    elif data.labels_in_headers:
        source = "--config.data.labels_in_headers"
        legal = (*_BY_CLASS, Multiclass.kind, *_NUMBERS)
    elif data.table and data.negatives:
        source = f"--config.data.table with negatives={data.negatives}"
        legal = _BY_CLASS
    elif data.table:
        return _check_pairs(data)
    else:
        source, legal = "two sets of sequences, bound and unbound,", _BY_CLASS
    if data.task not in legal:
        others = ""
        if legal == _BY_CLASS and not data.table:
            others = ", or targets by --config.data.table, tracks or labels_in_headers"
        raise UserError(
            f"--config.data.task={data.task} does not go with {source}; legal: "
            f"{', '.join(legal)}{others}"
        )
    return _check_pairs(data)


def _check_pairs(data: Any) -> None:
    if data.strand_pairs and data.task not in (Multilabel.kind, *_NUMBERS):
        raise UserError(
            f"--config.data.strand_pairs={data.strand_pairs} does not go with "
            f"--config.data.task={data.task}; legal with it: multilabel, regression or counts"
        )
