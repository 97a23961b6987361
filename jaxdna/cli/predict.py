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
from pathlib import Path
from typing import Any

from jaxdna.cli.common import add_member, add_workdir
from jaxdna.errors import UserError
from jaxdna.schema import STRAND_CHOICES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's flags."""
    add_workdir(parser)
    add_member(parser)
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
        "--members",
        action="store_true",
        help="also what each of several networks says and their standard deviation, after the note",
    )
    parser.add_argument(
        "--stride",
        type=int,
        metavar="BASES",
        help="bases from one window to the next (default: half a window)",
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

    from jaxdna.analysis.predict_files import Windows, predict_sequences, predict_variants
    from jaxdna.analysis.scorers import make_scorer
    from jaxdna.cli.common import open_trained
    from jaxdna.console import make_console
    from jaxdna.data.prediction_files import output_format

    console, size = make_console(), arguments.window
    variants = arguments.variants is not None
    forms = {path: output_format(path, size is not None, variants) for path in outputs}
    if arguments.members and set(forms.values()) != {"tsv"}:
        raise UserError(f"--members adds columns, and --output={outputs[0]} has none; legal: .tsv")
    trained = open_trained(arguments)
    scorer = make_scorer(trained, arguments.strands)
    if arguments.members and len(trained.ensemble) < 2:
        raise UserError(
            "--members needs a run whose answer is the mean of several networks, and this one has "
            "one; leave it out"
        )
    scorer.each = arguments.members
    if variants:
        slide = arguments.sites == "all"
        return predict_variants(
            trained, scorer, arguments.variants, arguments.genome, forms, slide, console
        )
    windows = None if size is None else Windows(size, arguments.stride or max(1, size // 2))
    ((path, form),) = forms.items()
    return predict_sequences(
        trained, scorer, arguments.sequences, path, form, windows, arguments.track, console
    )


def _check(arguments: argparse.Namespace, outputs: list[str]) -> None:
    """Refuses flags that do not go together; touches nothing."""
    if bool(arguments.sequences) == bool(arguments.variants):
        raise UserError("give either --sequences=X.fa or --variants=X.vcf")
    if arguments.variants and not arguments.genome:
        raise UserError(f"--variants={arguments.variants} needs --genome=G.fa")
    if arguments.genome and not arguments.variants:
        raise UserError(f"--genome={arguments.genome} needs --variants=X.vcf")
    if arguments.sites != "center" and not arguments.variants:
        raise UserError(f"--sites={arguments.sites} needs --variants=X.vcf")
    if arguments.window is not None and arguments.variants:
        raise UserError(
            "--window goes with --sequences; windows around variants always have the model's length"
        )
    if arguments.stride is not None and (
        arguments.window is None or not 1 <= arguments.stride <= arguments.window
    ):
        raise UserError(
            f"--stride={arguments.stride} is not legal: it must be 1 to --window, which it needs"
        )
    if arguments.members and (arguments.member is not None or arguments.variants):
        other = "--variants" if arguments.variants else f"--member={arguments.member}"
        raise UserError(f"--members does not go with {other}; give one of them")
    given = " ".join(f"--output={path}" for path in outputs)
    if len(outputs) > 1 and not arguments.variants:
        raise UserError(f"{given}: only --variants takes several; give one --output")
    if len({os.path.realpath(path) for path in outputs}) < len(outputs):
        raise UserError(f"{given} is the same file twice; give different files")
    if arguments.json and "-" in outputs:
        raise UserError("--json and the rows would both go to stdout; give --output=Y.tsv")
