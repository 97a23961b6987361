"""What a variant does to the score: reference and alternative allele, each in its window."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxdna.analysis.scorer import Scorer
from jaxdna.data.scored_vcf import as_value, header_lines, row_line
from jaxdna.data.variants import Variant
from jaxdna.tasks.task import Task
from jaxdna.training.dispatch import few_ahead

_AT_ONCE, _AT_ONCE_BASES = 4096, 2**26
_AT_ONCE_SLID = 2**17  # places of a filter on one strand
_IN_FLIGHT = 2  # chunks that the devices work on while the host reads the next
_PLACE = ("chromosome", "position", "id", "reference", "alternative")
_SHORT = {"probability": "PROB"}  # what INFO calls it
_NOTE_KEY = {"NOTE": ("String", "Why there is no score, or what to know about it")}


@dataclass(frozen=True)
class ScoredVariants:
    """Some alleles with their scores.

    Attributes:
      variants: in the order of the file.
      task: what the outputs mean.
      reference: float32 [alleles, outputs], of the window with the reference allele, or NaN.
      alternative: float32 [alleles, outputs], the same with the alternative allele.
      largest: float [alleles, outputs], of all windows the change with the largest size, or NaN;
        None where windows do not slide.
      starts: int64 [alleles, outputs], first base of that window, from 1.
    """

    task: Task
    variants: list[Variant]
    reference: NDArray[np.float32]
    alternative: NDArray[np.float32]
    largest: NDArray[np.floating] | None = None
    starts: NDArray[np.int64] | None = None


class _Job(NamedTuple):
    variants: list[Variant]
    there: list[int]  # those that have windows
    pending: Any
    parts: NDArray[np.bool_]  # [4, those], which of the four kinds of stretches each has


def score_variants(
    variants: Iterable[Variant], scorer: Scorer, slide: bool = False
) -> Iterator[ScoredVariants]:
    """Yields every allele with its scores, in order, many at a time; a row's are never parted.

    Args:
      variants: of `read_variants`.
      scorer: the model.
      slide: whether they may have many windows.
    """
    at_once = min(_AT_ONCE, _AT_ONCE_BASES // scorer.length)
    if slide:
        at_once = min(at_once, _AT_ONCE_SLID // scorer.length)
    submit, finish = (_submit_slid, _finish_slid) if slide else (_submit, _finish)
    jobs = (submit(chunk, scorer) for chunk in _chunks(variants, max(1, at_once)))
    return (finish(job, scorer) for job in few_ahead(jobs, _IN_FLIGHT))


def _chunks(variants: Iterable[Variant], at_once: int) -> Iterator[list[Variant]]:
    chunk: list[Variant] = []
    for variant in variants:
        if len(chunk) >= at_once and variant.row is not chunk[-1].row:
            yield chunk
            chunk = []
        chunk.append(variant)
    if chunk:
        yield chunk


def _pairs(variants: list[Variant]) -> tuple[list[int], list[NDArray[np.uint8]]]:
    """Returns which variants have windows, and their codes: reference, alternative, and so on."""
    there, codes = [], []
    for row, variant in enumerate(variants):
        if variant.reference_codes is not None and variant.alternative_codes is not None:
            codes += [variant.reference_codes, variant.alternative_codes]
            there.append(row)
    return there, codes


def _submit(variants: list[Variant], scorer: Scorer) -> _Job:
    """Scans once what both windows of an allele have: most of them, where one base differs."""
    there, windows = _pairs(variants)
    length, places = scorer.length, scorer.length - scorer.width + 1
    codes = np.concatenate([*windows, np.empty(0, np.uint8)])
    pairs = codes.reshape(-1, 2, length)
    differ = np.ones((len(pairs), length + 1), dtype=bool)  # at the end also where nothing does
    np.not_equal(pairs[:, 0], pairs[:, 1], out=differ[:, :-1])
    before = differ.argmax(axis=1)
    differ[:, 1:] = differ[:, :-1].copy()
    differ[:, 0] = True
    after = differ[:, ::-1].argmax(axis=1)
    left = np.clip(before - scorer.width + 1, 0, places)
    right = np.clip(after - scorer.width + 1, 0, places - left)
    middle = places - left - right
    first = np.arange(len(pairs), dtype=np.int64) * 2 * length
    starts = np.stack([first, first + places - right, first + left, first + length + left])
    counts = np.stack([left, right, middle, middle])
    parts = counts > 0
    return _Job(variants, there, scorer.submit(codes, starts[parts], counts[parts]), parts)


def _finish(job: _Job, scorer: Scorer) -> ScoredVariants:
    best = np.full((*job.parts.shape, scorer.feature_count), -np.inf, dtype=np.float32)
    best[job.parts] = scorer.features(job.pending)
    shared = np.maximum(best[0], best[1])
    outputs = np.full((2, len(job.variants), scorer.task.outputs), np.nan, dtype=np.float32)
    for row, own in enumerate(best[2:]):
        outputs[row, job.there] = scorer.finish(np.maximum(shared, own))
    return ScoredVariants(scorer.task, job.variants, outputs[0], outputs[1])


def _submit_slid(variants: list[Variant], scorer: Scorer) -> _Job:
    """Every place of a filter is a stretch of its own: all windows share them."""
    there, stretches = _pairs(variants)
    codes = np.concatenate([*stretches, np.empty(0, np.uint8)])
    ends = np.cumsum([one.size for one in stretches], dtype=np.int64)
    inside = np.ones(codes.size + 1, dtype=bool)
    for reach in range(1, scorer.width):
        inside[ends - reach] = False
    starts = np.flatnonzero(inside[:-1])
    pending = scorer.submit(codes, starts, np.ones_like(starts))
    return _Job(variants, there, pending, np.empty((0, 0), dtype=bool))


def _finish_slid(job: _Job, scorer: Scorer) -> ScoredVariants:
    features = scorer.features(job.pending)
    places = scorer.length - scorer.width + 1  # of a filter in a window
    counts = [job.variants[row].windows for row in job.there for _ in range(2)]
    begins = np.cumsum([0, *(count + places - 1 for count in counts)])
    slid = [
        _sliding_maximum(features[begin : begin + count + places - 1], places)
        for begin, count in zip(begins.tolist(), counts, strict=False)
    ]
    outputs = scorer.finish(np.concatenate([*slid, features[:0]]))
    task, alleles = scorer.task, len(job.variants)
    found = np.full((2, alleles, task.outputs), np.nan, dtype=np.float32)
    most = np.full((alleles, task.outputs), np.nan)
    starts = np.zeros((alleles, task.outputs), dtype=np.int64)
    first = 0
    for row in job.there:
        variant = job.variants[row]
        both = outputs[first : first + 2 * variant.windows].reshape(2, variant.windows, -1)
        first += 2 * variant.windows
        found[:, row] = both[:, variant.centre]
        reference, alternative = (_additive(task, one) for one in both)
        change = alternative - reference
        largest = np.abs(change).argmax(axis=0)
        most[row] = np.take_along_axis(change, largest[None], axis=0)[0]
        starts[row] = variant.start + largest + 1
    return ScoredVariants(task, job.variants, found[0], found[1], most, starts)


def _additive(task: Task, outputs: NDArray[np.float32]) -> NDArray:
    return np.stack(list(task.additive(outputs).values()), axis=1)


def _sliding_maximum(values: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Returns the maximum of each `size` rows that follow one another: [rows - size + 1, ...]."""
    width = 1
    while 2 * width <= size:
        values, width = np.maximum(values[:-width], values[width:]), 2 * width
    return np.maximum(values[: len(values) - size + width], values[size - width :])


class _Column(NamedTuple):
    """One number of every allele.

    Attributes:
      heading: in TSV.
      key: in INFO, without the prefix.
      kind: VCF's type.
      meaning: for the header of a VCF.
      texts: of the alleles, NA where there is no score.
    """

    heading: str
    key: str
    kind: str
    meaning: str
    texts: list[str]


def _columns(scored: ScoredVariants) -> list[_Column]:
    """The answers with each allele, then what the additive ones change."""
    task = scored.task
    additive = [task.additive(one) for one in (scored.reference, scored.alternative)]
    answers = [task.answers(one) for one in (scored.reference, scored.alternative)]
    others = [k for k, v in answers[0].items() if k not in additive[0] and v.dtype.kind == "f"]
    columns = []
    for names, values in ((others, answers), (list(additive[0]), additive)):
        for name in names:
            for which, own in zip(("reference", "alternative"), values, strict=True):
                key = f"{which[:3].upper()}_{_key(name)}"
                meaning = f"{name.capitalize()} with the reference allele"
                if which == "alternative":
                    meaning = f"{name.capitalize()} with this allele"
                columns.append(_Column(f"{which}_{name}", key, "Float", meaning, _texts(own[name])))
    one = len(additive[0]) == 1
    for i, name in enumerate(additive[0]):
        end = "" if one else f"_{_key(name)}"
        change = additive[1][name] - additive[0][name]
        meaning = f"ALT_{_key(name)} minus REF_{_key(name)}"
        columns.append(_Column(f"{name}_change", f"CHANGE{end}", "Float", meaning, _texts(change)))
        if scored.largest is None or scored.starts is None:
            continue
        largest = _texts(scored.largest[:, i])
        starts = [
            "NA" if text == "NA" else str(start)
            for text, start in zip(largest, scored.starts[:, i].tolist(), strict=True)
        ]
        meaning = "Largest such change over all windows that contain the allele"
        columns.append(
            _Column(f"largest_{name}_change", f"LARGEST_CHANGE{end}", "Float", meaning, largest)
        )
        heading, meaning = (
            "window_start" if one else f"{name}_window_start",
            "First base of that window",
        )
        columns.append(_Column(heading, f"WINDOW_START{end}", "Integer", meaning, starts))
    return columns


def _key(name: str) -> str:
    return _SHORT.get(name) or re.sub(r"\W", "_", name, flags=re.ASCII).upper()


def _texts(values: NDArray) -> list[str]:
    return ["NA" if one != one else f"{one:.6g}" for one in values.tolist()]


def _none(task: Task, slide: bool) -> ScoredVariants:
    """No alleles: what a header is made of."""
    empty = np.empty((0, task.outputs), np.float32)
    starts = np.empty((0, task.outputs), np.int64)
    return ScoredVariants(task, [], empty, empty, *((empty, starts) if slide else ()))


def variant_header(task: Task, slide: bool) -> str:
    """Returns the first line of a TSV file."""
    own = [column.heading for column in _columns(_none(task, slide))]
    return "\t".join([*_PLACE, *own, "note"]) + "\n"


def variant_lines(scored: ScoredVariants) -> str:
    """Returns one line per allele, in the columns of `variant_header`."""
    lines = []
    columns = [column.texts for column in _columns(scored)]
    for variant, *texts in zip(scored.variants, *columns, strict=True):
        place = (variant.chromosome, str(variant.position), variant.id)
        alleles = (variant.reference, variant.alternative)
        lines.append("\t".join([*place, *alleles, *texts, variant.note]))
    return "".join(f"{line}\n" for line in lines)


def vcf_lines(scored: ScoredVariants) -> str:
    """Returns the rows of the VCF file with the scores of their alleles in INFO."""
    columns = _columns(scored)
    texts = [list(row) for row in zip(*(column.texts for column in columns), strict=True)]
    alleles = zip(scored.variants, texts, strict=True)
    lines = []
    for _, group in groupby(alleles, key=lambda one: id(one[0].row)):
        row = list(group)
        by_column = zip(*(own for _, own in row), strict=True)
        values = [
            (column.key, ["." if text == "NA" else text for text in own])
            for column, own in zip(columns, by_column, strict=True)
        ]
        values.append(("NOTE", [as_value(variant.note) for variant, _ in row]))
        lines.append(row_line(row[0][0].row, values))
    return "".join(lines)


def write_variants(
    outputs: Sequence[tuple[str, IO[str]]],
    task: Task,
    scored: Iterable[ScoredVariants],
    slide: bool,
    vcf: tuple[Sequence[str], Mapping[str, int]] = ((), {}),
) -> dict[str, int]:
    """Writes scored alleles, and returns how many `rows`, `skipped` and `mismatches` there are.

    Args:
      outputs: `tsv` or `vcf` each, and where to.
      task: what the network was asked.
      scored: of `score_variants`.
      slide: whether windows slide.
      vcf: for VCF files, the header of the one that is read and the bases of each chromosome of
        the genome. The header must be there once the first alleles are.
    """
    counts = {"rows": 0, "skipped": 0, "mismatches": 0}

    def vcf_header() -> str:
        keys = {c.key: (c.kind, c.meaning) for c in _columns(_none(task, slide))}
        return header_lines(vcf[0], keys | _NOTE_KEY, vcf[1])

    def write(part: ScoredVariants | None) -> None:
        for form, stream in outputs:
            lines = {"tsv": variant_lines, "vcf": vcf_lines}[form]
            stream.write(lines(part) if part else headers[form]())

    headers = {"tsv": lambda: variant_header(task, slide), "vcf": vcf_header}
    begun = False
    for part in scored:
        if not begun:
            write(None)
        begun = True
        write(part)
        counts["rows"] += len(part.variants)
        counts["skipped"] += int(np.isnan(part.reference[:, 0]).sum())
        counts["mismatches"] += sum("mismatch" in v.note for v in part.variants)
    if not begun:
        write(None)
    return counts
