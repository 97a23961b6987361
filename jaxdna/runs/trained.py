"""A trained model from its run folder alone: no training data, on whatever devices are here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxdna.errors import UserError
from jaxdna.member_settings import member_settings
from jaxdna.models.motif_cnn import MotifScan, scan_of
from jaxdna.models.network import Network
from jaxdna.models.registry import build_network
from jaxdna.parallel.mesh import flat_mesh
from jaxdna.parallel.sharding import replicated
from jaxdna.runs.run_folder import RunFolder
from jaxdna.tasks.classes import Binary
from jaxdna.tasks.kinds import task_of
from jaxdna.tasks.task import Task
from jaxdna.training.checkpoint import load_best, load_members
from jaxdna.training.state import Params

_MOST_BASES = 10**8  # the most that data.length takes


@dataclass(frozen=True)
class Trained:
    """A trained network for sequences, whole on every device.

    Attributes:
      config: what it was trained with.
      mesh: all devices on one axis.
      graph: the network without its parameters.
      params: the best parameters, float32 by layer and name; of an ensemble its best member's.
      length: bases of the sequences that it was trained on.
      task: what it was asked.
      ensemble: the parameters of each of its networks, where their mean answers.
      members: their numbers in the run.
    """

    config: ConfigDict
    mesh: Mesh
    graph: nnx.GraphDef
    params: Params
    length: int
    task: Task
    ensemble: tuple[Params, ...] = ()
    members: tuple[int, ...] = ()

    @property
    def networks(self) -> tuple[Params, ...]:
        """The parameters of each network that answers."""
        return self.ensemble or (self.params,)

    @cached_property
    def scan(self) -> MotifScan | None:
        """The network's first layer, where that is a motif scan: it reads any length."""
        network = self.network(self.params)
        first = getattr(network, network.names[0])
        return first if isinstance(first, MotifScan) else None

    @cached_property
    def filters(self) -> MotifScan | None:
        """The motif scan with which the network begins, alone or beside something else."""
        return scan_of(self.network(self.params))

    @property
    def width(self) -> int:
        """Fewest bases that can be scored: those of a filter of the scan, or all of `length`."""
        return self.scan.width if self.scan else self.length

    def network(self, params: Params) -> Network:
        """Returns the network with `params`."""
        return nnx.merge(self.graph, nnx.State(params))


def load_trained(
    folder: RunFolder,
    config: ConfigDict,
    devices: list[jax.Device],
    note: Callable[[str], None],
    member: int | None = None,
) -> Trained:
    """Loads the best parameters of a run.

    Args:
      folder: of the run.
      config: the run's own.
      devices: where to.
      note: is told of checkpoints that are damaged and passed over.
      member: of several that were trained at once the one to load; the ensemble if None.

    Raises:
      UserError: the run's network does not read sequences, or its files say no legal length; or
        there are several processes, or no such member.
      NoCheckpointError: it has no parameters yet.
    """
    if (joined := jax.process_count()) > 1:
        raise UserError(
            f"{joined} processes have joined, but sequences are scored in one; start a single "
            "process, whose devices share the work"
        )
    record = folder.read_data() or {}
    shape = record.get("example_shape") or [config.data.get("length")]
    if len(shape) != 1:
        raise UserError(
            f"--workdir={folder.path} holds a {config.model.name} for {config.data.name}; give a "
            "run whose network reads sequences (model.name=motif_cnn)"
        )
    length = shape[0]
    named = config.data.get("length") or length
    if not length:
        raise UserError(
            f"--workdir={folder.path}: its data.json, which says how long the sequences are, is "
            "missing or damaged; give an unaltered run folder"
        )
    if length > _MOST_BASES or length != named:
        other = f", and its config.json {named:,}" if named != length else ""
        raise UserError(
            f"--workdir={folder.path}: its data.json says that a sequence has {length:,} bases"
            f"{other}; legal: an unaltered run folder, with 1 to {_MOST_BASES:,} bases"
        )
    task = task_of(record) if record else Binary()
    mesh = flat_mesh(devices)
    network = nnx.eval_shape(lambda: build_network(config, task.outputs, tuple(shape)))
    graph, state = nnx.split(network)
    whole = replicated(mesh)

    def place(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*members, *leaf.shape), leaf.dtype, sharding=whole)

    members = check_member(member, config)
    abstract = jax.tree.map(place, nnx.to_pure_dict(state))
    one = partial(Trained, config, mesh, graph)
    if not members:
        return one(load_best(folder.checkpoints, abstract, note), length, task)
    stacked, progress = load_members(folder.checkpoints, abstract, note)
    best = progress.best if member is None else member
    params, *others = (
        jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in (best, *progress.answering)
    )
    if member is not None:
        return one(params, length, task)
    return one(params, length, task, tuple(others), tuple(progress.answering))


def check_member(member: int | None, config: ConfigDict) -> tuple[int, ...]:
    """Returns the axis of members that arrays of a run have; none where it trained one network.

    Args:
      member: number of the one that is asked for, from 0; None for none in particular.
      config: the run's own.

    Raises:
      UserError: there is no such member.
    """
    count = len(member_settings(config))
    if member is not None and not count:
        raise UserError(
            f"--member={member} names one of several networks, and this run has one; leave it out"
        )
    if member is not None and not 0 <= member < count:
        raise UserError(f"--member={member} is not legal: it must be 0 to {count - 1}")
    return (count,) if count else ()
