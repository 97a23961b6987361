"""strategy=pipeline: stages of layers on their own devices, driven by a schedule's events.

One executor runs the events of `schedules.timetable` in their order. The devices work at the same
time, because dispatch is asynchronous; arrays move from stage to stage by `device_put`, so stages
may have any shapes. A backward pass computes its forward pass again: a stage keeps its inputs only.
The pipeline is empty between two calls, so evaluation and checkpoints see whole states.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict
from numpy.typing import NDArray

from jaxdna.config import start_seed
from jaxdna.console import table
from jaxdna.data.dataset import Spec
from jaxdna.errors import UserError
from jaxdna.models.network import Network, parameter_count
from jaxdna.models.registry import build_network
from jaxdna.ops.strands import complement_strand
from jaxdna.parallel.mesh import batch_shards
from jaxdna.parallel.sharding import replicated
from jaxdna.strategies import schedules
from jaxdna.strategies.cutting import balanced, check_stages, cut_at, measure
from jaxdna.strategies.execution import Execution, StageState, move, pick
from jaxdna.strategies.schedule_view import as_text
from jaxdna.strategies.stages import Stage, join, make_stages, part, rows_of
from jaxdna.training.dispatch import few_ahead, most_steps
from jaxdna.training.optimizer import momentum_update
from jaxdna.training.program import Program
from jaxdna.training.state import Params, TrainState
from jaxdna.training.step import STRANDS, piece_keys, step_keys
from jaxdna.training.strategy import TrainCall

_EVENTS_AHEAD = 4  # of each stage: its devices never wait for the host


@dataclass(frozen=True)
class PipelineProgram(Program):
    """A `Program` whose layers are cut into stages; `config.pipeline.boundaries` says where."""

    @classmethod
    def settle(cls, config: ConfigDict, mesh: Mesh, spec: Spec) -> tuple[ConfigDict, Mesh]:
        """Decides where the layers are cut.

        Raises:
          UserError: the cut, the schedule or the micro-batches do not fit.
        """
        config, stages = config.copy_and_resolve_references(), mesh.shape["stage"]

        def build() -> Network:
            return build_network(config, spec.task.outputs, spec.example_shape)

        names = nnx.eval_shape(build).names
        if jax.process_count() > 1:
            raise UserError(
                f"--config.strategy=pipeline runs in one process, but there are "
                f"{jax.process_count()}; legal here: spmd"
            )
        check_stages(stages, names)
        check_microbatches(config, stages, batch_shards(mesh.shape))
        if not config.pipeline.boundaries and stages > 1:
            rows = config.train.batch_size // config.pipeline.microbatches
            costs = [1.0] * stages
            if stages < len(names):
                costs = list(measure(build, spec.example_shape, rows).values())
            config.pipeline.boundaries = ",".join(names[i] for i in balanced(costs, stages))
        cut_at(config.pipeline.boundaries, names, stages)
        return config, mesh

    @cached_property
    def stages(self) -> list[Stage]:
        """The stages, first to last."""
        network = nnx.eval_shape(self.network)
        settings = self.config.pipeline
        cut = cut_at(settings.boundaries, network.names, self.mesh.shape["stage"])
        return make_stages(
            network, cut, self.mesh, self.task, self.optimizer, self.compiler_options
        )

    @property
    def most_steps(self) -> int:
        """Steps of one call; the pipeline is filled and emptied once in it."""
        platform = self.mesh.devices.flat[0].platform
        batch_bytes = self.config.train.batch_size * math.prod(self.example_shape)
        # No stage sees a loop, so convolutions do not mind.
        return self.config.train.steps_per_call or most_steps(platform, False, batch_bytes)

    @property
    def microbatches(self) -> int:
        """Pieces of each batch."""
        return self.config.pipeline.microbatches

    @cached_property
    def _layers(self) -> set[str]:
        return {name for stage in self.stages for name in stage.params}

    def parts(self, tree: Any) -> list[Any]:
        """Cuts parameters, or an optimizer state, into those of each stage."""
        return [part(tree, self._layers, stage) for stage in self.stages]

    # Every layer's parameters and moments lie on its own stage, all else on the first one.

    @cached_property
    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state."""
        shapes = jax.eval_shape(self.initial_state)
        everywhere = replicated(self.mesh)
        shardings = replace(
            jax.tree.map(lambda _: everywhere, shapes),
            params=join([stage.params for stage in self.stages], self.stages),
            opt_state=join([stage.opt_state for stage in self.stages], self.stages),
        )
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            shardings,
        )

    @cached_property
    def _inits(self) -> list[Callable[[], Any]]:
        """For each stage its part of the initial state, jitted: of the rest nothing is computed."""

        def own(i: int) -> Any:
            state = self.initial_state()
            return self.parts(state.params)[i], self.parts(state.opt_state)[i]

        return [
            self.once(partial(own, i), (stage.params, stage.opt_state))
            for i, stage in enumerate(self.stages)
        ]

    def init(self) -> TrainState:
        """Computes the initial state, each stage only its own part."""
        params, opt_states = zip(*(init() for init in self._inits), strict=True)
        rng = jax.random.key_data(jax.random.key(start_seed(self.config)))
        step, rng = jax.device_put((jnp.int32(0), rng), replicated(self.mesh))
        return TrainState(step, rng, join(params, self.stages), join(opt_states, self.stages))

    def compiled(self, steps: int) -> TrainCall:
        """Returns the call of `steps` steps, with every function of the stages compiled."""
        settings = self.config.pipeline
        events = schedules.timetable(
            settings.schedule, len(self.stages), settings.microbatches, steps
        )
        # Two batches of zeros use each function once.
        few = [event for event in events if event.microbatch < 2 * settings.microbatches]
        zeros = jax.tree.map(
            lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding),
            (self.abstract_state, self.abstract_batches(steps)),
        )
        jax.block_until_ready(self.execute(few, *zeros)[0])
        return lambda state, batches: self.execute(events, state, batches)

    @cached_property
    def _pieces(self) -> Callable[..., Any]:
        """Jitted (rng, first step, batches) -> the micro-batches of all steps, augmented.

        Returns `x`, the targets (`y`, `weight`, and `total` weight of the whole batch) and the
        dropout keys, each [steps * micro-batches, ...].
        """
        pieces, augment = self.microbatches, self.augment

        def one(rng: jax.Array, step: jax.Array, batch: Any) -> Any:
            augment_key, dropout_key = step_keys(rng, step)
            total = jnp.full(pieces, jnp.sum(batch["weight"]))
            if augment:
                batch = augment(batch, augment_key)
            cut = {k: leaf.reshape(pieces, -1, *leaf.shape[1:]) for k, leaf in batch.items()}
            targets = {"y": cut["y"], "weight": cut["weight"], "total": total}
            return cut["x"], targets, jax.random.key_data(piece_keys(dropout_key, pieces))

        def every(rng: jax.Array, first_step: jax.Array, batches: Any) -> Any:
            steps = first_step + jnp.arange(batches["weight"].shape[0])
            made = jax.vmap(one, in_axes=(None, 0, 0))(rng, steps, batches)
            return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), made)

        return jax.jit(every)

    @cached_property
    def _predicted(self) -> Callable[..., Params]:
        """Jitted (params, optimizer state, updates ahead) -> the expected parameters."""
        expected = momentum_update(self.config, self.steps_per_epoch, self.word_tables)

        def predict(params: Params, opt_state: Any, ahead: jax.Array) -> Params:
            return jax.tree.map(lambda p, u: p + ahead * u, params, expected(opt_state))

        return jax.jit(predict)

    def execute(
        self, events: list[schedules.Event], state: TrainState, batches: Any
    ) -> tuple[TrainState, dict[str, NDArray[np.float32]]]:
        """Runs the events of one call.

        Args:
          events: of `schedules.timetable`, for as many batches as there are.
          state: its arrays on their stages.
          batches: `x`, `y` and `weight`, each [steps, batch, ...].

        Returns:
          The new state, and the metrics, float32 [steps].
        """
        inputs, targets, keys = self._pieces(state.rng, state.step, batches)
        parts = zip(self.stages, self.parts(state.params), self.parts(state.opt_state), strict=True)
        execution = Execution(
            [StageState.of(stage, params, opt, keys) for stage, params, opt in parts],
            inputs,
            targets,
            schedules.last_uses(events),
            self._predicted if any(event.ahead for event in events) else None,
        )
        for made in few_ahead(execution.run(events), _EVENTS_AHEAD * len(self.stages)):
            jax.block_until_ready(made)

        # The micro-batches leave the last stage in their order.
        by_piece = np.stack([np.asarray(each) for each in execution.sums])
        by_step = by_piece.reshape(-1, self.microbatches, len(self.task.sums)).sum(axis=1)
        done = TrainState(
            state.step + len(by_step),
            state.rng,
            join([own.newest for own in execution.stages], self.stages),
            join([own.opt_state for own in execution.stages], self.stages),
        )
        return done, dict(zip(self.task.sums, by_step.T, strict=True))

    @cached_property
    def predict_call(self) -> Callable[[Params, jax.Array], Any]:
        """(params, x [batches, batch, ...]) -> outputs [batches, batch, outputs]."""
        strands = self.config.model.get("strands", "forward")
        turn = jax.jit(complement_strand)

        def outputs(parts: list[Params], x: jax.Array) -> jax.Array:
            for stage, params in zip(self.stages, parts, strict=True):
                x = stage.forward(params, jax.device_put(x, rows_of(stage.mesh)), None, None)
            return x

        def predict(params: Params, x: jax.Array) -> jax.Array:
            parts, x = self.parts(params), move(x, self.stages[0].mesh)
            found = []
            for i in range(x.shape[0]):
                rows = pick(x, np.int32(i))
                made = outputs(parts, rows)
                if strands != "forward":
                    other = self.task.turned(outputs(parts, turn(rows)))
                    made = STRANDS[strands](made, other)
                found.append(made)
            return jnp.asarray(np.stack([np.asarray(made, np.float32) for made in found]))

        return predict

    def gather(self, params: Params) -> Params:
        """Returns the parameters as they are: one process sees all stages."""
        return params

    def tables(self) -> Iterable[Any]:
        """The stages and what they hold, and the schedule of two batches as text."""
        name, count, pieces = self.config.pipeline.schedule, len(self.stages), self.microbatches
        events = schedules.timetable(name, count, pieces, 2 + count)
        kept = schedules.most_in_flight(events, count)
        versions = schedules.most_versions(events, count)
        stale = schedules.staleness(events, count, pieces)
        rows = [
            [
                f"{i}: {', '.join(stage.names)}",
                stage.mesh.size,
                parameter_count(part(self.abstract_state.params, self._layers, stage)),
                versions[i],
                max(stale[i]),
                kept[i],
                kept[i] * size,
            ]
            for i, (stage, size) in enumerate(zip(self.stages, self.input_bytes(), strict=True))
        ]
        columns = [
            "stage: layers", "devices", "parameters", "versions", "staleness", "inputs kept",
            "bytes kept",
        ]  # fmt: skip
        yield table(f"Pipeline, schedule {name}", columns, rows)
        yield as_text(schedules.timetable(name, count, pieces, 2), count, pieces)
        one = schedules.timetable(name, count, pieces, 1)
        yield (
            f"idle: {schedules.bubble(one, count):.1%} of one batch, "
            f"{schedules.bubble(events, count):.1%} of {2 + count}; "
            f"(S-1)/(M+S-1) = {schedules.ideal_bubble(count, pieces):.1%}"
        )

    def input_bytes(self) -> list[int]:
        """Bytes of one micro-batch's input to each stage, over all its devices."""
        rows = self.config.train.batch_size // self.microbatches
        x = jax.ShapeDtypeStruct((rows, *self.example_shape), "uint8")
        params = self.parts(jax.eval_shape(self.initial_state).params)
        sizes = []
        for stage, own in zip(self.stages, params, strict=True):
            sizes.append(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(x)))
            x = jax.eval_shape(stage.forward, own, x, None, None)
        return sizes


def check_microbatches(config: ConfigDict, stages: int, shards: int) -> None:
    """Raises UserError where micro-batches do not fit the schedule or the shards of a stage."""
    pieces, batch = config.pipeline.microbatches, config.train.batch_size
    least = schedules.least_microbatches(config.pipeline.schedule, stages)
    legal = [n for n in range(least, batch + 1) if batch % n == 0 and batch // n % shards == 0]
    if pieces not in legal:
        near = sorted(sorted(legal, key=lambda n: abs(n - pieces))[:2])
        raise UserError(
            f"--config.pipeline.microbatches={pieces} does not fit a batch of {batch} on {shards} "
            f"data shards with schedule {config.pipeline.schedule} of {stages} stages; "
            f"nearest legal: {' or '.join(map(str, near)) or 'none, change the batch'}"
        )
