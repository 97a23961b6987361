"""Trains a model and evaluates it on the test split. The same command again resumes."""

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from jaxdna.cli.common import add_config, add_workdir
from jaxdna.config import load_config
from jaxdna.config_files import run_name
from jaxdna.errors import UserError
from jaxdna.training.run_lock import RENEW_SECONDS

if TYPE_CHECKING:
    from rich.console import Console

    from jaxdna.training.guard import Guard
    from jaxdna.training.run_folder import RunFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's flags."""
    add_config(parser)
    add_workdir(parser, default="runs/NAME-OF-CONFIG")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains; returns the summary."""
    config = load_config(arguments.config, arguments.overrides)
    workdir = arguments.workdir or Path("runs") / run_name(arguments.config)

    # First of all, since a signal can come while the rest is imported.
    from jaxdna.training.guard import Guard

    with Guard(config.watchdog) as guard:
        return _train(arguments, config, workdir, guard)


def _train(
    arguments: argparse.Namespace, config: ConfigDict, workdir: Path, guard: "Guard"
) -> dict[str, Any]:
    from rich.console import Console

    from jaxdna.training.cross_validation import folds_table
    from jaxdna.training.display import make_console, results
    from jaxdna.training.run_folder import RunFolder

    console = make_console()
    out = Console(highlight=False)
    if config.data.get("folds") and config.data.fold == -1:
        summary = _train_folds(config, workdir, guard, console)
        if not arguments.json:
            out.print(folds_table(summary))
        return summary
    folder = RunFolder(workdir)
    summary = _train_one(config, folder, guard, console)
    if not arguments.json:
        out.print(results(summary))
    _closing_notes(summary, folder, console)
    return summary


def _train_folds(
    config: ConfigDict, workdir: Path, guard: "Guard", console: "Console"
) -> dict[str, Any]:
    """Trains every fold in a folder of its own."""
    import jax

    from jaxdna.parallel.runtime import start_backend
    from jaxdna.training.cross_validation import cross_validate
    from jaxdna.training.display import loud
    from jaxdna.training.run_folder import RunFolder

    start_backend(config, console)
    if jax.process_count() > 1:
        raise UserError(
            f"--config.data.folds={config.data.folds} trains the folds one after the other in "
            "one process; legal with several: --config.data.fold=0 and so on, one run for each"
        )
    whole = RunFolder(workdir)
    whole.check(config)
    with whole.locked(loud(console)) as held, guard.every(RENEW_SECONDS, held.renew):

        def train_one(fold: ConfigDict, folder: RunFolder) -> dict[str, Any]:
            guard.enter("start")
            return _train_one(fold, folder, guard, console)

        return cross_validate(config, whole, train_one)


def _train_one(
    config: ConfigDict, folder: "RunFolder", guard: "Guard", console: "Console"
) -> dict[str, Any]:
    """Trains, resumes, or finds the run finished."""
    import jax

    from jaxdna.parallel.cluster import is_primary, one_fate, reached_stop
    from jaxdna.training.display import loud
    from jaxdna.training.loop import train
    from jaxdna.training.prepare import prepare, show

    config = folder.settle(config)
    changes = folder.check(config)
    for change in changes:
        console.print(f"note     changed since this run began: {change}")
    summary = folder.read_summary()
    # A change of layout or of the runtime does not undo what is done; a longer schedule does.
    longer = [line for line in changes if line.startswith(("train.", "optimizer."))]
    if summary is not None and not longer:
        console.print(
            f"{folder.path} is a finished run: nothing to train (to train anew: --workdir)"
        )
        return summary
    with one_fate(), ExitStack() as stack:

        def joined() -> None:
            """Before any data are read, and as soon as it is known which process this is."""
            if jax.process_count() > 1:
                guard.share(reached_stop)
            folder.writes = is_primary()
            if folder.writes:
                held = stack.enter_context(folder.locked(loud(console)))
                stack.enter_context(guard.every(RENEW_SECONDS, held.renew))

        prepared = prepare(config, console, joined)
        show(prepared, console)
        prepared.program.check()
        folder.check_data(prepared.dataset)
        folder.open(prepared.program.config)
        folder.record_data(prepared.dataset)
        folder.drop_summary()
        return train(prepared, folder, guard, console)


def _closing_notes(summary: dict[str, Any], folder: Any, console: Any) -> None:
    stop = "stopped early" if summary["stopped_early"] else "ran all epochs"
    seconds, speed = summary["seconds"], summary["samples_per_second"]
    console.print(
        f"{stop} after {summary['epochs']}; kept the parameters of epoch {summary['best_epoch']}"
    )
    if not summary["left_plateau"]:
        console.print(
            "[bold]This run never left the plateau of chance: it has learnt nothing. Try another "
            "--config.seed, a higher --config.optimizer.learning_rate, or more examples.[/bold]"
        )
    console.print(
        f"{seconds['total']:.1f} s in all: compile {seconds['compile']:.1f}, "
        f"train {seconds['train']:.1f} ({speed or 0:,} examples/s), "
        f"evaluate {seconds['eval']:.1f}, checkpoints {seconds['checkpoint']:.1f}"
    )
    console.print(f"curves, metrics and checkpoints are in {folder.path}")
