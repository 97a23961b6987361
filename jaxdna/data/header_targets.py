"""Targets in the headers of a FASTA file, as people publish labelled sequences.

`>1` (gkm-SVM's and FastSK's benchmarks), `>peak7 label=1` and `>peak7;class:1` (GraphProt, iDeepS),
`>peak7|1` and `>peak7|1|training` (iLearn). All records of a file must have one form.
"""

import re
from collections.abc import Iterable, Iterator

import numpy as np

from jaxdna.data.records import Records
from jaxdna.data.streams import display
from jaxdna.data.tables import LabelledRecords
from jaxdna.data.targets import FORMS, number
from jaxdna.errors import UserError

NAME = "target"
_KEY = re.compile(r"(?:^|[\s;|,])(?:label|class)[=:]\s*([^\s;|,]*)", re.IGNORECASE)
_BARS = re.compile(r"([^|\s]+)\|([^|\s]+)(?:\|(?:training|testing))?")
_LEGAL = "legal: >1, >name label=1 or >name|1, the same in all records"


def labelled_by_headers(
    blocks: Iterable[Records], path: str, kind: str = "auto"
) -> Iterator[LabelledRecords]:
    """Yields the records with what their headers say, under names without it.

    Args:
      blocks: records whose ids are whole headers.
      path: of the file, for the sentence.
      kind: of the task, a key of `targets.FORMS`.

    Raises:
      UserError: a header has no target, or has another form than the first one.
    """
    form, first, count = FORMS[kind], "", 0
    for block in blocks:
        names, values = [], []
        for header in block.ids:
            count += 1
            how, name, text = _parts(header)
            first = first or how
            value = form.read(text)
            if how == "" or how != first or value is None:
                wrong = f"target {text!r}" if how and how == first else "a target in another form"
                wrong = wrong if how else "no target"
                legal = f"legal: {form.legal}" if how and how == first else _LEGAL
                raise UserError(
                    f"{display(path)}, record {count} ('{header[:60]}') has {wrong}; {legal}"
                )
            names.append(name or f"record{count}")
            values.append([value])
        yield LabelledRecords(Records(names, block.codes, block.offsets), (NAME,), np.array(values))


def _parts(header: str) -> tuple[str, str, str]:
    """Returns how the target is written, the record's name and the target; nothing if none is."""
    header = header.strip()
    found = _KEY.findall(header)
    if len(found) == 1:
        name = re.split(r"[\s;]", _KEY.sub("", header).strip(), maxsplit=1)[0]
        return "key", name, found[0]
    if number(header) is not None:
        return "alone", "", header
    bars = _BARS.fullmatch(header)
    if bars and not found and number(bars[2]) is not None:
        return "bars", bars[1], bars[2]
    return "", "", ""
