"""Scores the best checkpoint of a run folder on its test split, or on labelled files.

Labelled files: --positives and --negatives (FASTA), --sequences (FASTA) with --labels (a table
with columns id and label), or --table (sequence, tab, 0 or 1). Lengths and ambiguous letters are
treated as in training.
"""

import argparse
from typing import Any

from jaxdna.cli.common import add_workdir
from jaxdna.errors import UserError

_FILES = ("sequences", "labels", "positives", "negatives", "table")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's flags."""
    add_workdir(parser)
    parser.add_argument("--sequences", metavar="X.fa", help="FASTA, plain or gzipped; or - (stdin)")
    parser.add_argument("--labels", metavar="Y.tsv", help="header with id and label; 0 or 1")
    parser.add_argument("--positives", metavar="A.fa", help="FASTA of bound sequences")
    parser.add_argument("--negatives", metavar="B.fa", help="FASTA of unbound sequences")
    parser.add_argument("--table", metavar="T.tsv", help="rows of sequence, tab, 0 or 1")
    parser.add_argument(
        "--strands", choices=("average", "forward", "max"), help="default: as it was trained"
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Evaluates; returns the parts of the summary that apply."""
    given = tuple(key for key in _FILES if getattr(arguments, key))
    if given and given not in (("sequences", "labels"), ("positives", "negatives"), ("table",)):
        raise UserError(
            f"{' and '.join(f'--{key}' for key in given)} given; legal: --positives and "
            "--negatives, --sequences and --labels, or --table"
        )

    from rich.console import Console

    from jaxdna.training.display import make_console, measures_table

    notes = make_console()
    summary = _on_files(arguments, notes) if given else _on_test_split(arguments, notes)
    if not arguments.json:
        Console(highlight=False).print(measures_table(summary))
    return summary


def _on_test_split(arguments: argparse.Namespace, console: Any) -> dict[str, Any]:
    import jax

    from jaxdna.config import flat, override, validate
    from jaxdna.models.network import parameter_count
    from jaxdna.training.checkpoint import load_best, params_sha256
    from jaxdna.training.display import loud
    from jaxdna.training.evaluation import Evaluator
    from jaxdna.training.metrics import scores
    from jaxdna.training.prepare import prepare
    from jaxdna.training.run_folder import RunFolder
    from jaxdna.versions import versions

    folder = RunFolder(arguments.workdir)
    config = validate(override(flat(folder.read_model_config()), arguments.overrides))
    if arguments.strands:
        if "strands" not in config.model:
            raise UserError(f"--strands={arguments.strands} needs a run that reads sequences")
        config.model.strands = arguments.strands
    prepared = prepare(config, console)
    best = load_best(folder.checkpoints, prepared.program.abstract_state.params, loud(console))
    dataset = prepared.dataset
    labels = dataset.splits["test"].y
    logits = Evaluator(prepared.program, dataset.splits["test"]).logits(best)
    return {
        "params": parameter_count(best),
        "params_sha256": params_sha256(prepared.program.gather(best)),
        "test": scores(labels, logits),
        "measures": _measures(labels, logits[:, 0]) if logits.shape[1] == 1 else None,
        "ceiling": dataset.ceiling("test") if dataset.ceiling else None,
        "mesh": dict(prepared.mesh.shape),
        "devices": prepared.mesh.size,
        "processes": jax.process_count(),
        "versions": versions(),
    }


def _on_files(arguments: argparse.Namespace, console: Any) -> dict[str, Any]:
    import numpy as np

    from jaxdna.analysis.labelled_scores import score_labelled
    from jaxdna.analysis.scorer import Scorer
    from jaxdna.cli.common import open_trained
    from jaxdna.models.network import parameter_count
    from jaxdna.training.checkpoint import params_sha256
    from jaxdna.training.metrics import scores
    from jaxdna.versions import versions

    trained = open_trained(arguments, console)
    files = {key: getattr(arguments, key) for key in _FILES if getattr(arguments, key)}
    labels, logits, notes = score_labelled(trained, Scorer(trained, arguments.strands), **files)
    for note in notes:
        console.print(f"note     {note}")
    if len(np.unique(labels)) < 2:
        raise UserError(
            f"{' and '.join(files.values())} have {len(labels)} scored sequences of one class; "
            "legal: both classes"
        )
    return {
        "params": parameter_count(trained.params),
        "params_sha256": params_sha256(trained.params),
        "examples": len(labels),
        "test": scores(labels, logits[:, None]),
        "measures": _measures(labels, logits),
        "ceiling": None,
        "devices": trained.mesh.size,
        "versions": versions(),
    }


def _measures(labels: Any, logits: Any) -> dict[str, Any] | None:
    from jaxdna.training.measures import measure

    if not 0 < labels.sum() < len(labels):
        return None
    return {name: found._asdict() for name, found in measure(labels, logits).items()}
