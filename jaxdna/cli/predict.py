"""Scores sequences with the best checkpoint of a run folder, or the alleles of a VCF file.

  jaxdna predict --workdir=runs/tal1 --sequences=x.fa --output=scores.tsv
  jaxdna predict --workdir=runs/tal1 --sequences=g.fa --window=500 --output=g.bw
  jaxdna predict --workdir=runs/tal1 --variants=x.vcf --genome=g.fa

One row per record, in order: id, probability, logit, note; NA and the reason for what cannot be
scored. Records are read as in training (its --config.data.lengths and .ambiguous); with --window,
one row per window.
"""

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from jaxdna.cli.common import add_workdir
from jaxdna.errors import UserError
from jaxdna.schema import STRAND_CHOICES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's flags."""
    add_workdir(parser)
    parser.add_argument(
        "--sequences", metavar="X.fa[.gz]", help="FASTA, plain, gzip or bgzip, or - for stdin"
    )
    parser.add_argument(
        "--output", action="append", metavar="Y.tsv[.gz]",
        help="TSV; with --variants also .vcf, or both: --output=Y.tsv --output=Y.vcf.gz; with "
        "--window also .bed, .bedGraph or .bw; - for stdout (default)",
    )  # fmt: skip
    parser.add_argument("--strands", choices=STRAND_CHOICES, help="default: as it was trained")
    parser.add_argument("--window", type=int, metavar="BASES", help="score windows of this length")
    parser.add_argument(
        "--stride", type=int, metavar="BASES", help="from window to window (default: half of one)"
    )
    parser.add_argument(
        "--track", metavar="NAME", help="the answer that BED, bedGraph or bigWig show, of several"
    )
    parser.add_argument("--variants", metavar="X.vcf[.gz]", help="score these alleles instead")
    parser.add_argument("--genome", type=Path, metavar="G.fa", help="what the variants refer to")
    parser.add_argument(
        "--sites", choices=("center", "all"), default="center",
        help="center: the window with the allele in its middle (default); all: also, of all "
        "windows that contain it, the one whose score it changes most",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Predicts; returns what was counted."""
    outputs = arguments.output or ["-"]
    _check(arguments, outputs)

    import numpy as np

    from jaxdna.analysis.predictions import Lengths, score_records, score_windows
    from jaxdna.analysis.scorers import make_scorer
    from jaxdna.cli.common import open_trained
    from jaxdna.console import make_console
    from jaxdna.data.bigwig import open_bigwig
    from jaxdna.data.fasta import read_fasta_pieces
    from jaxdna.data.prediction_files import (
        bed_lines,
        header,
        make_bedgraph,
        open_output,
        output_format,
        tsv_lines,
    )
    from jaxdna.data.sequence_stats import SequenceStats
    from jaxdna.data.streams import BLOCK_BYTES

    console = make_console()
    windows, variants = arguments.window is not None, arguments.variants is not None
    forms = {path: output_format(path, windows, variants) for path in outputs}
    trained = open_trained(arguments)
    scorer = make_scorer(trained, arguments.strands)
    task = trained.task
    if arguments.variants:
        return _variants(arguments, forms, trained, scorer, console)
    ((path, form),) = forms.items()
    if arguments.window is not None and not scorer.fits(np.array(arguments.window)):
        legal = f"{scorer.width}" if scorer.whole else f"{scorer.width} or more"
        raise UserError(
            f"--window={arguments.window} is not legal: {scorer.misfit(arguments.window)}; "
            f"legal: {legal}"
        )
    track = arguments.track or task.names[0]
    if form != "tsv":
        _check_track(arguments.track, task, path, form)
    data, stats = trained.config.data, SequenceStats()
    lengths = Lengths(data.get("lengths", "error"), trained.length)
    if arguments.window and lengths.policy == "pad" and arguments.window < trained.length:
        console.print(
            f"note     windows are scored without padding, and training padded to "
            f"{trained.length} bases: --window={trained.length} is what the model knows"
        )
    # A record that is cropped to its middle must be seen whole.
    whole = lengths.policy == "center_crop" and arguments.window is None
    pieces = read_fasta_pieces(
        arguments.sequences,
        data.get("ambiguous", "zero"),
        stats,
        None if whole else max(BLOCK_BYTES, 2 * trained.length, 2 * (arguments.window or 0)),
    )
    begin = time.perf_counter()
    counts = {"rows": 0, "skipped": 0}
    if arguments.window is None:
        scored = score_records(pieces, scorer, lengths)
    else:
        stride = arguments.stride or max(1, arguments.window // 2)
        scored = score_windows(pieces, scorer, arguments.window, stride)
        place = bed_lines if form == "bed" else make_bedgraph(stride)
    sizes: dict[str, int] = {}
    bigwig = form == "bigwig"
    output: Any = open_bigwig(path, sizes) if bigwig else open_output(path)
    with _said_in_a_sentence(path), output as stream:
        if form == "tsv":
            stream.write(header(task))
        for rows in scored:
            counts["rows"] += len(rows)
            counts["skipped"] += int(np.isnan(rows.outputs[:, 0]).sum())
            if form != "tsv":
                # The last window of a record ends with it.
                sizes.update(zip(rows.ids, rows.stops.tolist(), strict=True))
                values = task.predicted(rows.outputs)[:, task.names.index(track)]
                stream.write(place(rows.ids, rows.starts, rows.stops, values))
                continue
            names = rows.ids
            if arguments.window is not None:
                spans = zip(names, rows.starts.tolist(), rows.stops.tolist(), strict=True)
                names = [f"{name}:{start}-{stop}" for name, start, stop in spans]
            stream.write(tsv_lines(task, names, rows.outputs, rows.notes))
    seconds = time.perf_counter() - begin
    for note in stats.notes():
        console.print(f"note     {note}")
    console.print(
        f"{counts['rows']:,} rows ({counts['skipped']:,} without a score), "
        f"{stats.bases:,} bases in {seconds:.1f} s: "
        f"{stats.bases / seconds / 1e6:.1f} million bases a second"
    )
    return {
        **counts,
        "bases": stats.bases,
        "seconds": round(seconds, 3),
        "output": path,
    }


def _check_track(track: str | None, task: Any, path: str, form: str) -> None:
    """Refuses files of positions that cannot hold one answer of this task for each."""
    legal = ", ".join(task.names)
    if track and track not in task.names:
        raise UserError(f"--track={track} is unknown; legal: {legal}")
    if task.outputs > 1 and not track:
        raise UserError(
            f"--output={path} holds one value for each position, and the network has "
            f"{task.outputs} answers; legal: one of them with --track: {legal}"
        )
    if form == "bed" and task.target_dtype != "int32":
        raise UserError(
            f"--output={path} holds probabilities, and the network answers in numbers; "
            "legal: .bedGraph or .bw"
        )


def _check(arguments: argparse.Namespace, outputs: list[str]) -> None:
    """Refuses flags that do not go together; touches nothing."""
    if bool(arguments.sequences) == bool(arguments.variants):
        raise UserError("one of --sequences=X.fa and --variants=X.vcf is needed, and only one")
    if arguments.variants and not arguments.genome:
        raise UserError(f"--variants={arguments.variants} needs --genome=G.fa")
    if arguments.genome and not arguments.variants:
        raise UserError(f"--genome={arguments.genome} needs --variants=X.vcf")
    if arguments.sites != "center" and not arguments.variants:
        raise UserError(f"--sites={arguments.sites} needs --variants=X.vcf")
    if arguments.window is not None and arguments.variants:
        raise UserError("--window goes with --sequences; variants have the model's length")
    if arguments.stride is not None and (
        arguments.window is None or not 1 <= arguments.stride <= arguments.window
    ):
        raise UserError(
            f"--stride={arguments.stride} is not legal: it must be 1 to --window, which it needs"
        )
    given = " ".join(f"--output={path}" for path in outputs)
    if len(outputs) > 1 and not arguments.variants:
        raise UserError(f"{given}: several files need --variants; legal: one --output")
    if len({os.path.realpath(path) for path in outputs}) < len(outputs):
        raise UserError(f"{given} is one file twice; legal: files that differ")
    if arguments.json and "-" in outputs:
        raise UserError("--json and the rows would both go to stdout; legal: --output=Y.tsv")


@contextmanager
def _said_in_a_sentence(output: str) -> Iterator[None]:
    """For what `open_output` leaves as it is: a device, a pipe, stdout."""
    try:
        yield
    except BrokenPipeError:  # whoever reads has had enough
        raise
    except OSError as error:
        raise UserError(
            f"--output={output} cannot be written ({(error.strerror or str(error)).lower()})"
        ) from error


def _variants(
    arguments: argparse.Namespace, forms: dict[str, str], trained: Any, scorer: Any, console: Any
) -> dict[str, Any]:
    from jaxdna.analysis.variant_effects import score_variants, write_variants
    from jaxdna.data.genome import Genome
    from jaxdna.data.prediction_files import open_output
    from jaxdna.data.variants import read_variants

    genome = Genome(
        arguments.genome,
        trained.config.data.get("ambiguous", "zero"),
        trained.config.runtime.get("data_cache", "auto"),
    )
    slide, header, begin = arguments.sites == "all", list[str](), time.perf_counter()
    variants = read_variants(arguments.variants, genome, trained.length, slide, header)
    scored = score_variants(variants, scorer, slide)
    console.print(f"note     windows of {trained.length:,} bases are centred on the middle of REF")
    with ExitStack() as opened:
        streams = []
        for path, form in forms.items():
            opened.enter_context(_said_in_a_sentence(path))
            streams.append((form, opened.enter_context(open_output(path))))
        counts = write_variants(streams, trained.task, scored, slide, (header, genome.lengths))
    seconds = time.perf_counter() - begin
    console.print(
        f"{counts['rows']:,} alleles ({counts['skipped']:,} without a score, "
        f"{counts['mismatches']:,} whose REF differs from the genome) in {seconds:.1f} s: "
        f"{counts['rows'] / seconds:,.0f} a second"
    )
    output = next(iter(forms)) if len(forms) == 1 else list(forms)
    return {**counts, "seconds": round(seconds, 3), "output": output}
