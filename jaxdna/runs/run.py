"""One run in its folder: begun, resumed, or found finished."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import jax
from ml_collections import ConfigDict
from rich.console import Console

from jaxdna.console import loud
from jaxdna.data.dataset import Dataset
from jaxdna.data.labelled_files import in_test_folds
from jaxdna.errors import EXIT_OK, EXIT_PREEMPTED, Preempted, UserError
from jaxdna.parallel.cluster import is_primary, reached_stop
from jaxdna.parallel.mesh import make_mesh
from jaxdna.parallel.peers import one_fate
from jaxdna.parallel.runtime import join_others, start_backend
from jaxdna.runs.common_folder import check_common
from jaxdna.runs.cross_validation import (
    TrainOne,
    cross_validate,
    deal,
    fold_config,
    fold_folder,
)
from jaxdna.runs.grid_groups import grid_groups, train_groups
from jaxdna.runs.guard import Guard
from jaxdna.runs.loop import Draw, fit, train
from jaxdna.runs.profile import traced_steps
from jaxdna.runs.run_folder import RunFolder
from jaxdna.runs.student import student_config, student_folder, taught_by
from jaxdna.storage.locks import RENEW_SECONDS
from jaxdna.storage.places import Place
from jaxdna.strategies.prepare import prepare, show


def train_in(
    config: ConfigDict, workdir: Place, guard: Guard, console: Console, draw: Draw
) -> dict[str, Any]:
    """Trains a configuration in a folder, all folds and networks of it where it asks for several.

    Args:
      config: a whole configuration.
      workdir: the run folder; made if absent.
      guard: hears signals and watches the clock.
      console: where tables and notes go.
      draw: draws the report of a run that is finished.

    Returns:
      The summary, as in summary.json.

    Raises:
      UserError: the configuration does not fit the devices or the folder.
      JaxdnaError: as `runs.loop.train`.
    """
    if config.data.get("folds") and config.data.fold == -1:
        said = f"--config.data.folds={config.data.folds} trains the folds"
        alone = "--config.data.fold=0 and so on, one run for each"
        folds = partial(cross_validate, train_all=partial(_train_folds, guard, console))
        return _train_parts(config, workdir, guard, console, draw, folds, said, alone)
    if groups := grid_groups(config):
        said = f"--config.members.grid={config.members.grid} trains networks that differ in size"
        whole = partial(train_groups, groups)
        return _train_parts(config, workdir, guard, console, draw, whole, said, "one process")
    return _train_one(config, RunFolder(workdir), guard, console, draw, EXIT_OK)


def _train_parts(
    config: ConfigDict,
    workdir: Place,
    guard: Guard,
    console: Console,
    draw: Draw,
    train_all: Callable[[ConfigDict, RunFolder, TrainOne], dict[str, Any]],
    said: str,
    alone: str,
) -> dict[str, Any]:
    """Trains runs one after the other, each in a folder of its own.

    Args:
      config: of the whole.
      workdir: what holds those folders.
      guard: as those of `train_in`, and so are the next two.
      console: see there.
      draw: see there.
      train_all: trains each of them with a function that trains one.
      said: what is trained, for a sentence.
      alone: what is legal with several processes.
    """
    start_backend(config, console)
    if jax.process_count() > 1:
        raise UserError(f"{said} one after the other in one process; legal with several: {alone}")
    whole = RunFolder(workdir)
    config = whole.settle(config)
    whole.check(config)
    with whole.locked(loud(console)) as held, guard.every(RENEW_SECONDS, held.renew):

        def train_one(own: ConfigDict, folder: RunFolder) -> dict[str, Any]:
            guard.enter("start")
            if guard.requested:  # after the one before was finished
                guard.done(EXIT_PREEMPTED)
                raise Preempted(
                    f"stopped by {guard.requested} before {folder.path.name}; the runs before it "
                    "are finished, and the same command trains the rest"
                )
            return _train_one(own, folder, guard, console, draw, EXIT_PREEMPTED)

        summary = train_all(config, whole, train_one)
        guard.done(EXIT_OK)
        return summary


def _train_folds(guard: Guard, console: Console, config: ConfigDict, whole: RunFolder) -> None:
    """Trains the folds of a cross-validation at once, unless all of them are finished."""
    folds = [
        fold
        for fold in range(config.data.folds)
        if not _finished(fold_config(config, fold), fold_folder(whole.path, fold))[0]
    ]
    if not folds:
        return
    from jaxdna.strategies.members import CrossValidation

    guard.enter("start")
    change = partial(in_test_folds, config=config)
    prepared = prepare(config, console, change=change, kind=CrossValidation)
    show(prepared, console)
    traced_steps(prepared.program)
    whole.check_data(prepared.dataset)
    whole.record_data(prepared.dataset)
    deal(fit(prepared, whole, guard, console), prepared, whole, folds)


def _finished(config: ConfigDict, folder: RunFolder) -> tuple[dict[str, Any] | None, list[str]]:
    """The summary of a run that has nothing left to train, and what has changed since it began.

    A change of layout or of the runtime does not undo what is done; a longer schedule does.

    Raises:
      UserError: the folder holds another run.
    """
    changes = folder.check(config)
    longer = any(line.startswith(("train.", "optimizer.")) for line in changes)
    return None if longer else folder.read_summary(), changes


def _train_one(
    config: ConfigDict, folder: RunFolder, guard: Guard, console: Console, draw: Draw, code: int
) -> dict[str, Any]:
    """Trains, resumes, or finds the run finished, and then its student where it has one."""
    if not config.members.distil:
        return _train_program(config, folder, guard, console, draw, code)
    make_mesh(student_config(config), start_backend(config, console))  # a mistake ends it now
    summary = _train_program(config, folder, guard, console, draw, EXIT_PREEMPTED)
    guard.enter("start")
    if guard.requested:
        guard.done(EXIT_PREEMPTED)
        raise Preempted(
            f"stopped by {guard.requested} before the student; the members are finished, and the "
            "same command trains it"
        )
    settings = summary["grid"][0]["settings"] if "grid" in summary else {}
    own, pupil = student_config(config, settings), student_folder(folder)
    taught = taught_by(config, folder, console)
    found = _train_program(own, pupil, guard, console, draw, code, taught)
    summary |= {"student": {key: found[key] for key in ("params", "best_epoch", "test")}}
    with folder.locked(loud(console)):
        folder.write_summary(summary)
    return summary


def _train_program(
    config: ConfigDict,
    folder: RunFolder,
    guard: Guard,
    console: Console,
    draw: Draw,
    code: int,
    taught: Callable[[Dataset], Dataset] = lambda dataset: dataset,
) -> dict[str, Any]:
    """Trains, resumes, or finds the run finished.

    `code` is as that of `runs.loop.train`, `taught` what is done to the data.
    """
    try:
        config = folder.settle(config)
        summary, changes = _finished(config, folder)
    except UserError:
        with one_fate():  # of several processes this may be the only one: then all say what differs
            join_others(config, console)
            raise
    for change in changes:
        console.print(f"note     changed since this run began: {change}")
    if summary is not None:
        console.print(
            f"{folder.path} holds a finished run: nothing to train (to train again, give another "
            "--workdir)"
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
            check_common(folder.files)

        prepared = prepare(config, console, joined, taught)
        show(prepared, console)
        prepared.program.check()
        traced_steps(prepared.program)  # a mistake ends the run before anything is written
        folder.check_data(prepared.dataset)
        folder.open(prepared.program.config)
        folder.record_data(prepared.dataset)
        folder.drop_summary()
        return train(prepared, folder, guard, console, draw, code)
