"""The loop: the only place that knows epochs, wall time and files."""

import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from jaxdna.errors import NotFiniteError
from jaxdna.models.network import parameter_count
from jaxdna.training.checkpoint import Checkpoints, params_sha256
from jaxdna.training.curves import TensorBoard, draw_curves
from jaxdna.training.display import EpochProgress
from jaxdna.training.early_stopping import EarlyStopping
from jaxdna.training.evaluation import Evaluator
from jaxdna.training.feed import Feed, make_feed
from jaxdna.training.metrics import chance_loss, scores
from jaxdna.training.prepare import Prepared
from jaxdna.training.program import Program
from jaxdna.training.run_folder import RunFolder
from jaxdna.training.state import Params, TrainState
from jaxdna.training.stopwatch import Stopwatch
from jaxdna.versions import versions

# Long enough that dispatch costs nothing, short enough that a stop is noticed within a second.
_STEPS_PER_CALL = 256


@dataclass
class Run:
    """What one epoch hands to the next; all of it is in every checkpoint.

    Attributes:
      epoch: epochs done.
      state: parameters, optimizer state and step.
      best: the parameters that early stopping would keep.
      stopping: what it knows.
      watch: seconds so far.
    """

    epoch: int
    state: TrainState
    best: Params
    stopping: EarlyStopping
    watch: Stopwatch

    def progress(self) -> dict[str, Any]:
        """What a checkpoint stores as JSON."""
        return {
            "epoch": self.epoch,
            "early_stopping": self.stopping.to_json(),
            "seconds": self.watch.read(),
        }


def train(prepared: Prepared, folder: RunFolder, console: Console) -> dict[str, Any]:
    """Trains to the end, or on from the newest checkpoint, and evaluates on the test split.

    Args:
      prepared: data and functions of a config.
      folder: an opened run folder.
      console: where notes go.

    Returns:
      The summary, as in summary.json.

    Raises:
      NotFiniteError: the loss is NaN or infinite.
    """
    program, splits = prepared.program, prepared.dataset.splits
    config = program.config
    checkpoints = Checkpoints(folder.checkpoints, config.checkpoint.keep)
    run = _begin(program, checkpoints, chance_loss(splits["validation"].y))
    if run.epoch:
        console.print(f"resuming after epoch {run.epoch}")
    folder.keep_metrics(run.epoch)
    calls = steps_in_calls(program.steps_per_epoch, config.train.steps_per_call)
    feed = make_feed(splits["train"], config, prepared.mesh)
    evaluator = Evaluator(program, splits["validation"])
    with run.watch.on("compile"):
        compiled = _compile(program, calls)
        evaluator.logits(run.state.params)

    board = TensorBoard(folder.tensorboard, run.epoch + 1) if folder.writes else None
    line = EpochProgress(console, config.train.epochs, run.epoch)
    first_epoch, seconds_before = run.epoch, run.watch.seconds["train"]
    with line.shown:
        while run.epoch < config.train.epochs and not run.stopping.stop:
            start = time.perf_counter()
            with run.watch.on("train"):
                step = run.epoch * program.steps_per_epoch
                run.state, sums = _train_epoch(compiled, calls, feed, run.state, step)
            run.epoch += 1
            with run.watch.on("eval"):
                validated = evaluator.scores(run.state.params)
            row = {
                "epoch": run.epoch,
                "step": run.epoch * program.steps_per_epoch,
                "train_loss": sums["loss"] / sums["weight"],
                "train_accuracy": sums["correct"] / sums["weight"],
                "val_loss": validated["loss"],
                "val_accuracy": validated["accuracy"],
                "val_auroc": validated["auroc"],
                "seconds": round(time.perf_counter() - start, 4),
            }
            improved = run.stopping.update(run.epoch, row)
            if improved:
                run.best = _copy(run.state.params)
            folder.append_metrics(row)
            if board:
                board.write(row)
            line.update(row, improved)
            last = run.epoch == config.train.epochs or run.stopping.stop
            if last or run.epoch % config.checkpoint.every_epochs == 0:
                with run.watch.on("checkpoint"):
                    checkpoints.save(run.epoch, run.state, run.best, run.progress())
    if board:
        board.close()
    with run.watch.on("checkpoint"):
        checkpoints.close()

    summary = _summarise(run, prepared, folder)
    trained = (run.epoch - first_epoch) * len(splits["train"])
    if trained:
        rate = trained / (run.watch.seconds["train"] - seconds_before)
        summary["samples_per_second"] = round(rate)
    if folder.writes:
        ceiling = prepared.dataset.ceiling("validation") if prepared.dataset.ceiling else None
        draw_curves(folder.curves, folder.read_metrics(), run.stopping.best_epoch, ceiling)
    folder.write_summary(summary)
    return summary


def steps_in_calls(steps_per_epoch: int, steps_per_call: int) -> list[int]:
    """Splits an epoch into calls of equal or nearly equal length.

    Args:
      steps_per_epoch: what to split.
      steps_per_call: the longest call; 0 for the default.

    Returns:
      Steps of each call. There are two different values at most, since each is compiled.
    """
    calls = -(-steps_per_epoch // (steps_per_call or _STEPS_PER_CALL))
    short, longer = divmod(steps_per_epoch, calls)
    return [short + 1] * longer + [short] * (calls - longer)


def _begin(program: Program, checkpoints: Checkpoints, chance: float) -> Run:
    """A new run, or the newest checkpoint's."""
    settings = program.config.train.early_stopping.to_dict()
    newest = checkpoints.latest()
    if newest is None:
        state = program.init()
        stopping = EarlyStopping(**settings, chance_loss=chance)
        return Run(0, state, _copy(state.params), stopping, Stopwatch())
    state, best, progress = checkpoints.restore(newest, program.abstract_state)
    stopping = EarlyStopping(**(progress["early_stopping"] | settings))
    return Run(progress["epoch"], state, best, stopping, Stopwatch(progress["seconds"]))


def _copy(params: Params) -> Params:
    """Parameters that outlive the state, whose memory the next call reuses."""
    return jax.tree.map(jnp.copy, params)


def _compile(program: Program, calls: list[int]) -> dict[int, Any]:
    """Compiles the training call for each number of steps."""
    return {
        steps: program.train_call.lower(
            program.abstract_state, program.abstract_batches(steps)
        ).compile()
        for steps in set(calls)
    }


def _train_epoch(
    compiled: dict[int, Any], calls: list[int], feed: Feed, state: TrainState, step: int
) -> tuple[TrainState, dict[str, float]]:
    """Runs the calls of one epoch; returns the state and the metrics summed over its examples."""
    first_step, pending = step, []
    for steps in calls:
        state, metrics = compiled[steps](state, feed(step, steps))
        pending.append(metrics)
        step += steps
    # Only here does the host wait: while a call runs it has made the batches of the next.
    by_step = {
        name: np.concatenate([np.asarray(call[name], np.float64) for call in pending])
        for name in pending[0]
    }
    _check_finite(by_step["loss"], first_step)
    return state, {name: float(values.sum()) for name, values in by_step.items()}


def _check_finite(losses: NDArray[np.float64], first_step: int) -> None:
    wrong = np.flatnonzero(~np.isfinite(losses))
    if wrong.size:
        raise NotFiniteError(
            f"the loss is {losses[wrong[0]]} at step {first_step + int(wrong[0])}; the last "
            "checkpoint is intact; try a smaller --config.optimizer.learning_rate"
        )


def _summarise(run: Run, prepared: Prepared, folder: RunFolder) -> dict[str, Any]:
    """The summary of a finished run, without its speed; leaves the logits of the test split."""
    dataset = prepared.dataset
    with run.watch.on("eval"):
        labels = dataset.splits["test"].y
        logits = Evaluator(prepared.program, dataset.splits["test"]).logits(run.best)
        ceiling = dataset.ceiling("test") if dataset.ceiling else None
    names = dataset.ids("test") if dataset.ids else [f"test_{i}" for i in range(len(labels))]
    folder.write_test(names, labels, logits)
    return {
        "params": parameter_count(run.best),
        "params_sha256": params_sha256(prepared.program.gather(run.best)),
        "best_epoch": run.stopping.best_epoch,
        "epochs": run.epoch,
        "stopped_early": run.stopping.stop,
        "left_plateau": run.stopping.left_plateau,
        "test": scores(labels, logits),
        "ceiling": ceiling,
        "samples_per_second": None,
        "seconds": run.watch.read(),
        "mesh": dict(prepared.mesh.shape),
        "devices": prepared.mesh.size,
        "processes": jax.process_count(),
        "versions": versions(),
    }
