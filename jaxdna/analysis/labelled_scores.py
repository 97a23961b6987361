"""Outputs and labels of the user's labelled files, read as in training."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from jaxdna.analysis.predictions import Lengths, score_records
from jaxdna.analysis.scorer import Scorer
from jaxdna.data.fasta import Piece, read_fasta_pieces
from jaxdna.data.sequence_stats import SequenceStats
from jaxdna.data.streams import display, read_lines
from jaxdna.data.tables import read_table
from jaxdna.errors import UserError
from jaxdna.runs.trained import Trained


def score_labelled(
    trained: Trained,
    scorer: Scorer,
    sequences: str = "",
    labels: str = "",
    positives: str = "",
    negatives: str = "",
    table: str = "",
) -> tuple[NDArray[np.int32], NDArray[np.float32], list[str]]:
    """Scores the records of labelled files.

    Args:
      trained: the model, which says how lengths and letters are treated.
      scorer: the same, ready to scan.
      sequences: FASTA, with `labels`: a table whose header has the columns id and label.
      labels: see `sequences`.
      positives: FASTA, with `negatives`.
      negatives: FASTA.
      table: rows of sequence, tab, 0 or 1.

    Returns:
      Labels int32 [records], outputs float32 [records, outputs], and notes; what cannot be scored
      is left out and counted in the notes.

    Raises:
      UserError: a file is wrong, or a record has no label.
    """
    data = trained.config.data
    ambiguous = data.get("ambiguous", "zero")
    notes: list[str] = []

    def score(pieces: Iterable[Piece]) -> tuple[list[str], NDArray[np.float32]]:
        lengths = Lengths(data.get("lengths", "error"), trained.length)
        rows = list(score_records(pieces, scorer, lengths))
        return (
            [name for part in rows for name in part.ids],
            np.concatenate([part.outputs for part in rows]),
        )

    def score_fasta(path: str) -> tuple[list[str], NDArray[np.float32]]:
        stats = SequenceStats()
        scored = score(read_fasta_pieces(path, ambiguous, stats, None))
        notes.extend(f"{display(path)}: {note}" for note in stats.notes())
        return scored

    if table:
        found: list[NDArray[np.int32]] = []

        def pieces() -> Iterator[Piece]:
            for rows in read_table(table, ambiguous):
                found.append(rows.labels)
                yield Piece(rows.records, False, False)

        _, outputs = score(pieces())
        classes = np.concatenate(found)
    elif positives:
        parts = [score_fasta(path)[1] for path in (positives, negatives)]
        outputs = np.concatenate(parts)
        classes = np.repeat(np.array([1, 0], np.int32), [len(part) for part in parts])
    else:
        label_of = _read_labels(labels)
        ids, outputs = score_fasta(sequences)
        missing = [name for name in ids if name not in label_of]
        if missing:
            raise UserError(
                f"--labels={labels} has no label for '{missing[0]}' ({len(missing)} of {len(ids)} "
                f"records of {display(sequences)}); legal: one row for each record"
            )
        classes = np.array([label_of[name] for name in ids], dtype=np.int32)
    scored = ~np.isnan(outputs[:, 0])
    if not scored.all():
        notes.append(f"{int((~scored).sum())} of {len(scored)} records cannot be scored (left out)")
    return classes[scored], outputs[scored], notes


def _read_labels(path: str) -> dict[str, int]:
    lines = read_lines(path)
    columns = next(lines)[1].split("\t")
    if not {"id", "label"} <= set(columns):
        raise UserError(f"{path}, line 1 has no columns id and label; legal: a header with both")
    name_column, label_column = columns.index("id"), columns.index("label")
    found: dict[str, int] = {}
    for number, line in lines:
        if not line.strip():
            continue
        fields = line.split("\t")
        label = fields[label_column] if label_column < len(fields) else ""
        name = fields[name_column] if name_column < len(fields) else ""
        if label not in ("0", "1") or not name:
            raise UserError(f"{path}, line {number}: label {label!r}; legal: an id, and 0 or 1")
        if found.setdefault(name, int(label)) != int(label):
            raise UserError(f"{path}, line {number}: '{name}' has both labels; legal: one of them")
    return found
