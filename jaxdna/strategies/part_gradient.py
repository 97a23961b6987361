"""What a worker of a parameter server computes: the gradient of one part of one batch."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from jaxdna.config import start_seed, validate
from jaxdna.data.batches import batch_rows
from jaxdna.data.registry import load_dataset
from jaxdna.parallel.mesh import make_mesh
from jaxdna.parallel.runtime import start_backend
from jaxdna.parallel.sharding import replicated, stacked_inputs, stacked_rows
from jaxdna.training.program import Program
from jaxdna.training.state import Params
from jaxdna.training.step import Metrics, piece_keys, step_keys


class Ticket(NamedTuple):
    """One gradient: that of a part of the batch of a step."""

    step: int
    part: int


class PartGradient:
    """Computes gradients on this process' devices, from its own copy of the data.

    Attributes:
      program: of the run, on this process' devices.
    """

    def __init__(self, config: ConfigDict, parts: int):
        """Starts jax, loads the data and compiles the gradient.

        Args:
          config: of the worker, see `worker_config`.
          parts: pieces of each batch.
        """
        devices = start_backend(config, Console(quiet=True))
        mesh, dataset = make_mesh(config, devices), load_dataset(config)
        self._split = dataset.splits["train"]
        self.program = Program.of(config, mesh, dataset.spec)
        self._gradient = jax.jit(
            make_part_gradient(self.program, parts),
            compiler_options=self.program.compiler_options,
        )
        shapes = self.program.abstract_state.params
        self(Ticket(0, 0), jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))

    def __call__(self, ticket: Ticket, params: Params) -> tuple[Params, Metrics]:
        """Returns the gradient of the ticket at `params`, and its sums, as NumPy arrays."""
        config, mesh = self.program.config, self.program.mesh
        rows, weight = batch_rows(
            start_seed(config), ticket.step, 1, len(self._split), config.train.batch_size
        )
        x, y = self._split.rows(rows)
        batch = {
            "x": jax.device_put(x, stacked_inputs(mesh)),
            "y": jax.device_put(y, stacked_rows(mesh)),
            "weight": jax.device_put(weight, stacked_rows(mesh)),
        }
        params = jax.device_put(params, replicated(mesh))
        made = self._gradient(params, np.int32(ticket.step), np.int32(ticket.part), batch)
        return jax.tree.map(np.asarray, made)


def make_part_gradient(program: Program, parts: int) -> Callable[..., tuple[Params, Metrics]]:
    """Returns (params, step, part, stacked batch of one step) -> (gradients, sums).

    The gradients of all parts add up to those of the mean loss over the whole batch; one part alone
    is the gradient of the ordinary step.

    Args:
      program: of the worker.
      parts: pieces of each batch.
    """
    rng = jax.random.key_data(jax.random.key(start_seed(program.config)))

    def gradient(
        params: Params, step: jax.Array, part: jax.Array, stacked: dict[str, jax.Array]
    ) -> tuple[Params, Metrics]:
        batch = {name: leaf[0] for name, leaf in stacked.items()}
        augment_key, dropout_key = step_keys(rng, step)
        if program.augment:
            batch = program.augment(batch, augment_key)
        total = jnp.sum(batch["weight"])
        if parts > 1:
            rows = batch["y"].shape[0] // parts
            batch = {
                name: jax.lax.dynamic_slice_in_dim(leaf, part * rows, rows)
                for name, leaf in batch.items()
            }
        key = piece_keys(dropout_key, parts)[part]

        def share_of_mean_loss(params: Params) -> tuple[jax.Array, Metrics]:
            sums = program.task.batch_sums(program.apply(params, batch["x"], key), batch)
            return sums["loss"] / total, sums

        return jax.grad(share_of_mean_loss, has_aux=True)(params)

    return gradient


def worker_config(settings: Mapping[str, Any], gpus: bool) -> ConfigDict:
    """Returns the configuration inside a worker: the same run on the worker's own devices.

    Args:
      settings: the flat configuration of the run.
      gpus: whether the worker has been given GPUs; else it works on the CPU.
    """
    config = validate(settings)
    for axis in config.mesh:
        if axis != "dcn":
            config.mesh[axis] = 1
    config.mesh.data = -1
    for axis in config.mesh.dcn:
        config.mesh.dcn[axis] = 1
    if not gpus:
        config.runtime.platform = "cpu"
        config.runtime.cpu_devices = config.parameter_server.devices_per_worker
    return config
