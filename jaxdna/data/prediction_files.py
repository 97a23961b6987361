"""Scored rows in files: TSV, VCF, BED or bedGraph by the suffix, bgzipped or not; bigWig."""

import io
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.bgzf import BgzfWriter
from jaxdna.errors import Unread, UserError
from jaxdna.storage.parts import whole_file
from jaxdna.storage.places import disk_path
from jaxdna.tasks.task import Task

_GZIP_LEVEL = 4  # half the time of the default, five in a hundred more bytes
_LEGAL = ".tsv, .vcf, .bed or .bedGraph, each with or without .gz, .bw, or - for stdout"
_FORMATS = {
    "": "tsv",
    "tsv": "tsv",
    "txt": "tsv",
    "vcf": "vcf",
    "bed": "bed",
    "bedgraph": "bedgraph",
    "bdg": "bedgraph",
    "bw": "bigwig",
    "bigwig": "bigwig",
}


def output_format(path: str, windows: bool, variants: bool = False) -> str:
    """Returns `tsv`, `vcf`, `bed`, `bedgraph` or `bigwig`.

    Args:
      path: the file, or `-`.
      windows: whether there are windows along long sequences, which intervals need.
      variants: whether alleles of a VCF file are scored, which VCF needs.

    Raises:
      UserError: the suffix is none of these, or needs windows, or bigWig's package; or it is a URL.
    """
    plain = disk_path(path.removesuffix(".gz"))
    suffix = "" if path == "-" else plain.suffix.lower().lstrip(".")
    form = _FORMATS.get(suffix)
    if form is None or (form == "bigwig" and path.endswith(".gz")):
        raise UserError(f"--output={path} has an unknown suffix; legal: {_LEGAL}")
    if form == "vcf" and not variants:
        raise UserError(f"--output={path} needs --variants, whose rows it keeps; legal: .tsv")
    if form not in ("tsv", "vcf") and not windows:
        raise UserError(f"--output={path} needs --window, which gives positions; legal: .tsv")
    if form == "bigwig" and find_spec("pyBigWig") is None:
        raise UserError(
            f"--output={path} needs pyBigWig; run pip install 'jaxdna[bigwig]', or write .bedGraph"
        )
    return form


@contextmanager
def open_output(path: str) -> Iterator[IO[str]]:
    """Opens a text file that appears whole, under its name, only if nothing fails; or stdout.

    Raises:
      UserError: it cannot be written.
    """
    if path == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    if Path(path).exists() and not Path(path).is_file():  # a pipe, /dev/null: nothing to rename
        if Path(path).is_dir():
            raise UserError(f"--output={path} is a folder; legal: {_LEGAL}")
        try:
            with open(path, "w", encoding="utf-8", newline="") as stream:
                yield stream
        except BrokenPipeError as error:
            raise Unread(*error.args) from error
        return
    with appears_whole(path) as partial, ExitStack() as files:
        raw: Any = files.enter_context(partial.open("wb"))
        packed: Any = raw
        if path.endswith(".gz"):
            packed = files.enter_context(BgzfWriter(raw, _GZIP_LEVEL))
        yield files.enter_context(io.TextIOWrapper(packed, encoding="utf-8", newline=""))


@contextmanager
def appears_whole(path: str) -> Iterator[Path]:
    """Gives an empty file beside `path` that takes its name in the end, only if nothing fails.

    Raises:
      UserError: it cannot be written.
    """
    advice = "; give a file in a folder that exists"
    try:
        with whole_file(Path(path)) as part:
            advice = ""
            yield part
    except OSError as error:
        raise UserError(
            f"--output={path} cannot be written ({(error.strerror or str(error)).lower()}){advice}"
        ) from error


def header(task: Task, members: Sequence[int] = ()) -> str:
    """Returns the first line of a TSV file: id, the columns of the task's answers, note.

    Of members, by their numbers, the deviation of what they say and what each says follow.
    """
    answers = task.answers(np.zeros((0, task.outputs), np.float32))
    each = ["sd", *(f"member_{number}" for number in members)] if members else []
    names = [f"{name}_" for name in task.names] if task.outputs > 1 else [""]
    more = [f"{name}{one}" for name in names for one in each]
    return "\t".join(["id", *answers, "note", *more]) + "\n"


def tsv_lines(
    task: Task, ids: Sequence[str], outputs: NDArray[np.float32], notes: dict[int, str]
) -> str:
    """Returns one line per row: id, the task's answers, note; NA for outputs that are NaN.

    Args:
      task: what was asked.
      ids: name of each row.
      outputs: float32 [rows, outputs], or [rows, outputs * (1 + networks)] with those of each
        network after those of all; then the line has more columns, see `header`.
      notes: of some rows, by their number.
    """
    outputs, each = np.split(outputs, [task.outputs], axis=1)
    columns = [
        values.tolist() if values.dtype.kind == "U" else [f"{x:.6g}" for x in values.tolist()]
        for values in task.answers(outputs).values()
    ]
    lines = ["\t".join(row) + "\t\n" for row in zip(ids, *columns, strict=True)]
    for row, note in notes.items():
        lines[row] = f"{lines[row][:-1]}{note}\n"
    missing = "NA\t" * len(columns)
    for row in np.flatnonzero(np.isnan(outputs[:, 0])).tolist():
        lines[row] = f"{ids[row]}\t{missing}{notes.get(row, '')}\n"
    if each.size:
        more = _of_members(task, each)
        lines = [f"{line[:-1]}\t{own}\n" for line, own in zip(lines, more, strict=True)]
    return "".join(lines)


def _of_members(task: Task, each: NDArray[np.float32]) -> list[str]:
    """The columns of members, [rows, networks * outputs] as text: of each output sd and members."""
    every = np.stack(
        [task.predicted(part) for part in np.split(each, each.shape[1] // task.outputs, axis=1)]
    )
    deviation = every.std(axis=0, ddof=1, keepdims=True)
    columns = np.concatenate([deviation, every]).transpose(1, 2, 0).reshape(len(each), -1)
    return ["\t".join("NA" if x != x else f"{x:.6g}" for x in row) for row in columns.tolist()]


def bed_lines(
    ids: Sequence[str], starts: NDArray, stops: NDArray, chances: NDArray[np.float64]
) -> str:
    """Returns one line per window that has a score: BED6, the score 1000 times the probability."""
    rows = zip(ids, starts.tolist(), stops.tolist(), chances.tolist(), strict=True)
    return "".join(
        f"{name}\t{start}\t{stop}\t.\t{round(1000 * chance)}\t.\n"
        for name, start, stop, chance in rows
        if not math.isnan(chance)
    )


def make_bedgraph(stride: int) -> Callable[..., str]:
    """Returns a function like `bed_lines` whose intervals do not overlap.

    Each window gives its value to the `stride` bases in its middle; the last window of a record to
    what is left of its middle.
    """
    previous = ("", 0)

    def lines(
        ids: Sequence[str], starts: NDArray, stops: NDArray, values: NDArray[np.float64]
    ) -> str:
        nonlocal previous
        made = []
        for name, start, stop, value in zip(
            ids, starts.tolist(), stops.tolist(), values.tolist(), strict=True
        ):
            first = start + max(0, (stop - start - stride) // 2)
            last = min(first + stride, stop)
            if previous[0] == name and first < previous[1]:
                first = previous[1]
            if first >= last:
                continue
            previous = (name, last)
            if not math.isnan(value):
                made.append(f"{name}\t{first}\t{last}\t{value:.6g}\n")
        return "".join(made)

    return lines
