"""Runs a pipeline's events: what each stage holds, and what every kind of event does to it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdna.parallel.mesh import BATCH_AXES
from jaxdna.parallel.sharding import replicated
from jaxdna.strategies import schedules
from jaxdna.strategies.schedules import Event
from jaxdna.strategies.stages import Backward, Stage, rows_of
from jaxdna.training.state import Params


@dataclass
class StageState:
    """What a stage holds between two events.

    Attributes:
      stage: its functions and shardings.
      versions: its parameters by the number of updates that made them, those still in use.
      opt_state: of the newest version.
      keys: dropout keys of all micro-batches.
      gradients: summed over the micro-batches since the last update.
      inputs: kept for the backward pass, by micro-batch.
      returned: gradients of its outputs, by micro-batch.
    """

    stage: Stage
    versions: dict[int, Params]
    opt_state: Any
    keys: jax.Array
    gradients: Params | None = None
    inputs: dict[int, jax.Array] = field(default_factory=dict)
    returned: dict[int, jax.Array] = field(default_factory=dict)

    @classmethod
    def of(cls, stage: Stage, params: Params, opt_state: Any, keys: jax.Array) -> Self:
        """Returns the state before the first event, on the stage's devices."""
        keys = jax.device_put(keys, replicated(stage.mesh))
        return cls(stage, {0: params}, jax.device_put(opt_state, stage.opt_state), keys)

    @property
    def newest(self) -> Params:
        """The parameters after all updates so far."""
        return self.versions[max(self.versions)]


class Execution:
    """The events of one call, as they are run.

    Attributes:
      stages: first to last.
      sums: of the task over each micro-batch, in order, float32 [sums].
    """

    def __init__(
        self,
        stages: list[StageState],
        inputs: jax.Array,
        targets: Any,
        last_use: Mapping[tuple[int, int], int],
        predicted: Callable[..., Params] | None,
    ):
        """Moves the data to the stages that read them.

        Args:
          stages: before the first event.
          inputs: [micro-batches, rows, ...].
          targets: `y`, `weight` and `total`, each [micro-batches, ...].
          last_use: number of the event that is the last to use (stage, version).
          predicted: (params, optimizer state, updates ahead) -> the expected parameters; for
            schedules that ask for them.
        """
        self.stages = stages
        self.sums: list[jax.Array] = []
        self._inputs = move(inputs, stages[0].stage.mesh)
        self._targets = move(targets, stages[-1].stage.mesh)
        self._last_use, self._predicted = last_use, predicted

    def run(self, events: Iterable[Event]) -> Iterator[Any]:
        """Begins the events one after the other; yields what each makes."""
        for number, event in enumerate(events):
            own = self.stages[event.stage]
            yield self._HANDLERS[event.kind](self, event)
            newest = max(own.versions)
            for version in list(own.versions):
                used_up = self._last_use[event.stage, version] <= number
                if version < newest and used_up:
                    del own.versions[version]

    def _weights(self, event: Event) -> Params:
        own = self.stages[event.stage]
        params = own.versions[event.version]
        if not event.ahead:
            return params
        assert self._predicted
        return self._predicted(params, own.opt_state, np.float32(event.ahead))

    def _forward(self, event: Event) -> jax.Array | None:
        s, m = event.stage, event.microbatch
        own = self.stages[s]
        if s == 0:
            own.inputs[m] = pick(self._inputs, np.int32(m))
        if own is self.stages[-1]:  # on the last stage the backward pass does both
            return None
        made = own.stage.forward(self._weights(event), own.inputs[m], own.keys, np.int32(m))
        following = self.stages[s + 1]
        following.inputs[m] = jax.device_put(made, rows_of(following.stage.mesh))
        return made

    def _backward(self, event: Event) -> Backward:
        s, m = event.stage, event.microbatch
        own, i = self.stages[s], np.int32(m)
        dy = pick(self._targets, i) if own is self.stages[-1] else own.returned.pop(m)
        made = own.stage.backward(self._weights(event), own.inputs.pop(m), own.keys, i, dy)
        own.gradients = made.gradients if own.gradients is None else _add(own.gradients, made[0])
        if s:
            before = self.stages[s - 1]
            before.returned[m] = jax.device_put(made.inputs, rows_of(before.stage.mesh))
        if made.sums is not None:
            self.sums.append(made.sums)
        return made

    def _update(self, event: Event) -> tuple[Params, Any]:
        own = self.stages[event.stage]
        made = own.stage.update(own.versions[event.version - 1], own.opt_state, own.gradients)
        own.versions[event.version], own.opt_state = made
        own.gradients = None
        return made

    _HANDLERS: Mapping[str, Callable[["Execution", Event], Any]] = {
        schedules.FORWARD: _forward,
        schedules.BACKWARD: _backward,
        schedules.UPDATE: _update,
    }


_add = jax.jit(lambda a, b: jax.tree.map(jnp.add, a, b))
pick = jax.jit(lambda tree, i: jax.tree.map(lambda leaf: leaf[i], tree))


def move(tree: Any, mesh: Mesh) -> Any:
    """Moves stacked batches [n, rows, ...] (and numbers [n]) to a stage, split by rows."""
    split, whole = NamedSharding(mesh, PartitionSpec(None, BATCH_AXES)), replicated(mesh)
    return jax.device_put(tree, jax.tree.map(lambda leaf: split if leaf.ndim > 1 else whole, tree))
