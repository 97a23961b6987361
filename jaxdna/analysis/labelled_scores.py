"""Outputs and targets of the user's labelled files, read as in training."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxdna.analysis.predictions import Lengths, score_records
from jaxdna.analysis.scorer import Scorer
from jaxdna.data.duplicates import sequence_keys
from jaxdna.data.fasta import Piece, read_fasta_pieces
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
    train_keys: NDArray[np.uint64] | None = None,
    sequences: str = "",
    labels: str = "",
    positives: str = "",
    negatives: str = "",
    table: str = "",
) -> Scored:
    """Scores the records of labelled files.

    Args:
      trained: the model, which says how lengths and letters are treated.
      scorer: the same, ready to scan.
      train_keys: sorted, those of its training split by `sequence_keys`; None if not known.
      sequences: FASTA, with `labels`: a table whose header has the column id, and those of the
        targets or, for classes, label.
      labels: see `sequences`.
      positives: FASTA, with `negatives`.
      negatives: FASTA.
      table: as `data.table`; of several columns those that were trained on.

    Raises:
      UserError: a file is wrong or has other targets than the model, or a record has none.
    """
    kind, columns = trained.task.kind, _columns(trained)
    data = trained.config.data
    ambiguous = data.get("ambiguous", "zero")
    notes: list[str] = []
    found_keys: list[NDArray[np.bool_]] = []

    def watched(pieces: Iterable[Piece]) -> Iterator[Piece]:
        """Looks up in the training split what passes."""
        for piece in pieces:
            if train_keys is not None:
                found_keys.append(_among(sequence_keys(piece.records), train_keys))
            yield piece

    def score(pieces: Iterable[Piece]) -> tuple[list[str], NDArray[np.float32]]:
        lengths = Lengths(data.get("lengths", "error"), trained.length)
        rows = list(score_records(watched(pieces), scorer, lengths))
        return (
            [name for part in rows for name in part.ids],
            np.concatenate([part.outputs for part in rows]),
        )

    def score_fasta(path: str) -> tuple[list[str], NDArray[np.float32]]:
        stats = SequenceStats()
        scored = score(read_fasta_pieces(path, ambiguous, stats, None))
        notes.extend(f"{display(path)}: {note}" for note in stats.notes())
        return scored

    if positives:
        if kind != Binary.kind:
            raise UserError(
                f"--positives={positives} and --negatives={negatives} are two classes, and this "
                f"model's task is {kind}; legal: --table, or --sequences and --labels"
            )
        parts = [score_fasta(path)[1] for path in (positives, negatives)]
        outputs = np.concatenate(parts)
        targets = np.repeat(np.array([1, 0], np.int32), [len(part) for part in parts])
    else:
        if table:
            values: list[NDArray] = []

            def pieces() -> Iterator[Piece]:
                for rows in read_table(table, ambiguous, kind, columns):
                    values.append(rows.targets)
                    yield Piece(rows.records, False, False)

            _, outputs = score(pieces())
            known = np.concatenate(values)
        else:
            targets_of = read_labels(labels, kind, columns or ("label",))
            ids, outputs = score_fasta(sequences)
            missing = [name for name in ids if name not in targets_of]
            if missing:
                raise UserError(
                    f"--labels={labels} has no label for '{missing[0]}' ({len(missing)} of "
                    f"{len(ids)} records of {display(sequences)}); legal: one row for each record"
                )
            known = np.array([targets_of[name] for name in ids])
        where, classes = display(table or labels), trained.task.classes
        targets = as_targets(kind, trained.task.names, known, where, classes).values
    scored, seen = ~np.isnan(outputs[:, 0]), None
    trained_on: list[str] = []
    if train_keys is not None:
        seen = np.concatenate(found_keys)
        if positives:
            own = {positives: seen[targets == 1], negatives: seen[targets == 0]}
        else:
            own = {table or sequences: seen}
        trained_on = [path for path, part in own.items() if part.any()]
        seen = seen[scored]
    if not scored.all():
        notes.append(f"{int((~scored).sum())} of {len(scored)} records cannot be scored (left out)")
    return Scored(targets[scored], outputs[scored], notes, seen, trained_on)


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
    columns = next(lines)[1].split("\t")
    if not {"id", *wanted} <= set(columns):
        names = f"{'columns id and' if len(wanted) == 1 else 'columns id,'} {', '.join(wanted)}"
        raise UserError(f"{path}, line 1 has no {names}; legal: a header with all of them")
    name_column, places = columns.index("id"), [columns.index(name) for name in wanted]
    found: dict[str, list[float | str]] = {}
    for number, line in lines:
        if not line.strip():
            continue
        fields = line.split("\t")
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
            raise UserError(f"{path}, line {number}: '{name}' has {what}; legal: one of them")
    return found
