"""The loop: the only place that knows epochs, wall time and files."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from jaxdna.config import flat
from jaxdna.console import loud
from jaxdna.errors import EXIT_PREEMPTED, NotFiniteError, Preempted
from jaxdna.models.network import parameter_count
from jaxdna.parallel.peers import meet
from jaxdna.progress import counted, progress_line
from jaxdna.runs.curves import TensorBoard, draw_curves
from jaxdna.runs.display import epoch_note
from jaxdna.runs.guard import Guard, StopRequested
from jaxdna.runs.profile import Profiler
from jaxdna.runs.run_folder import RunFolder
from jaxdna.runs.speed import NO_SPEED, speed_of
from jaxdna.runs.stopwatch import Stopwatch
from jaxdna.strategies.prepare import Prepared
from jaxdna.tasks.verdict import LEARNT_NOTHING, UNTESTED, few_tested, with_caveats
from jaxdna.training.checkpoint import Checkpoints, params_sha256
from jaxdna.training.dispatch import calls_left, few_ahead
from jaxdna.training.evaluation import Evaluator
from jaxdna.training.optimizer import learning_rate
from jaxdna.training.program import copied
from jaxdna.training.state import Params, TrainState
from jaxdna.training.strategy import Progress, Strategy, TrainCall
from jaxdna.versions import versions


@dataclass
class Run:
    """What one step hands to the next; all of it is in every checkpoint.

    Attributes:
      state: parameters, optimizer state and step.
      best: the parameters that early stopping would keep.
      progress: where the run is, and its metrics so far.
      watch: seconds so far.
    """

    state: TrainState
    best: Params
    progress: Progress
    watch: Stopwatch


# What draws a finished run: its folder, data and functions, the best parameters, the summary.
# Returns a sentence on the motif that matters most, or nothing.
Draw = Callable[[RunFolder, Prepared, Params, dict[str, Any]], str]


def train(
    prepared: Prepared, folder: RunFolder, guard: Guard, console: Console, draw: Draw, code: int
) -> dict[str, Any]:
    """Trains to the end, or on from the newest checkpoint, and evaluates on the test split.

    Args:
      prepared: data and functions of a config.
      folder: an opened run folder.
      guard: hears signals and watches the clock.
      console: where notes go.
      draw: draws the report of the run once it is finished; if it fails, a note says so.
      code: what a process that is stopped ends with once the run is finished: `EXIT_OK`, unless
        there is more to train after it.

    Returns:
      The summary, as in summary.json.

    Raises:
      NotFiniteError: the loss of training or validation is NaN or infinite, or a parameter is
        where a signal came; it is not saved.
      NoCheckpointError: this run has checkpoints, and none is intact.
      StorageError: something cannot be written.
      Preempted: a signal came, and the state is saved.
    """
    with _begun(prepared, folder, guard, console) as (run, checkpoints):
        speed = _train(run, prepared, folder, checkpoints, guard, console)
        guard.enter("evaluation")
        summary = _summarise(run, prepared, folder, guard) | speed
        with guard.undivided(code):
            folder.write_summary(summary)
        for note in prepared.program.task.notes():
            console.print(f"note     {note}")
    best = run.progress.chosen(prepared.program.gather(run.best))
    if folder.writes:
        try:
            _draw_curves(folder, prepared, run.progress, summary["validation_ceiling"])
            if motif := draw(folder, prepared, best, summary):
                summary["motif"] = motif
                folder.write_summary(summary)
        except Exception as error:  # the run is finished, whatever becomes of its pictures
            loud(console)(f"the report could not be drawn ({error}); the run itself is finished")
        folder.check_kept()
    return summary


def fit(prepared: Prepared, folder: RunFolder, guard: Guard, console: Console) -> Run:
    """Trains to the end, or on from the newest checkpoint; arguments and errors as of `train`."""
    with _begun(prepared, folder, guard, console) as (run, checkpoints):
        _train(run, prepared, folder, checkpoints, guard, console)
    return run


@contextmanager
def _begun(
    prepared: Prepared, folder: RunFolder, guard: Guard, console: Console
) -> Iterator[tuple[Run, Checkpoints]]:
    """Begins or resumes; a signal that comes inside ends the run with its state saved."""
    keep = prepared.program.config.checkpoint.keep
    checkpoints = Checkpoints(folder.files, keep, prepared.program.progress)
    try:
        run = _begin(prepared, checkpoints, console)
        folder.write_metrics(run.progress.rows)
        try:
            yield run, checkpoints
        except StopRequested as stop:
            guard.enter("save")
            _check_parameters(run, prepared.program)
            _save(run, checkpoints, guard)
            checkpoints.wait()
            guard.done(EXIT_PREEMPTED)
            raise Preempted(
                f"stopped by {stop} after step {np.max(run.state.step)}; the state is saved, and "
                "the same command resumes"
            ) from None
    except OSError as error:
        raise folder.files.failure("a file of the run", error) from error


def _draw_curves(
    folder: RunFolder,
    prepared: Prepared,
    progress: Progress,
    ceiling: dict[str, float | None] | None,
) -> None:
    curves = draw_curves(prepared.dataset.task, progress.rows, progress.best_epoch, ceiling)
    folder.write(folder.curves.name, curves)


def _train(
    run: Run,
    prepared: Prepared,
    folder: RunFolder,
    checkpoints: Checkpoints,
    guard: Guard,
    console: Console,
) -> dict[str, Any]:
    """Trains all epochs that are left; returns how fast, as `speed_of` has it."""
    program, splits, progress = prepared.program, prepared.dataset.splits, run.progress
    config, speed = program.config, speed_of(prepared.program)
    sizes = config.train.batch_size, program.train_examples
    seen, seconds = progress.seen(*sizes), run.watch.seconds["train"]
    if progress.epoch >= config.train.epochs or progress.stop:
        return speed(seen, seconds)
    guard.enter("compile")
    feed = program.feed(splits["train"])
    evaluator = Evaluator(program, splits["validation"], "validation")
    with run.watch.on("compile"):
        compiled = _compile(program, progress.epoch_step)
        meet()
        evaluator.outputs(run.state.params)

    profiler = Profiler(program, folder.files, folder.writes, console.print)
    board = TensorBoard(folder.files, progress.epoch + 1, flat(config), folder.writes)
    rate = learning_rate(config, program.steps_per_epoch)
    epochs = progress_line("epoch", config.train.epochs, progress.epoch, lasting=True)
    with closing(program), closing(profiler), epochs as line:
        while progress.epoch < config.train.epochs and not progress.stop:
            start = time.perf_counter()
            before = progress.seen(*sizes), run.watch.seconds["train"]
            try:
                with run.watch.on("train"):
                    _train_epoch(run, program, compiled, feed, checkpoints, guard, profiler)
                with run.watch.on("eval"):
                    guard.enter("evaluation")
                    validated = evaluator.scores(run.state.params, guard.wait)
            finally:
                progress.epoch_seconds += time.perf_counter() - start
            now = progress.seen(*sizes), run.watch.seconds["train"]
            step = (progress.epoch + 1) * program.steps_per_epoch
            row, improved = progress.end_epoch(validated, step, program.task, program.report())
            run.best = program.keep(run.best, run.state.params, improved)
            folder.append_metrics(row)
            shown = speed(now[0] - before[0], now[1] - before[1])
            board.write(row | shown | {"learning_rate": float(rate(row["step"] - 1))})
            line.advance(epoch_note(program.task, row, progress.said(improved)))
            last = progress.epoch == config.train.epochs or progress.stop
            if last or progress.epoch % config.checkpoint.every_epochs == 0:
                _save(run, checkpoints, guard)
    guard.enter("save")
    with run.watch.on("checkpoint"):
        checkpoints.wait()
    return speed(progress.seen(*sizes) - seen, run.watch.seconds["train"] - seconds)


def _begin(prepared: Prepared, checkpoints: Checkpoints, console: Console) -> Run:
    """A new run, or the newest intact checkpoint's."""
    program = prepared.program
    restored = checkpoints.restore(program.abstract_state, loud(console))
    if restored is None:
        state = program.init()
        progress = program.begin(prepared.dataset.splits["validation"].y)
        return Run(state, copied(state.params), progress, Stopwatch())
    state, best, progress = restored
    progress.resettle(program.config.train.early_stopping.to_dict())
    within = f", step {progress.epoch_step} of the next" if progress.epoch_step else ""
    ended = progress.epoch >= program.config.train.epochs or progress.stop
    left = ": nothing is left to train" if ended else ""
    console.print(f"resuming after epoch {progress.epoch}{within}{left}")
    return Run(state, best, progress, Stopwatch(progress.seconds))


def _save(run: Run, checkpoints: Checkpoints, guard: Guard) -> None:
    """Begins to save, unless this very position is on disk."""
    guard.enter("save")
    with run.watch.on("checkpoint"):
        run.progress.seconds = run.watch.read()
        checkpoints.save(run.state, run.best, run.progress)


def _compile(program: Strategy, done: int) -> dict[int, TrainCall]:
    """Compiles the training call for each number of steps that a call has."""
    return {
        steps: program.compiled(steps)
        for first in (0, done)
        for steps in set(calls_left(program.steps_per_epoch, program.most_steps, first))
    }


def _train_epoch(
    run: Run,
    program: Strategy,
    compiled: dict[int, TrainCall],
    feed: Callable[[int, int], Any],
    checkpoints: Checkpoints,
    guard: Guard,
    profiler: Profiler,
) -> None:
    """Runs the calls that the epoch has left, or those before a stop; the run is at their end.

    Raises:
      StopRequested: a signal has come, and the run stands between two calls.
    """
    progress, steps_per_epoch = run.progress, program.steps_per_epoch
    before = progress.epoch * steps_per_epoch
    calls = calls_left(steps_per_epoch, program.most_steps, progress.epoch_step)

    def begun() -> Iterator[dict[str, jax.Array]]:
        step = before + progress.epoch_step
        for steps in calls:
            checkpoints.check()
            if guard.stops_here():
                return
            profiler.before(step, steps, run.state)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                batches = progress.marked(feed(step, steps))
                run.state, metrics = compiled[steps](run.state, batches)
            step += steps
            profiler.after(step, run.state)
            yield metrics

    guard.enter("step")
    for metrics in counted("training", few_ahead(begun()), len(calls)):
        guard.enter("step")
        sums = {k: np.asarray(v, np.float64) for k, v in metrics.items()}
        progress.add(sums, before + progress.epoch_step)
    guard.check()


def _check_parameters(run: Run, program: Strategy) -> None:
    """Keeps a stop from saving what the last update has broken: no loss has been seen of it yet.

    Parameters that are huge and finite cannot be told from good ones, and are saved. Of several
    networks all must be broken: the losses to come show which are.
    """
    # Each by itself: the stages of a pipeline lie on different devices.
    finite = jax.jit(lambda leaf: jnp.isfinite(leaf).all(range(program.lead, leaf.ndim)))
    each = [np.asarray(finite(leaf)) for leaf in jax.tree.leaves(run.state.params)]
    if not np.logical_and.reduce(each).any():
        raise NotFiniteError(
            f"a parameter is not finite after step {np.max(run.state.step)}; the last checkpoint "
            "is intact; try a smaller --config.optimizer.learning_rate"
        )


def _summarise(run: Run, prepared: Prepared, folder: RunFolder, guard: Guard) -> dict[str, Any]:
    """The summary of a finished run, without its speed; leaves the outputs of the test split."""
    dataset, task = prepared.dataset, prepared.dataset.task
    stopping = run.progress.stopping
    targets, validation = (dataset.splits[name].y for name in ("test", "validation"))
    outputs, ceiling = np.zeros((0, task.outputs), np.float32), None
    verdict = UNTESTED if stopping.left_plateau else LEARNT_NOTHING
    caveats = list(dataset.caveats)

    @cache
    def outputs_of(split: str) -> NDArray[np.float32]:
        evaluator = Evaluator(prepared.program, dataset.splits[split], split)
        return evaluator.outputs(run.best, guard.wait)

    with run.watch.on("eval"):
        known = {name: split.y for name, split in dataset.splits.items()}
        more = run.progress.about(task, known, outputs_of)
    if len(targets):
        with run.watch.on("eval"):
            outputs = run.progress.pooled(outputs_of("test"))
            ceiling = dataset.ceiling("test") if dataset.ceiling else None
        verdict = task.verdict(stopping.left_plateau, validation, targets, outputs, ceiling)
        if stopping.left_plateau:
            caveats += few_tested(len(targets))
    folder.write_test(dataset.names("test"), targets, outputs, task.headings)
    return {
        "params": parameter_count(run.progress.chosen(run.best)),
        "params_sha256": params_sha256(prepared.program.gather(run.best)),
        "best_epoch": stopping.best_epoch,
        "epochs": run.progress.epoch,
        "stopped_early": run.progress.stop,
        "left_plateau": stopping.left_plateau,
        "verdict": with_caveats(verdict, caveats),
        "report": str(folder.report),
        "network": prepared.program.config.model.name,
        "data": dataset.describe,
        **task.test_summary(targets, outputs),
        **more,
        "ceiling": ceiling,
        "validation_ceiling": dataset.ceiling("validation") if dataset.ceiling else None,
        **NO_SPEED,
        "seconds": run.watch.read(),
        "mesh": dict(prepared.mesh.shape),
        "devices": prepared.mesh.size,
        "processes": jax.process_count(),
        "versions": versions(),
    }
