"""Scores the best checkpoint of a run folder on its test split, or on labelled files.

  jaxdna evaluate --workdir=runs/tal1
  jaxdna evaluate --workdir=runs/fasta --positives=a.fa --negatives=b.fa

Labelled files: --positives and --negatives (FASTA), --sequences (FASTA) with --labels (a table
with columns id and label), or --table (TSV or CSV: sequence and 0 or 1). Where other targets than
bound or not were trained on, these tables have their columns. Lengths and ambiguous letters are
treated as in training.
"""

import argparse
from typing import Any

from jaxdna.cli.common import add_member, add_workdir
from jaxdna.schema import STRAND_CHOICES

_FILES = ("sequences", "labels", "positives", "negatives", "table")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's flags."""
    add_workdir(parser)
    add_member(parser)
    parser.add_argument("--sequences", metavar="X.fa", help="FASTA, plain or gzipped; or - (stdin)")
    parser.add_argument("--labels", metavar="Y.tsv", help="header with id and label (or targets)")
    parser.add_argument("--positives", metavar="A.fa", help="FASTA of bound sequences")
    parser.add_argument("--negatives", metavar="B.fa", help="FASTA of unbound sequences")
    parser.add_argument("--table", metavar="T.tsv", help="rows of sequence and target, or a header")
    parser.add_argument("--strands", choices=STRAND_CHOICES, help="default: as it was trained")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Evaluates; returns the parts of the summary that apply."""
    from jaxdna.api import open_run
    from jaxdna.console import results_console
    from jaxdna.runs.display import measures_table, output_tables
    from jaxdna.runs.members_table import members_tables

    files = {key: getattr(arguments, key) for key in _FILES if getattr(arguments, key)}
    run = open_run(arguments.workdir, arguments.overrides, member=arguments.member)
    summary = run.evaluate(arguments.strands, **files)
    if not arguments.json:
        results_console().print(measures_table(summary), *output_tables(summary), sep="\n")
        if "members" in summary:
            results_console().print(*members_tables(summary), sep="\n")
    return summary
