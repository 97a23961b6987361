"""Scores what is in a file, and writes a row for each record, window or allele into another."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from jaxdna.analysis.predictions import Lengths, Rows, score_records, score_windows
from jaxdna.analysis.scorer import Scorer
from jaxdna.analysis.variant_effects import score_variants, write_variants
from jaxdna.data.bigwig import open_bigwig
from jaxdna.data.fasta import read_fasta_pieces
from jaxdna.data.genome import Genome
from jaxdna.data.prediction_files import (
    bed_lines,
    header,
    make_bedgraph,
    open_output,
    tsv_lines,
)
from jaxdna.data.sequence_stats import SequenceStats
from jaxdna.data.streams import BLOCK_BYTES
from jaxdna.data.variants import read_variants
from jaxdna.errors import UserError
from jaxdna.runs.trained import Trained
from jaxdna.tasks.task import Task


class Windows(NamedTuple):
    """Windows along long sequences, in bases."""

    size: int
    stride: int


def predict_sequences(
    trained: Trained,
    scorer: Scorer,
    sequences: str,
    output: str,
    form: str,
    windows: Windows | None,
    track: str | None,
    console: Console,
) -> dict[str, Any]:
    """Scores every record of a FASTA file, or windows along them, in order.

    Args:
      trained: the model, which says how lengths and letters are treated.
      scorer: the same, ready to scan.
      sequences: FASTA, or `-`.
      output: the file that appears whole, or `-`.
      form: of the file, as `prediction_files.output_format` says.
      windows: what is scored of each record; None: the record.
      track: the answer that a file of positions holds; needed where there are several.
      console: where notes and the speed go.

    Returns:
      `rows`, those `skipped` without a score, `bases`, `seconds` and `output`.

    Raises:
      UserError: the file is wrong, the windows do not fit the model, or nothing can be written.
    """
    task, data, stats = trained.task, trained.config.data, SequenceStats()
    lengths = Lengths(data.get("lengths", "error"), trained.length)
    if windows:
        _check_window(windows.size, scorer)
        if lengths.policy == "pad" and windows.size < trained.length:
            console.print(
                f"note     windows are scored without padding, but training padded sequences to "
                f"{trained.length} bases: --window={trained.length} gives windows like those that "
                "it was trained on"
            )
    if form != "tsv":
        _check_track(track, task, output, form)
    # A record that is cropped to its middle must be seen whole.
    whole = lengths.policy == "center_crop" and not windows
    most = max(BLOCK_BYTES, 2 * trained.length, 2 * (windows.size if windows else 0))
    begin = time.perf_counter()
    pieces = read_fasta_pieces(
        sequences, data.get("ambiguous", "zero"), stats, None if whole else most
    )
    if windows:
        scored = score_windows(pieces, scorer, windows.size, windows.stride)
    else:
        scored = score_records(pieces, scorer, lengths)
    counts = {"rows": 0, "skipped": 0}

    def counted() -> Iterator[Rows]:
        for rows in scored:
            counts["rows"] += len(rows)
            counts["skipped"] += int(np.isnan(rows.outputs[:, 0]).sum())
            yield rows

    if form == "tsv":
        with _writing(output), open_output(output) as stream:
            stream.write(header(task, trained.members if scorer.each else ()))
            for rows in counted():
                stream.write(tsv_lines(task, _names(rows, windows), rows.outputs, rows.notes))
    else:
        assert windows  # `output_format` has seen to it
        column = task.names.index(track or task.names[0])
        _write_track(counted(), task, column, windows.stride, output, form)
    seconds = time.perf_counter() - begin
    rate = stats.bases / seconds
    speed = f"{rate / 1e6:.1f} million" if rate >= 1e5 else f"{rate:,.0f}"
    for note in stats.notes():
        console.print(f"note     {note}")
    console.print(
        f"{counts['rows']:,} rows ({counts['skipped']:,} without a score), "
        f"{stats.bases:,} bases in {seconds:.1f} s: {speed} bases per second"
    )
    return {**counts, "bases": stats.bases, "seconds": round(seconds, 3), "output": output}


def _names(rows: Rows, windows: Windows | None) -> list[str]:
    """Names of rows: of their records, and where in them a window lies."""
    if not windows:
        return list(rows.ids)
    spans = zip(rows.ids, rows.starts.tolist(), rows.stops.tolist(), strict=True)
    return [f"{name}:{start}-{stop}" for name, start, stop in spans]


def _write_track(
    scored: Iterable[Rows], task: Task, column: int, stride: int, output: str, form: str
) -> None:
    """Writes one answer of each window as BED, bedGraph or bigWig."""
    place: Callable[..., str] = bed_lines if form == "bed" else make_bedgraph(stride)
    sizes: dict[str, int] = {}
    opened: Any = open_bigwig(output, sizes) if form == "bigwig" else open_output(output)
    with _writing(output), opened as stream:
        for rows in scored:
            # The last window of a record ends with it.
            sizes.update(zip(rows.ids, rows.stops.tolist(), strict=True))
            values = task.predicted(rows.outputs)[:, column]
            stream.write(place(rows.ids, rows.starts, rows.stops, values))


def predict_variants(
    trained: Trained,
    scorer: Scorer,
    variants: str,
    genome: Path,
    forms: Mapping[str, str],
    slide: bool,
    console: Console,
) -> dict[str, Any]:
    """Scores every alternative allele of a VCF file against its reference.

    Args:
      trained: the model.
      scorer: the same, ready to scan.
      variants: VCF, plain, gzip or bgzip.
      genome: FASTA or 2bit that the variants refer to.
      forms: for each file to write its form, `tsv` or `vcf`.
      slide: whether all windows with the allele are tried, not the one with it in its middle.
      console: where notes and the speed go.

    Returns:
      `rows`, those `skipped` without a score, `mismatches` with the genome, `seconds`, `output`.

    Raises:
      UserError: a file is wrong, or cannot be written.
    """
    settings = trained.config
    reference = Genome(
        genome, settings.data.get("ambiguous", "zero"), settings.runtime.get("data_cache", "auto")
    )
    lines, begin = list[str](), time.perf_counter()
    read = read_variants(variants, reference, trained.length, slide, lines)
    scored = score_variants(read, scorer, slide)
    console.print(f"note     windows of {trained.length:,} bases are centred on the middle of REF")
    with ExitStack() as opened:
        streams = []
        for path, form in forms.items():
            opened.enter_context(_writing(path))
            streams.append((form, opened.enter_context(open_output(path))))
        counts = write_variants(streams, trained.task, scored, slide, (lines, reference.lengths))
    seconds = time.perf_counter() - begin
    console.print(
        f"{counts['rows']:,} alleles ({counts['skipped']:,} without a score, "
        f"{counts['mismatches']:,} whose REF differs from the genome) in {seconds:.1f} s: "
        f"{counts['rows'] / seconds:,.0f} per second"
    )
    output = next(iter(forms)) if len(forms) == 1 else list(forms)
    return {**counts, "seconds": round(seconds, 3), "output": output}


@contextmanager
def _writing(output: str) -> Iterator[None]:
    """Says in a sentence what `open_output` leaves as it is: a device, a pipe, stdout."""
    try:
        yield
    except BrokenPipeError:  # whoever reads has had enough
        raise
    except OSError as error:
        raise UserError(
            f"--output={output} cannot be written ({(error.strerror or str(error)).lower()})"
        ) from error


def _check_window(size: int, scorer: Scorer) -> None:
    """Refuses windows that the network cannot read."""
    if not scorer.fits(np.array(size)):
        legal = f"{scorer.width}" if scorer.whole else f"{scorer.width} or more"
        raise UserError(f"--window={size} is not legal: {scorer.misfit(size)}; legal: {legal}")


def _check_track(track: str | None, task: Task, output: str, form: str) -> None:
    """Refuses files of positions that cannot hold one answer of this task for each."""
    legal = ", ".join(task.names)
    if track and track not in task.names:
        raise UserError(f"--track={track} is unknown; legal: {legal}")
    if task.outputs > 1 and not track:
        raise UserError(
            f"--output={output} holds one value for each position, but the network has "
            f"{task.outputs} answers; choose one with --track: {legal}"
        )
    if form == "bed" and task.target_dtype != "int32":
        raise UserError(
            f"--output={output} holds probabilities, but the network answers in numbers; "
            "legal: .bedGraph or .bw"
        )
