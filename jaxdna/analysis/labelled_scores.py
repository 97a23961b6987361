"""Outputs and targets of the user's labelled files, read as in training."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxdna.analysis.predictions import Lengths, score_records
from jaxdna.analysis.scorer import Scorer
from jaxdna.data.duplicates import sequence_keys
from jaxdna.data.fasta import Piece, read_fasta_pieces
from jaxdna.data.separated import splitter
from jaxdna.data.sequence_stats import SequenceStats
from jaxdna.data.streams import display, read_lines
from jaxdna.data.tables import TARGET, read_table
from jaxdna.data.targets import FORMS, as_targets, named
from jaxdna.errors import UserError
from jaxdna.runs.trained import Trained
from jaxdna.tasks.classes import Binary


class Scored(NamedTuple):
    """What became of the records of labelled files; those without a score are left out.

    Attributes:
      targets: [records, *target_shape].
      outputs: float32 [records, outputs].
      notes: sentences about the files.
      seen: bool [records], which are in the training split; None where nobody knows.
      trained_on: the files that have such records.
    """

    targets: NDArray
    outputs: NDArray[np.float32]
    notes: list[str]
    seen: NDArray[np.bool_] | None
    trained_on: list[str]


def score_labelled(
    trained: Trained,
    scorer: Scorer,
    files: Mapping[str, str],
    train_keys: NDArray[np.uint64] | None = None,
) -> Scored:
    """Scores the records of labelled files.

    Args:
      trained: the model, which says how lengths and letters are treated.
      scorer: the same, ready to scan.
      files: `positives` and `negatives`, FASTA both; or `sequences`, FASTA, with `labels`, a table
        whose header has the column id, and those of the targets or, for classes, label; or
        `table`, as `data.table`, of several columns those that were trained on.
      train_keys: sorted, those of its training split by `sequence_keys`; None if not known.

    Raises:
      UserError: a file is wrong or has other targets than the model, or a record has none.
    """
    reader = _Reader(trained, scorer, train_keys)
    parts = _FORMS[min(files)](reader, **files)
    targets = np.concatenate([part.targets for part in parts])
    outputs = np.concatenate([part.outputs for part in parts])
    scored, seen = ~np.isnan(outputs[:, 0]), None
    if train_keys is not None:
        seen = np.concatenate([part.seen for part in parts])[scored]
    trained_on = [part.path for part in parts if part.seen.any()]
    if not scored.all():
        reader.notes.append(
            f"{int((~scored).sum())} of {len(scored)} records cannot be scored (left out)"
        )
    return Scored(targets[scored], outputs[scored], reader.notes, seen, trained_on)


class _Part(NamedTuple):
    """The records of one file: targets, outputs, and which are in the training split."""

    path: str
    targets: NDArray
    outputs: NDArray[np.float32]
    seen: NDArray[np.bool_]


class _Reader:
    """Scores the files of a model's user, and keeps what there is to say of them."""

    def __init__(self, trained: Trained, scorer: Scorer, train_keys: NDArray[np.uint64] | None):
        self.task, self.scorer = trained.task, scorer
        self.columns = _columns(trained)
        data = trained.config.data
        self.ambiguous = data.get("ambiguous", "zero")
        self.lengths = Lengths(data.get("lengths", "error"), trained.length)
        self.train_keys = train_keys
        self.notes: list[str] = []

    def score(self, pieces: Iterable[Piece]) -> tuple[list[str], NDArray, NDArray[np.bool_]]:
        """Returns the names, the outputs, and which are in the training split."""
        seen: list[NDArray[np.bool_]] = []

        def watched() -> Iterator[Piece]:
            for piece in pieces:
                if self.train_keys is None:
                    seen.append(np.zeros(len(piece.records), dtype=bool))
                else:
                    seen.append(_among(sequence_keys(piece.records), self.train_keys))
                yield piece

        rows = list(score_records(watched(), self.scorer, self.lengths))
        names = [name for part in rows for name in part.ids]
        return names, np.concatenate([part.outputs for part in rows]), np.concatenate(seen)

    def score_fasta(self, path: str) -> tuple[list[str], NDArray, NDArray[np.bool_]]:
        """`score` of a FASTA file, with notes on its letters."""
        stats = SequenceStats()
        scored = self.score(read_fasta_pieces(path, self.ambiguous, stats, None))
        self.notes.extend(f"{display(path)}: {note}" for note in stats.notes())
        return scored

    def targets(self, known: NDArray, path: str) -> NDArray:
        """Returns what a file says as the model's targets."""
        task = self.task
        return as_targets(task.kind, task.names, known, display(path), task.classes).values


def _two_classes(reader: _Reader, positives: str, negatives: str) -> list[_Part]:
    if reader.task.kind != Binary.kind:
        raise UserError(
            f"--positives={positives} and --negatives={negatives} are two classes, but this "
            f"model's task is {reader.task.kind}; give --table, or --sequences and --labels"
        )
    parts = []
    for path, label in ((positives, 1), (negatives, 0)):
        _, outputs, seen = reader.score_fasta(path)
        parts.append(_Part(path, np.full(len(outputs), label, np.int32), outputs, seen))
    return parts


def _table(reader: _Reader, table: str) -> list[_Part]:
    values: list[NDArray] = []

    def pieces() -> Iterator[Piece]:
        for rows in read_table(table, reader.ambiguous, reader.task.kind, reader.columns):
            values.append(rows.targets)
            yield Piece(rows.records, False, False)

    _, outputs, seen = reader.score(pieces())
    return [_Part(table, reader.targets(np.concatenate(values), table), outputs, seen)]


def _labelled_fasta(reader: _Reader, sequences: str, labels: str) -> list[_Part]:
    targets_of = read_labels(labels, reader.task.kind, reader.columns or ("label",))
    ids, outputs, seen = reader.score_fasta(sequences)
    missing = [name for name in ids if name not in targets_of]
    if missing:
        raise UserError(
            f"--labels={labels} has no label for '{missing[0]}' ({len(missing)} of "
            f"{len(ids)} records of {display(sequences)}); give one row for each record"
        )
    known = np.array([targets_of[name] for name in ids])
    return [_Part(sequences, reader.targets(known, labels), outputs, seen)]


# By the first of the flags that go together, in the order of the alphabet.
_FORMS: dict[str, Callable[..., list[_Part]]] = {
    "negatives": _two_classes,
    "table": _table,
    "labels": _labelled_fasta,
}


def _among(keys: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Returns which keys are in a sorted array, which may lie on disk."""
    if not known.size:
        return np.zeros(keys.size, dtype=bool)
    places = np.minimum(np.searchsorted(known, keys), known.size - 1)
    return np.asarray(known[places] == keys)


def _columns(trained: Trained) -> tuple[str, ...]:
    """Returns the columns of targets that were trained on; none where nobody named them."""
    task = trained.task
    names = named(trained.config.data.get("targets", "")) if task.classes else task.names
    return () if tuple(names) == (TARGET,) else tuple(names)


def read_labels(
    path: str, kind: str = Binary.kind, wanted: Sequence[str] = ("label",)
) -> dict[str, list[float | str]]:
    """Reads a table of names and targets.

    Args:
      path: with a header that has the column id and those that are wanted.
      kind: of the task, a key of `targets.FORMS`.
      wanted: the columns of targets.

    Raises:
      UserError: columns are missing, or a row has no name or no legal target; the sentence has its
        line.
    """
    form = FORMS[kind]
    lines = read_lines(path)
    _, header = next(lines)
    fields_of = splitter(header)
    columns = fields_of(header)
    if not {"id", *wanted} <= set(columns):
        names = f"{'columns id and' if len(wanted) == 1 else 'columns id,'} {', '.join(wanted)}"
        raise UserError(f"{path}, line 1 has no {names}; give a header with all of them")
    name_column, places = columns.index("id"), [columns.index(name) for name in wanted]
    found: dict[str, list[float | str]] = {}
    for number, line in lines:
        if not line.strip():
            continue
        fields = fields_of(line)
        fields += [""] * (len(columns) - len(fields))
        name, values = fields[name_column], [form.read(fields[place]) for place in places]
        if not name or None in values:
            place = places[values.index(None)] if None in values else name_column
            raise UserError(
                f"{path}, line {number}: {columns[place]} {fields[place]!r}; legal: an id, and "
                f"{form.legal}"
            )
        legal = [value for value in values if value is not None]
        if found.setdefault(name, legal) != legal:
            what = "both labels" if kind == Binary.kind else "other targets in an earlier line"
            raise UserError(f"{path}, line {number}: '{name}' has {what}; keep one of them")
    return found
