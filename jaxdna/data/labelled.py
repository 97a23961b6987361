"""Sequences with their targets: FASTA, intervals on a genome, or a table."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from jaxdna.data.code_store import cache_folder, find_or_make
from jaxdna.data.dataset import Input
from jaxdna.data.digests import check_unchanged, file_digest
from jaxdna.data.fasta import read_fasta_blocks
from jaxdna.data.genome import Genome
from jaxdna.data.header_targets import labelled_by_headers
from jaxdna.data.intervals import Windows, place_windows, read_intervals, read_windows
from jaxdna.data.labelled_settings import GC_MATCHED, SHUFFLE, check_settings
from jaxdna.data.near_copies import near_copies
from jaxdna.data.negatives import gc_fraction, gc_matched
from jaxdna.data.neighbours import overlap_groups
from jaxdna.data.records import Records
from jaxdna.data.sequences import Codes
from jaxdna.data.shuffle import shuffle_records
from jaxdna.data.store_writer import KEYS, StoreWriter
from jaxdna.data.streams import read_blocks
from jaxdna.data.tables import LabelledRecords, read_table
from jaxdna.data.targets import Targets, as_targets, named, one_kind, swaps_of
from jaxdna.data.tracks import read_tracks, track_names
from jaxdna.errors import UserError
from jaxdna.tasks.classes import Binary

FAMILIES = "families"  # columns of a store: near-copies
_TARGETS, _NAMES, _REVERSED = "targets", "target_names", "reversed"
_FILES = (
    "positives", "bed", "table", "negatives", "test_positives", "test_negatives", "test_table",
)  # fmt: skip
WINDOW_BASES = 500  # length of a window around an interval where the user names none


@dataclass(frozen=True)
class Labelled:
    """Sequences of one length with their targets.

    Attributes:
      codes: uint8 [records, length], memory-mapped.
      targets: what is known of each record; of two classes 1 is bound.
      given: what the user gave them by, for sentences.
      ids: makes the records' names, in order.
      inputs: the files that were read.
      notes: sentences about them.
      groups: integer [records]; records of one group must stay in one split. None: no groups.
      chromosomes: text [records]; None where they are not known.
      lengths: int64 [records], bases before any padding or cropping.
      keys: uint64 [records], the same where the files have the same sequence on either strand.
      tested: how many records, the last ones, come from files for the test.
    """

    codes: Codes
    targets: Targets
    given: str
    ids: Callable[[], Sequence[str]]
    inputs: list[Input]
    notes: list[str]
    groups: NDArray[np.int64] | None
    chromosomes: NDArray[np.str_] | None
    lengths: NDArray[np.int64]
    keys: NDArray[np.uint64]
    families: NDArray[np.int64] | None
    tested: int

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class _Source:
    """What a store is filled from.

    Attributes:
      inputs: the files, whose digests tell whether they have changed.
      parts: names of the store's parts, in order.
      key: what else decides its content.
      fill: writes it.
      length: bases of each sequence; 0 as the files have it.
      tests: how many parts, the last ones, are for the test.
    """

    inputs: list[str]
    parts: list[str]
    key: list[Any]
    fill: Callable[[StoreWriter], None]
    length: int = 0
    tests: int = 0


def read_labelled(config: ConfigDict) -> Labelled:
    """Reads the files of `config.data` without splitting them, through their code store.

    Raises:
      UserError: a file or a setting is wrong, or they do not fit each other.
    """
    data = config.data
    check_settings(data)
    source = _source(config)
    cache = cache_folder(config.runtime.data_cache)
    memory = cache / "digests"
    inputs = [Input(path, file_digest(path, memory)) for path in source.inputs]
    _require_different(data, {one.path: one.sha256 for one in inputs})
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
    given = next(key for key in ("table", "tracks", "positives", "bed") if data[key])
    given = f"--config.data.{given}={data[given]}"
    if not (data.test_chroms or data.split_table):
        notes += _overlap_notes(columns, source.length)
    return Labelled(
        store.codes,
        _targets(data, columns, store.counts),
        given,
        lambda: store.ids,
        inputs,
        notes,
        columns.get("groups"),
        columns.get("chromosomes"),
        store.lengths,
        columns[KEYS],
        columns.get(FAMILIES),
        sum(store.counts[len(store.counts) - source.tests :]),
    )


def _require_different(data: Any, digests: dict[str, str]) -> None:
    """Raises UserError where two of the files are the same bytes."""
    seen: dict[str, str] = {}
    for key in (key for key in _FILES if data[key]):
        flag = f"--config.data.{key}={data[key]}"
        other = seen.setdefault(digests.get(data[key], data[key]), flag)
        if other != flag:
            raise UserError(
                f"{other} and {flag} contain the same bytes; give bound sequences in one and "
                "unbound ones in the other, and those of the test in others"
            )


def _source(config: ConfigDict) -> _Source:
    data = config.data
    if data.table:
        return _table(config)
    if data.bed:
        return _intervals(config)
    return _headers(data) if data.labels_in_headers else _fasta(config)


def _targets(data: Any, columns: dict[str, NDArray], counts: Sequence[int]) -> Targets:
    """Returns the targets in a store's columns, or the classes of its two parts."""
    if _TARGETS not in columns:
        labels = np.repeat(np.resize(np.array([1, 0], np.int32), len(counts)), counts)
        return Targets(Binary.kind, Binary().names, labels)
    kind, names, values = one_kind(data), columns[_NAMES].tolist(), columns[_TARGETS]
    swaps = swaps_of(data.strand_pairs, names)
    if swaps and (reverse := columns.get(_REVERSED)) is not None:
        values[reverse] = values[reverse][:, list(swaps)]
    return Targets(kind, tuple(names), values, swaps)


def _table(config: ConfigDict) -> _Source:
    data = config.data

    def blocks(path: str) -> Iterator[LabelledRecords]:
        return read_table(path, data.ambiguous, data.task, named(data.targets))

    paths = [path for path in (data.table, data.test_table) if path]
    key = ["table", data.task, data.targets]
    if data.negatives == SHUFFLE:
        return _labelled(paths, blocks, [*key, SHUFFLE, config.seed], data, config.seed)
    return _labelled(paths, blocks, key, data)


def _headers(data: Any) -> _Source:
    def blocks(path: str) -> Iterator[LabelledRecords]:
        records = read_fasta_blocks(path, data.ambiguous, whole_headers=True)
        return labelled_by_headers(records, path, data.task)

    paths = [path for path in (data.positives, data.test_positives) if path]
    return _labelled(paths, blocks, ["headers", data.task], data)


def _labelled(
    paths: list[str],
    read: Callable[[str], Iterator[LabelledRecords]],
    key: list[Any],
    data: Any,
    shuffle_seed: int | None = None,
) -> _Source:
    """Returns the source of records whose files say their targets; the second is for the test.

    With a seed the first file has bound sequences only, and each gets a shuffled one.
    """
    shuffled = shuffle_seed is not None

    def fill(writer: StoreWriter) -> None:
        names: tuple[str, ...] = ()
        values: list[NDArray] = []

        def records(path: str) -> Iterator[Records]:
            nonlocal names
            for rows in read(path):
                if values and rows.names != names:
                    raise UserError(
                        f"{path} has the targets {', '.join(rows.names)}, and {paths[0]} has "
                        f"{', '.join(names)}; give the same columns in both"
                    )
                names = rows.names
                values.append(rows.targets)
                yield rows.records

        for path in paths:
            writer.add(path, records(path))
            if shuffle_seed is not None and path == paths[0]:
                bound = np.concatenate(values)
                _require_all_bound(path, bound)
                _add_shuffled(writer, shuffle_seed)
                values.append(np.zeros_like(bound))
        if shuffled:
            _keep_pairs(writer)
        where = " and ".join(paths)
        _add_targets(writer, as_targets(data.task, names, np.concatenate(values), where))

    parts = [paths[0], *([SHUFFLE] if shuffled else []), *paths[1:]]
    return _Source(paths, parts, key, fill, data.length, len(paths) - 1)


def _require_all_bound(path: str, labels: NDArray) -> None:
    """Raises UserError where unbound sequences are to be drawn, and the file has some itself."""
    if unbound := int((labels == 0).sum()):
        raise UserError(
            f"{path} has {unbound} unbound sequences of its own, and --config.data.negatives="
            f"{SHUFFLE} draws one for each bound one; give a table of bound sequences only, or no "
            "negatives"
        )


def _add_targets(writer: StoreWriter, targets: Targets) -> None:
    writer.add_column(_TARGETS, targets.values)
    writer.add_column(_NAMES, np.array(targets.names))


def _fasta(config: ConfigDict) -> _Source:
    data = config.data
    shuffled = data.negatives == SHUFFLE

    def fill(writer: StoreWriter) -> None:
        writer.add(data.positives, read_fasta_blocks(data.positives, data.ambiguous))
        if shuffled:
            _add_shuffled(writer, config.seed)
        for path in [*files[1:], *tests]:
            writer.add(path, read_fasta_blocks(path, data.ambiguous))
        if shuffled:
            _keep_pairs(writer)

    files = [data.positives] if shuffled else [data.positives, data.negatives]
    tests = [path for path in (data.test_positives, data.test_negatives) if path]
    key = ["fasta", SHUFFLE, config.seed] if shuffled else ["fasta"]
    parts = [data.positives, data.negatives, *tests]
    return _Source([*files, *tests], parts, key, fill, data.length, len(tests))


def _intervals(config: ConfigDict) -> _Source:
    data, tracks = config.data, named(config.data.tracks)
    drawn = data.negatives in (SHUFFLE, GC_MATCHED)
    files = [] if drawn or tracks else [data.negatives]
    key = ["intervals", data.negatives, config.seed] if drawn else ["intervals"]
    if tracks:
        key = ["tracks", track_names(tracks), data.task, data.track_statistic, data.track_bases]
    return _Source(
        [data.bed, data.genome, *files, *tracks],
        [data.bed] if tracks else [data.bed, data.negatives],
        key,
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
    if tracks := named(data.tracks):
        values = read_tracks(tracks, bound, genome, data.track_statistic, data.track_bases)
        _add_targets(writer, as_targets(data.task, track_names(tracks), values, data.tracks))
        writer.add_column(_REVERSED, bound.reverse)
        writer.add_column("chromosomes", bound.chromosomes)
    elif data.negatives == SHUFFLE:
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


def _keep_pairs(writer: StoreWriter) -> None:
    """A sequence and its shuffled one, the first two parts, are a group; others have their own."""
    pairs, tested = np.arange(writer.counts[0]), np.arange(sum(writer.counts[2:]))
    writer.add_column("groups", np.concatenate([pairs, pairs, pairs.size + tested]))


def _overlap_notes(columns: dict[str, NDArray], length: int) -> list[str]:
    overlapping = columns.get("overlapping", np.zeros(0, dtype=bool))
    if not overlapping.any():
        return []
    return [
        f"{overlapping.sum()} of {overlapping.size} windows of {length} bases overlap another one "
        "and stay in the same split; the largest group has "
        f"{np.bincount(columns['groups']).max()} records (--config.data.test_chroms splits by "
        "chromosome)"
    ]
