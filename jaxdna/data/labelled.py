"""Sequences with their classes: FASTA by class, intervals on a genome, or a table."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from jaxdna.data.code_store import cache_folder, find_or_make
from jaxdna.data.dataset import Input
from jaxdna.data.digests import check_unchanged, file_digest
from jaxdna.data.fasta import read_fasta_blocks
from jaxdna.data.genome import Genome
from jaxdna.data.intervals import Windows, place_windows, read_intervals, read_windows
from jaxdna.data.near_copies import near_copies
from jaxdna.data.negatives import gc_fraction, gc_matched
from jaxdna.data.neighbours import overlap_groups
from jaxdna.data.records import Records
from jaxdna.data.sequences import Codes
from jaxdna.data.shuffle import shuffle_records
from jaxdna.data.store_writer import KEYS, StoreWriter
from jaxdna.data.streams import read_blocks
from jaxdna.data.tables import read_table
from jaxdna.errors import UserError

FAMILIES = "families"  # the column of near-copies
SHUFFLE, GC_MATCHED = "dinucleotide_shuffle", "gc_matched"
WINDOW_BASES = 500  # length of a window around an interval where the user names none
_WAYS = (
    "legal: --config.data.positives=A.fa --config.data.negatives=B.fa, or "
    "--config.data.bed=X.bed --config.data.genome=G.fa, or --config.data.table=T.tsv"
)


@dataclass(frozen=True)
class Labelled:
    """Sequences of one length with their classes.

    Attributes:
      codes: uint8 [records, length], memory-mapped.
      labels: int32 [records], 1 for bound.
      ids: makes the records' names, in order.
      inputs: the files that were read.
      notes: sentences about them.
      groups: integer [records]; records of one group must stay in one split. None: no groups.
      chromosomes: text [records]; None where they are not known.
      lengths: int64 [records], bases before any padding or cropping.
      keys: uint64 [records], the same where the files have the same sequence on either strand.
    """

    codes: Codes
    labels: NDArray[np.int32]
    ids: Callable[[], Sequence[str]]
    inputs: list[Input]
    notes: list[str]
    groups: NDArray[np.int64] | None
    chromosomes: NDArray[np.str_] | None
    lengths: NDArray[np.int64]
    keys: NDArray[np.uint64]
    families: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class _Source:
    """What a store is filled from.

    Attributes:
      inputs: the files, whose digests tell whether they have changed.
      parts: names of the store's parts, in order.
      key: what else decides its content.
      fill: writes it.
      length: bases of each sequence; 0 as the files have it.
    """

    inputs: list[str]
    parts: list[str]
    key: list[Any]
    fill: Callable[[StoreWriter], None]
    length: int = 0


def read_labelled(config: ConfigDict) -> Labelled:
    """Reads the files of `config.data` without splitting them, through their code store.

    Raises:
      UserError: a file or a setting is wrong, or they do not fit each other.
    """
    data = config.data
    _check_settings(data)
    source = (_table if data.table else _intervals if data.bed else _fasta)(config)
    cache = cache_folder(config.runtime.data_cache)
    memory = cache / "digests"
    inputs = [Input(path, file_digest(path, memory)) for path in source.inputs]
    digests = {one.path: one.sha256 for one in inputs}
    if len({digests.get(part, part) for part in source.parts}) < len(source.parts):
        raise UserError(
            f"--config.data.{'bed' if data.bed else 'positives'}={source.parts[0]} and "
            f"--config.data.negatives={source.parts[1]} hold the same bytes; legal: bound "
            "sequences in one and unbound ones in the other"
        )
    key = [[one.sha256 for one in inputs], source.key, data.ambiguous, data.similarity]
    width = config.model.get("width", 1)

    def fill(writer: StoreWriter) -> None:
        source.fill(writer)
        for one in inputs:  # else the store would keep under these digests what is not theirs
            check_unchanged(one.path, one.sha256, memory)
        if data.similarity:
            writer.add_made_column(FAMILIES, lambda codes: near_copies(codes, data.similarity))

    store = find_or_make(key, cache, fill, data.lengths, source.length, width)
    store.check_minimum(width, source.parts)
    notes = [
        f"{part}: {note}"
        for part, notes in zip(source.parts, store.notes, strict=True)
        for note in notes
    ]
    columns = store.columns
    if "labels" not in columns:
        columns["labels"] = np.repeat(np.array([1, 0], np.int32), store.counts)
    if not (data.test_chroms or data.split_table):
        notes += _overlap_notes(columns, source.length)
    return Labelled(
        store.codes,
        columns["labels"],
        lambda: store.ids,
        inputs,
        notes,
        columns.get("groups"),
        columns.get("chromosomes"),
        store.lengths,
        columns[KEYS],
        columns.get(FAMILIES),
    )


def _check_settings(data: Any) -> None:
    given = [key for key in ("positives", "bed", "table") if data[key]]
    if len(given) != 1:
        shown = " and ".join(f"--config.data.{key}={data[key]}" for key in given)
        raise UserError(f"{shown or 'no data'} given; {_WAYS}")
    for key, needs in (("genome", "bed"), ("valid_chroms", "bed"), ("test_chroms", "bed")):
        if data[key] and not data[needs]:
            raise UserError(f"--config.data.{key}={data[key]} needs --config.data.{needs} as well")
    if data.table:
        if data.negatives:
            raise UserError(
                f"--config.data.negatives={data.negatives} does not go with --config.data.table, "
                "whose rows have both classes; legal: one of them"
            )
        return
    if not data.negatives:
        legal = f"a FASTA file or {SHUFFLE}"
        if data.bed:
            legal = f"a BED or FASTA file, {SHUFFLE} or {GC_MATCHED}"
        raise UserError(f"--config.data.negatives is missing; legal: {legal}")
    if data.bed and not data.genome:
        raise UserError(f"--config.data.bed={data.bed} needs --config.data.genome, a FASTA file")
    drawn = (SHUFFLE, GC_MATCHED) if data.bed else (SHUFFLE,)
    close = get_close_matches(data.negatives, drawn, n=1, cutoff=0.5)
    if close and close != [data.negatives] and not Path(data.negatives).exists():
        raise UserError(
            f"--config.data.negatives={data.negatives} is no file; did you mean {close[0]}?"
        )
    if data.negatives == GC_MATCHED and not data.bed:
        raise UserError(
            f"--config.data.negatives={GC_MATCHED} draws from a genome and needs "
            "--config.data.bed and --config.data.genome; legal with data.positives: a FASTA file "
            f"or {SHUFFLE}"
        )


def _table(config: ConfigDict) -> _Source:
    data = config.data

    def fill(writer: StoreWriter) -> None:
        labels: list[NDArray[np.int32]] = []

        def blocks() -> Iterator[Records]:
            for rows in read_table(data.table, data.ambiguous):
                labels.append(rows.labels)
                yield rows.records

        writer.add(data.table, blocks())
        writer.add_column("labels", np.concatenate(labels))

    return _Source([data.table], [data.table], ["table"], fill, data.length)


def _fasta(config: ConfigDict) -> _Source:
    data = config.data
    shuffled = data.negatives == SHUFFLE

    def fill(writer: StoreWriter) -> None:
        writer.add(data.positives, read_fasta_blocks(data.positives, data.ambiguous))
        if shuffled:
            _add_shuffled(writer, config.seed)
            writer.add_column("groups", np.tile(np.arange(writer.counts[0]), 2))
        else:
            writer.add(data.negatives, read_fasta_blocks(data.negatives, data.ambiguous))

    inputs = [data.positives] if shuffled else [data.positives, data.negatives]
    key = ["fasta", SHUFFLE, config.seed] if shuffled else ["fasta"]
    return _Source(inputs, [data.positives, data.negatives], key, fill, data.length)


def _intervals(config: ConfigDict) -> _Source:
    data = config.data
    drawn = data.negatives in (SHUFFLE, GC_MATCHED)
    inputs = [data.bed, data.genome] + ([] if drawn else [data.negatives])
    return _Source(
        inputs,
        [data.bed, data.negatives],
        ["intervals", data.negatives, config.seed] if drawn else ["intervals"],
        lambda writer: _fill_intervals(writer, config),
        data.length or WINDOW_BASES,
    )


def _fill_intervals(writer: StoreWriter, config: ConfigDict) -> None:
    data, length = config.data, config.data.length or WINDOW_BASES
    genome = Genome(data.genome, data.ambiguous, config.runtime.data_cache)
    peaks = read_intervals(data.bed)
    bound = place_windows(peaks, genome, length, data.bed)
    writer.add(data.bed, read_windows(bound, genome), peaks.notes() + bound.notes())
    count = len(bound)
    partners = np.arange(0)  # the bound window that each unbound one was made for
    unbound: Windows | None = None  # where the unbound ones lie, if they lie somewhere of their own
    if data.negatives == SHUFFLE:
        _add_shuffled(writer, config.seed)
        partners = np.arange(count)
        writer.add_column("chromosomes", np.tile(bound.chromosomes, 2))
    elif data.negatives == GC_MATCHED:
        wanted = gc_fraction(writer.records().codes.reshape(count, length))
        matched = gc_matched(bound, wanted, genome, config.seed, peaks)
        partners, unbound = matched.partners, matched.windows
        writer.add(GC_MATCHED, read_windows(unbound, genome), matched.notes())
    elif _is_fasta(data.negatives):
        writer.add(data.negatives, read_fasta_blocks(data.negatives, data.ambiguous))
    else:
        others = read_intervals(data.negatives)
        unbound = place_windows(others, genome, length, data.negatives)
        notes = others.notes() + unbound.notes()
        writer.add(data.negatives, read_windows(unbound, genome), notes)
    chromosomes, starts = bound.chromosomes, bound.starts
    if unbound:
        chromosomes = np.concatenate([chromosomes, unbound.chromosomes])
        starts = np.concatenate([starts, unbound.starts])
        writer.add_column("chromosomes", chromosomes)
    pairs = partners, count + np.arange(partners.size)
    groups, overlapping = overlap_groups(
        chromosomes, starts, starts + length, pairs, sum(writer.counts)
    )
    writer.add_column("groups", groups)
    writer.add_column("overlapping", overlapping)


def _is_fasta(path: str) -> bool:
    head = next(read_blocks(path), b"").lstrip()
    return head.startswith((b">", b";"))


def _add_shuffled(writer: StoreWriter, seed: int) -> None:
    rng = np.random.default_rng([seed, 0x5F1E])
    writer.add_changed("_shuffled", lambda seqs, out, most: shuffle_records(seqs, rng, out, most))


def _overlap_notes(columns: dict[str, NDArray], length: int) -> list[str]:
    overlapping = columns.get("overlapping", np.zeros(0, dtype=bool))
    if not overlapping.any():
        return []
    return [
        f"{overlapping.sum()} of {overlapping.size} windows of {length} bases overlap another one "
        "and stay in one split with it, the largest group with "
        f"{np.bincount(columns['groups']).max()} records (--config.data.test_chroms splits by "
        "chromosome)"
    ]
