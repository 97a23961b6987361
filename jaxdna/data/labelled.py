"""Sequences with their classes: FASTA by class, intervals on a genome, or a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from jaxdna.data.code_store import convert, default_cache, file_digest
from jaxdna.data.dataset import Input
from jaxdna.data.fasta import read_fasta
from jaxdna.data.genome import Genome
from jaxdna.data.intervals import read_intervals, read_windows
from jaxdna.data.negatives import gc_matched
from jaxdna.data.neighbours import overlap_groups
from jaxdna.data.records import Records, check_minimum, common_length, fit_length, join
from jaxdna.data.sequences import UNKNOWN, Codes
from jaxdna.data.shuffle import dinucleotide_shuffle, shuffle_records
from jaxdna.data.streams import read_blocks
from jaxdna.data.tables import read_table
from jaxdna.errors import UserError

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
      codes: uint8 [records, length], in memory or memory-mapped.
      labels: int32 [records], 1 for bound.
      ids: makes the records' names, in order.
      inputs: the files that were read.
      notes: sentences about them.
      groups: integer [records]; records of one group must stay in one split. None: no groups.
      chromosomes: text [records]; None where they are not known.
      lengths: int64 [records], bases before any padding or cropping; None where all have one.
    """

    codes: Codes
    labels: NDArray[np.int32]
    ids: Callable[[], Sequence[str]]
    inputs: list[Input]
    notes: list[str]
    groups: NDArray[np.int64] | None = None
    chromosomes: NDArray[np.str_] | None = None
    lengths: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)


def read_labelled(config: ConfigDict) -> Labelled:
    """Reads the files of `config.data` without splitting them.

    Raises:
      UserError: a file or a setting is wrong, or they do not fit each other.
    """
    data = config.data
    given = [key for key in ("positives", "bed", "table") if data[key]]
    if len(given) != 1:
        shown = " and ".join(f"--config.data.{key}={data[key]}" for key in given)
        raise UserError(f"{shown or 'no data'} given; {_WAYS}")
    for key, needs in (("genome", "bed"), ("valid_chroms", "bed"), ("test_chroms", "bed")):
        if data[key] and not data[needs]:
            raise UserError(f"--config.data.{key}={data[key]} needs --config.data.{needs} as well")
    if data.table and data.negatives:
        raise UserError(
            f"--config.data.negatives={data.negatives} does not go with --config.data.table, "
            "whose rows have both classes; legal: one of them"
        )
    if data.table:
        return _from_table(config)
    if not data.negatives:
        legal = f"a FASTA file or {SHUFFLE}"
        if data.bed:
            legal = f"a BED or FASTA file, {SHUFFLE} or {GC_MATCHED}"
        raise UserError(f"--config.data.negatives is missing; legal: {legal}")
    return _from_intervals(config) if data.bed else _from_fasta(config)


def _from_table(config: ConfigDict) -> Labelled:
    data = config.data
    table = read_table(data.table, data.ambiguous)
    codes, notes = _fit([table.records], [data.table], config)
    return Labelled(
        codes,
        table.labels,
        lambda: table.records.ids,
        [Input(data.table, file_digest(data.table))],
        notes,
        lengths=table.records.lengths,
    )


def _from_fasta(config: ConfigDict) -> Labelled:
    data = config.data
    if data.negatives == GC_MATCHED:
        raise UserError(
            f"--config.data.negatives={GC_MATCHED} draws from a genome and needs "
            "--config.data.bed and --config.data.genome; legal with data.positives: a FASTA file "
            f"or {SHUFFLE}"
        )
    if data.negatives == SHUFFLE:
        return _from_shuffled(config)
    paths = [data.positives, data.negatives]
    width = config.model.get("width", 1)
    store = convert(paths, _cache(config), data.ambiguous, data.lengths, data.length, width)
    if min(store.shortest) < width:
        _refuse_short(paths, config)
    return Labelled(
        store.codes,
        np.repeat(np.array([1, 0], np.int32), store.counts),
        lambda: store.ids,
        [Input(path, digest) for path, digest in zip(paths, store.digests, strict=True)],
        [
            f"{path}: {note}"
            for path, notes in zip(paths, store.notes, strict=True)
            for note in notes
        ],
        lengths=store.lengths,
    )


def _from_shuffled(config: ConfigDict) -> Labelled:
    data = config.data
    store = convert([data.positives], _cache(config), data.ambiguous, lengths="any")
    positives = store.records()
    negatives = shuffle_records(positives, np.random.default_rng([config.seed, 0x5F1E]))
    codes, notes = _fit([positives, negatives], [data.positives, SHUFFLE], config)
    count = len(positives)
    return Labelled(
        codes,
        np.repeat(np.array([1, 0], np.int32), count),
        lambda: [*positives.ids, *(f"{name}_shuffled" for name in positives.ids)],
        [Input(data.positives, store.digests[0])],
        [f"{data.positives}: {note}" for note in store.notes[0]] + notes,
        groups=np.tile(np.arange(count), 2),
        lengths=np.tile(store.lengths, 2),
    )


def _from_intervals(config: ConfigDict) -> Labelled:
    data = config.data
    if not data.genome:
        raise UserError(f"--config.data.bed={data.bed} needs --config.data.genome, a FASTA file")
    length = data.length or WINDOW_BASES
    genome = Genome(data.genome, data.ambiguous)
    peaks = read_intervals(data.bed)
    bound = read_windows(peaks, genome, length, data.bed)
    inputs = [Input(path, file_digest(path)) for path in (data.bed, data.genome)]
    notes = [f"{data.bed}: {note}" for note in bound.notes()]
    bound_ids = [peaks.ids[row] for row in bound.rows.tolist()]
    partners = np.arange(0)  # the bound window that each unbound one was made for
    starts: NDArray[np.int64] = bound.starts
    chromosomes: NDArray[np.str_] | None
    lengths = None
    if data.negatives == SHUFFLE:
        rng = np.random.default_rng([config.seed, 0x5F1E])
        unbound, chromosomes = dinucleotide_shuffle(bound.codes, rng), bound.chromosomes
        ids = [f"{name}_shuffled" for name in bound_ids]
        partners = np.arange(len(bound_ids))
    elif data.negatives == GC_MATCHED:
        matched = gc_matched(bound, genome, config.seed, peaks)
        unbound, chromosomes, partners = matched.codes, matched.chromosomes, matched.partners
        starts = np.concatenate([starts, matched.starts])
        notes += [f"{GC_MATCHED}: {note}" for note in matched.notes()]
        places = zip(matched.chromosomes.tolist(), matched.starts.tolist(), strict=True)
        ids = [f"{name}:{start}-{start + length}" for name, start in places]
    else:
        inputs.append(Input(data.negatives, file_digest(data.negatives)))
        if next(read_blocks(data.negatives), b"").lstrip()[:1] == b">":
            width = config.model.get("width", 1)
            store = convert(
                [data.negatives], _cache(config), data.ambiguous, data.lengths, length, width
            )
            if min(store.shortest) < width:
                _refuse_short([data.negatives], config)
            unbound, chromosomes, ids = store.codes, None, store.ids
            lengths = np.concatenate([np.full(len(bound_ids), length), store.lengths])
            notes += [f"{data.negatives}: {note}" for note in store.notes[0]]
        else:
            others = read_intervals(data.negatives)
            windows = read_windows(others, genome, length, data.negatives)
            unbound, chromosomes = windows.codes, windows.chromosomes
            starts = np.concatenate([starts, windows.starts])
            ids = [others.ids[row] for row in windows.rows.tolist()]
            notes += [f"{data.negatives}: {note}" for note in windows.notes()]
    if chromosomes is not None:
        chromosomes = np.concatenate([bound.chromosomes, chromosomes])
    labels = np.repeat(np.array([1, 0], np.int32), [len(bound.codes), len(unbound)])
    lying = bound.chromosomes if chromosomes is None else chromosomes[: starts.size]
    pairs = partners, len(bound_ids) + np.arange(partners.size)
    groups, overlapping = overlap_groups(lying, starts, length, pairs, len(labels))
    if overlapping and not (data.test_chroms or data.split_table):
        notes.append(
            f"{overlapping} of {starts.size} windows of {length} bases overlap another one and "
            f"stay in one split with it, the largest group with {np.bincount(groups).max()} "
            "records (--config.data.test_chroms splits by chromosome)"
        )
    return Labelled(
        np.concatenate([bound.codes, unbound]),
        labels,
        lambda: bound_ids + list(ids),
        inputs,
        notes,
        groups,
        chromosomes,
        lengths,
    )


def _fit(
    parts: Sequence[Records], sources: Sequence[str], config: ConfigDict
) -> tuple[Codes, list[str]]:
    """Returns all records with one length, uint8 [records, length], and notes."""
    data = config.data
    everything = parts[0]
    if len(parts) > 1:
        everything = join(
            [name for part in parts for name in part.ids],
            [part[i] for part in parts for i in range(len(part))],
        )
    for part, source in zip(parts, sources, strict=True):
        check_minimum(part, config.model.get("width", 1), source)
    length = data.length or common_length(everything, data.lengths)
    notes = []
    unknown = int((everything.codes >= UNKNOWN).sum())
    if unknown:
        notes.append(f"{unknown} of {everything.codes.size} letters are N or another ambiguous one")
    shortest, longest = int(everything.lengths.min()), int(everything.lengths.max())
    if not shortest == longest == length:
        done = "padded" if data.lengths == "pad" else "cropped to their middle"
        notes.append(f"sequences of {shortest} to {longest} bases are {done}: {length} bases")
    return fit_length(everything, length, data.lengths, sources[0]), notes


def _refuse_short(paths: Sequence[str], config: ConfigDict) -> None:
    """Reads the files once more to name the records that are shorter than a filter."""
    for path in paths:
        records = [(record.id, record.codes.copy()) for record in read_fasta(path)]
        names, codes = zip(*records, strict=True)
        check_minimum(join(names, codes), config.model.width, path)


def _cache(config: ConfigDict) -> Path:
    folder = config.runtime.data_cache
    return default_cache() if folder == "auto" else Path(folder)
