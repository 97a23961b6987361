"""Are all layouts the same training? Trains some SGD steps on each and compares with one device."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxdna.config import flat, validate
from jaxdna.data.dataset import Dataset
from jaxdna.errors import UserError
from jaxdna.parallel.mesh import AXES, DCN_AXES, divisors, factorisations
from jaxdna.study.plan import program_on
from jaxdna.training.dispatch import steps_in_calls
from jaxdna.training.feed import streamed_feed
from jaxdna.training.program import Program

LAYOUT_AXES = ("data", "fsdp", "seq", "model")


class Difference(NamedTuple):
    """How far a layout is from one device after the same steps.

    Attributes:
      mesh: size of each axis that is larger than 1.
      strategy: how gradients are summed: `auto`, `ring`, or `hierarchical` with its hosts.
      max_abs_diff_params: largest difference of any parameter.
      max_abs_diff_loss: largest difference of any step's mean loss.
    """

    mesh: dict[str, int]
    strategy: str
    max_abs_diff_params: float
    max_abs_diff_loss: float


# SGD at a constant rate: Adam would hide gradients that are scaled. What follows it is what the
# sweep itself chooses.
_COMPARABLE = {
    "optimizer.name": "sgd",
    "optimizer.schedule": "constant",
    "optimizer.warmup_epochs": 0.0,
    "strategy": "spmd",
    "gradient_sync.method": "auto",
    **{f"mesh.{axis}": -1 if axis == "data" else 1 for axis in AXES},
    **{f"mesh.dcn.{axis}": 1 for axis in DCN_AXES},
}


def comparable(config: ConfigDict) -> ConfigDict:
    """Returns what `config` trains on one device in the comparison, and every layout changes."""
    return validate(flat(config) | _COMPARABLE)


def layout_flags(devices: int) -> Iterator[dict[str, Any]]:
    """Yields config changes for every mesh of `devices`, then for each explicit gradient sum."""
    for sizes in factorisations(devices, LAYOUT_AXES):
        yield {f"mesh.{axis}": n for axis, n in sizes.items()}
    data = {f"mesh.{axis}": 1 for axis in LAYOUT_AXES} | {"mesh.data": devices}
    if devices > 1:
        yield data | {"gradient_sync.method": "ring"}
    for hosts in divisors(devices)[1:-1]:
        yield data | {"gradient_sync.method": "hierarchical", "mesh.dcn.data": hosts}


def legal_layouts(
    config: ConfigDict, dataset: Dataset, devices: Sequence[jax.Device]
) -> Iterator[Program]:
    """Yields the program of every layout of all `devices` that fits the model and the batch."""
    for flags in layout_flags(len(devices)):
        try:
            yield program_on(config, dataset, devices, flags)
        except UserError:
            continue  # this layout does not divide something


def train_steps(program: Program, dataset: Dataset, steps: int) -> tuple[Any, np.ndarray]:
    """Trains from the initial parameters.

    Args:
      program: what to train.
      dataset: on what.
      steps: how many steps of the first epoch.

    Returns:
      The parameters, and the mean loss of each step, float64 [steps].
    """
    config = program.config
    feed = streamed_feed(
        dataset.splits["train"], config.seed, config.train.batch_size, program.mesh
    )
    state, losses, first = program.init(), [], 0
    for length in steps_in_calls(steps, program.most_steps):
        state, metrics = program.train_call(state, feed(first, length))
        losses.append(np.float64(metrics["loss"]) / np.float64(metrics["weight"]))
        first += length
    return jax.tree.map(np.asarray, state.params), np.concatenate(losses)


def compare_layouts(
    config: ConfigDict, dataset: Dataset, devices: Sequence[jax.Device], steps: int
) -> Iterator[Difference]:
    """Trains `steps` SGD steps on one device and on every legal layout of all of them.

    Args:
      config: a whole configuration; of its mesh, strategy and gradient sum nothing is used.
      dataset: its data.
      devices: all devices of this process.
      steps: how many steps; at most one epoch.

    Yields:
      One row per layout.
    """
    config = comparable(config)
    alone = program_on(config, dataset, devices[:1])
    params, losses = train_steps(alone, dataset, steps)
    for program in legal_layouts(config, dataset, devices):
        other_params, other_losses = train_steps(program, dataset, steps)
        apart = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), params, other_params)
        yield Difference(
            {axis: n for axis, n in program.mesh.shape.items() if n > 1},
            _strategy(program.config),
            max(jax.tree.leaves(apart)),
            float(np.abs(losses - other_losses).max()),
        )


def _strategy(config: ConfigDict) -> str:
    method = config.gradient_sync.method
    return f"{method}, {config.mesh.dcn.data} hosts" if method == "hierarchical" else method
