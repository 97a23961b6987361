"""Trains a model and evaluates it on the test split. The same command again resumes.

jaxdna train --config=tal1
jaxdna train --positives=bound.fa --negatives=unbound.fa
jaxdna train --config=tal1 --config.train.epochs=40 --workdir=runs/longer
"""

import argparse
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from jaxdna.cli.common import add_config, add_own_sequences, add_workdir, own_sequences
from jaxdna.config import load_config
from jaxdna.config_files import run_name
from jaxdna.errors import UserError
from jaxdna.parallel import plugins
from jaxdna.parallel.start import decide
from jaxdna.storage.places import Place
from jaxdna.storage.trial import check_store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's flags."""
    add_config(parser, required=False)
    add_own_sequences(parser)
    add_workdir(parser, default="runs/NAME-OF-CONFIG; NAME-2 and so on for other settings")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains; returns the summary."""
    spec, overrides = own_sequences(arguments)
    config = load_config(spec, overrides, measure=False)

    # First of all, since a signal can come while the rest is imported.
    from jaxdna.runs.guard import Guard

    with Guard(config.watchdog) as guard:
        # One of several processes has to join the others before it can tell them.
        alone = decide(config.cluster, os.environ, plugins.chips_seen()).how == "single"
        if arguments.workdir and alone:
            check_store(arguments.workdir)

        from jaxdna.api import train
        from jaxdna.console import make_console, results_console
        from jaxdna.runs.cross_validation import folds_table
        from jaxdna.runs.display import output_tables, results
        from jaxdna.runs.members_table import calibration_note, members_tables
        from jaxdna.runs.own_folder import own_folder

        with suppress(UserError):  # of several processes all are told: when data are loaded
            config = load_config(spec, overrides)
        workdir = arguments.workdir
        if not workdir:
            workdir, note = own_folder(Path("runs") / run_name(spec), config)
            if note:
                make_console().print(f"note     {note}")
        summary = train(config, workdir, guard=guard).summary
        folds = "folds" in summary
        tested = folds or any(score is not None for score in summary["test"].values())
        if tested and not arguments.json:
            shown = [folds_table(summary)] if folds else [results(summary), *output_tables(summary)]
            results_console().print(*shown, sep="\n")
        if "members" in summary and not arguments.json:
            results_console().print(*members_tables(summary), sep="\n")
            make_console().print(calibration_note(summary))
        if folds:
            make_console().print(summary["verdict"], style="bold")
            make_console().print(f"see {_where(workdir)}")
        else:
            _closing_notes(summary, workdir, make_console())
    return summary


def _closing_notes(summary: dict[str, Any], workdir: Place, console: Any) -> None:
    stop = "stopped early after" if summary["stopped_early"] else "ran all"
    seconds, speed = summary["seconds"], summary["samples_per_second"]
    console.print(
        f"{stop} {summary['epochs']} epochs; kept the parameters of epoch {summary['best_epoch']}"
    )
    console.print(
        f"{seconds['total']:.1f} s in all: compile {seconds['compile']:.1f}, "
        f"train {seconds['train']:.1f} ({speed or 0:,} examples/s), "
        f"evaluate {seconds['eval']:.1f}, checkpoints {seconds['checkpoint']:.1f}"
    )
    from jaxdna.tasks.verdict import LEARNT_NOTHING

    hint = (
        ""
        if summary["left_plateau"]
        else " Try another --config.seed, a higher --config.optimizer.learning_rate, or more "
        "examples."
    )
    verdict = summary.get("verdict")  # a run of an older version may have none
    if verdict or hint:
        motif = summary.get("motif", "") if summary["left_plateau"] else ""
        console.print(f"{verdict or LEARNT_NOTHING}{hint} {motif}".rstrip(), style="bold")
    console.print(f"see {_where(workdir)}")


def _where(workdir: Place) -> str:
    return f"{workdir / 'report.html'}; everything else is in {workdir}"
