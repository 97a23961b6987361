"""Many networks of one shape in one program: the members of a run, each as if it trained alone.

Every array of the state has one more axis before its own, that of the members, which the mesh's
axis `member` splits. The training examples lie on the devices once, and each member takes the rows
that a run of its own would take. The call of one network is mapped over the members as it is: on a
CPU one after the other, each with the bits of a run of its own; on accelerators side by side, as
`jax.vmap` has it, since one small network does not fill them. Members of a grid with the same seed
and fold take the same rows: side by side they share their batches, and what is made of a batch
before any parameter has a say (the other strand, the one-hot form).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict
from numpy.typing import NDArray

from jaxdna.config import flat, start_seed, validate
from jaxdna.console import table
from jaxdna.data.batches import Rows, batch_rows, steps_per_epoch
from jaxdna.data.dataset import Spec
from jaxdna.errors import UserError
from jaxdna.member_settings import HELD_OUT, PER_MEMBER, REPEATS, member_settings
from jaxdna.models.network import summary_rows
from jaxdna.parallel.mesh import divisors
from jaxdna.parallel.sharding import replicated, stacked_inputs, stacked_rows
from jaxdna.strategies.side_by_side import (
    Group,
    each_of_its_batch,
    in_turn,
    largest_group,
    on_its_device,
)
from jaxdna.tasks.task import Task
from jaxdna.training.feed import Shardings
from jaxdna.training.member_progress import MemberProgress
from jaxdna.training.optimizer import learning_rate, make_optimizer
from jaxdna.training.program import Program
from jaxdna.training.state import Params, TrainState
from jaxdna.training.step import Gradient, Metrics, Step
from jaxdna.training.strategy import Progress

AXIS = "member"
_TPU_BYTES = 2**24  # of the largest outputs of a layer, of all members at once


@dataclass(frozen=True)
class MemberProgram(Program):
    """The step of one network for all members; see `Program`.

    Attributes:
      fold_tasks: the task of each fold, with the weights and units of what it trains on; none where
        that of the program is that of all.
    """

    fold_tasks: tuple[Task, ...] = field(default=(), repr=False, compare=False)
    progress: ClassVar[type[Progress]] = MemberProgress
    lead: ClassVar[int] = 1

    @classmethod
    def of(cls, config: ConfigDict, mesh: Mesh, spec: Spec) -> Self:
        """Returns the program that trains on a data set; see `Program.of`."""
        program = super().of(config, mesh, spec)
        targets, how = spec.targets, config.train.class_weight
        if targets is None or not (spec.fold_tasks or (spec.folds and how != "none")):
            return program
        tasks = spec.fold_tasks or [spec.task] * len(spec.folds)
        each = zip(tasks, spec.folds, strict=True)
        own = tuple(task.weighted(how, targets[fold["train"]]) for task, fold in each)
        return replace(program, fold_tasks=own)

    def __post_init__(self) -> None:
        """Raises UserError where the mesh cannot split the members, or what they hold."""
        shaping = [key for key in self.settings[0] if key not in (*REPEATS, *self._swept)]
        if shaping:
            raise UserError(
                f"--config.members.grid={self.config.members.grid} goes over {shaping[0]}, and "
                "networks that differ in it have programs of their own; legal here: "
                f"{', '.join(PER_MEMBER)}"
            )
        count, size = len(self.settings), self.mesh.shape[AXIS]
        if count % size:
            raise UserError(
                f"--config.mesh.member={size} does not divide the {count} members; "
                f"legal: {', '.join(map(str, divisors(count)))}"
            )
        super().__post_init__()

    @cached_property
    def settings(self) -> list[dict[str, Any]]:
        """The dotted keys that each member changes."""
        return member_settings(self.config)

    @cached_property
    def seeds(self) -> list[int]:
        """Of each member that of initial parameters, batches and random draws."""
        return [one["train.seed"] for one in self.settings]

    @cached_property
    def _swept(self) -> dict[str, list[float]]:
        """The settings of the update that differ, dotted, with the value of each member."""
        keys = [key for key in PER_MEMBER if key in self.settings[0]]
        return {key: [one[key] for one in self.settings] for key in keys}

    @cached_property
    def _one(self) -> Program:
        """The program of one member on this mesh, with whatever parts any member's update has."""
        most = {key: max(values) for key, values in self._swept.items()}
        config = validate(flat(self.config) | most)
        return Program(config, self.mesh, self.example_shape, self.task, self.train_examples)

    @property
    def _fold_of(self) -> list[int]:
        """The part that each member holds out."""
        return [one[key] for one in self.settings for key in HELD_OUT if key in one]

    def own_rows(self, split: str) -> list[NDArray[np.int64]] | None:
        """Returns which examples of a split each member has for itself; None: all have all."""
        if not self.folds or split not in self.folds[0]:
            return None
        return [self.folds[fold][split] for fold in self._fold_of]

    @cached_property
    def _tasks(self) -> list[Task]:
        """The task of each member."""
        if not self.fold_tasks:
            return [self.task] * len(self.settings)
        return [self.fold_tasks[fold] for fold in self._fold_of]

    @cached_property
    def _own_steps(self) -> list[int]:
        """Steps of each member in an epoch; there are as many calls as the longest needs."""
        own = self.own_rows("train")
        sizes = [len(rows) for rows in own] if own else [self.train_examples] * len(self.settings)
        return [steps_per_epoch(size, self.config.train.batch_size) for size in sizes]

    @property
    def _lengths(self) -> list[int]:
        """The different numbers of steps that members have in an epoch."""
        return sorted(set(self._own_steps))

    @cached_property
    def rounds(self) -> int:
        """Groups of members that a device trains one after the other; see `Program`."""
        group = self._group
        return self._here // (self._at_once if group is None else math.prod(group))

    @cached_property
    def _most(self) -> int:
        """Members that a device should train side by side, at most.

        Fewer than it has where they would leave its fast memory. A CPU's caches hold a single
        network: TAL1's step takes four times as long otherwise. A TPU keeps what some of them
        compute on the chip; a GPU does not even of one.
        """
        platform = self.mesh.devices.flat[0].platform
        if self._one_by_one:
            return 1
        if self.mesh.size > self.mesh.shape[AXIS] or platform != "tpu":
            return self._here
        rows = summary_rows(self.network, self.example_shape)
        numbers = max(math.prod(shape) for _, _, shape, _ in rows) * self.config.train.batch_size
        return max(1, _TPU_BYTES // (4 * numbers))

    @property
    def _at_once(self) -> int:
        """Members of a group, where none shares a batch."""
        return max(n for n in divisors(self._here) if n <= self._most)

    @property
    def _one_by_one(self) -> bool:
        """Whether the devices are CPUs, each with members for itself, or all with all of them."""
        apart = self.mesh.shape[AXIS] in (1, self.mesh.size)
        return apart and self.mesh.devices.flat[0].platform == "cpu"

    @property
    def _here(self) -> int:
        """Members of one device."""
        return len(self.settings) // self.mesh.shape[AXIS]

    def _each(self, one: Callable[..., Any], own: Any, *shared: Any) -> Any:
        """Returns one(own, *shared) of every member, stacked; `own` is stacked, `shared` is not."""
        at_once = self._at_once
        if at_once == self._here and not self._one_by_one:
            axes = (0, *[None] * len(shared))
            return jax.vmap(one, in_axes=axes, spmd_axis_name=AXIS)(own, *shared)
        mine = in_turn(one, at_once, self.loops_well)
        return on_its_device(mine, self.mesh, AXIS, own, *shared)

    @cached_property
    def batches(self) -> int:
        """Different batches of a step: those of the first so many members, shared by the others.

        Members of a grid with the same seed and fold take the same rows.
        """
        different = len({tuple(one.get(key) for key in REPEATS) for one in self.settings})
        here, rest = divmod(len(self.settings) // different, self.mesh.shape[AXIS])
        alone = self._one_by_one or rest or here == 1
        return len(self.settings) if alone else different

    @cached_property
    def _group(self) -> Group | None:
        """The members that a device trains side by side; None: no two of them share a batch."""
        if self.batches == len(self.settings):
            return None
        return largest_group(self._here // self.batches, self.batches, self._most)

    def _each_of_its_batch(self, one: Callable[[Any, Any], Any], own: Any, batches: Any) -> Any:
        """Returns one(own, batch) of every member, with the batch that it shares."""
        if self._group is None:
            return self._each(lambda own: one(*own), (own, batches))
        if self.rounds == 1:
            group = Group(len(self.settings) // self.batches, self.batches)
            return each_of_its_batch(one, own, batches, group, AXIS)
        mine = partial(each_of_its_batch, one, group=self._group)
        return on_its_device(mine, self.mesh, AXIS, own, batches)

    @property
    def most_steps(self) -> int:
        """Steps that one call should hold at most; all different batches lie side by side."""
        asked = self.config.train.steps_per_call
        return asked or max(1, self._one.most_steps // self.batches)

    @cached_property
    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state: those of one member, stacked."""
        return jax.tree.map(self._stacked, self._one.abstract_state)

    def _stacked(self, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        shape = (len(self.settings), *leaf.shape)
        return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=_by_member(leaf.sharding))

    def init(self) -> TrainState:
        """Computes the initial state, each device its own part."""
        seeds = jnp.array(self.seeds, jnp.int32)
        every = self.once(
            lambda seeds: self._each(self._one.initial_state, seeds), self.state_shardings
        )
        return every(seeds)

    def _own_rate(self, peak: jax.Array | None, which: jax.Array) -> optax.Schedule | None:
        """The step size of a member whose epoch has the `which`th of all numbers of steps."""
        if len(self._lengths) == 1:
            return None
        each = [learning_rate(self._one.config, steps, peak) for steps in self._lengths]
        return lambda step: jnp.stack([jnp.asarray(rate(step)) for rate in each])[which]

    def pure_call(self, sync: Callable[[Gradient], Gradient]) -> Step:
        """Returns what `call_with` compiles: the call of one member, for those that go on."""
        settings = {k: jnp.array(values, jnp.float32) for k, values in self._swept.items()}
        which = jnp.array([self._lengths.index(steps) for steps in self._own_steps])
        units = {
            one.name: jnp.array([getattr(task, one.name) for task in self._tasks], jnp.float32)
            for one in fields(self.task)
            if len({getattr(task, one.name) for task in self._tasks}) > 1
        }
        alone = self._one

        def stay(state: TrainState, batches: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
            return state, {key: jnp.zeros(batches["weight"].shape[:1]) for key in self.task.sums}

        def one(own: Any, given: Any) -> tuple[TrainState, Metrics]:
            (state, active, (values, which, units)), (batches, drawing) = own, given
            rate = self._own_rate(values.get("optimizer.learning_rate"), which)
            rule = make_optimizer(
                alone.config, alone.steps_per_epoch, alone.head, alone.word_tables, values, rate
            )
            task: Task = replace(self._tasks[0], **units)
            call = alone.call_of_one(sync, rule, task, skips=len(self._lengths) > 1)
            # Side by side a `cond` computes both, and would give each member the batch anew; and a
            # CPU convolves ten times as slowly in a branch, as in a loop.
            if not drawing and self.loops_well:
                return lax.cond(active, call, stay, state, batches)
            made = call(replace(state, **drawing), batches)
            return jax.tree.map(partial(jnp.where, active), made, stay(state, batches))

        def every(states: TrainState, batches: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
            fed = {key: leaf for key, leaf in batches.items() if key != "active"}
            own = (states, batches["active"], (settings, which, units))
            if self.batches == len(self.settings):
                return self._each_of_its_batch(one, own, (fed, {}))
            # Equal in all that share a batch, unless they have stopped; only so does XLA know it.
            ways = (-1, self.batches)
            drawing = {
                "rng": states.rng.reshape(*ways, 2)[0],
                "step": jnp.max(states.step.reshape(ways), axis=0),
            }
            return self._each_of_its_batch(one, own, (fed, drawing))

        return every

    def pure_predict(self) -> Callable[[Params, jax.Array], jax.Array]:
        """Returns what `predict_call` compiles; outputs have the axis of the members first.

        The inputs are the same for all members, or have an axis of the different batches first.
        """
        predict, shared = super().pure_predict(), 2 + len(self.example_shape)

        def every(params: Params, x: jax.Array) -> jax.Array:
            if x.ndim == shared:
                return self._each(predict, params, x)
            return self._each_of_its_batch(predict, params, x)

        return every

    def rows(self, examples: int) -> Rows:
        """Returns which examples make which batches: int32 [batches, steps, batch], and weights."""
        batch_size, own = self.config.train.batch_size, self.own_rows("train")
        every = (own or [np.arange(examples)] * len(self.settings))[: self.batches]

        def rows(first: int, steps: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
            epoch, start = divmod(first, self.steps_per_epoch)
            chosen = np.zeros((len(every), steps, batch_size), np.int32)
            weights = np.zeros(chosen.shape, np.float32)
            for i, mine in enumerate(every):
                most = self._own_steps[i]
                left, begin = min(steps, most - start), epoch * most + start
                if left > 0:
                    picked, weights[i, :left] = batch_rows(
                        self.seeds[i], begin, left, len(mine), batch_size
                    )
                    chosen[i, :left] = mine[picked]
            return chosen, weights

        return rows

    @property
    def batch_shardings(self) -> Shardings:
        """How the stacked batches of one call lie: with their members, unless others share them."""
        every = self.batches == len(self.settings)
        lead = _by_member if every else _for_all
        return Shardings(lead(stacked_inputs(self.mesh)), lead(stacked_rows(self.mesh)))

    def abstract_batches(self, steps: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes, dtypes and shardings of one call's batches, and of `active`, who goes on."""
        by, made = self.batch_shardings, {}
        for key, leaf in self._one.abstract_batches(steps).items():
            sharding = by.inputs if key == "x" else by.rows
            shape = (self.batches, *leaf.shape)
            made[key] = jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=sharding)
        active = jax.ShapeDtypeStruct((), "bool", sharding=replicated(self.mesh))
        return made | {"active": self._stacked(active)}

    def begin(self, targets: NDArray) -> Progress:
        """Returns the progress of a run that begins; see `Program.begin`."""
        own: Sequence[Any] = self.own_rows("validation") or [slice(None)] * len(self.settings)
        each = [
            replace(
                self.stopping(targets[rows]),
                chance_loss=task.chance_loss(targets[rows]),
                chance_auroc=task.chance_auroc(targets[rows]),
            )
            for rows, task in zip(own, self._tasks, strict=True)
        ]
        begun: Any = MemberProgress.begun(each, self.settings)
        return begun

    def scores(self, targets: NDArray, outputs: NDArray) -> list[dict[str, float | None]]:
        """Returns the scores of each member, on what it has for itself."""
        own: Sequence[Any] = self.own_rows("validation") or [slice(None)] * len(self.settings)
        with np.errstate(invalid="ignore"):  # one of them may be broken
            return [
                task.scores(targets[rows], answers[rows])
                | {"loss": task.loss(targets[rows], answers[rows])}
                for rows, answers, task in zip(own, outputs, self._tasks, strict=True)
            ]

    def keep(self, best: Params, params: Params, improved: NDArray[np.bool_]) -> Params:
        """Returns the best parameters of each member so far."""
        return self._keep(best, params, improved)

    @cached_property
    def _keep(self) -> Callable[..., Params]:
        def keep(best: Params, params: Params, improved: jax.Array) -> Params:
            def one(old: jax.Array, new: jax.Array) -> jax.Array:
                return jnp.where(improved.reshape(-1, *[1] * (new.ndim - 1)), new, old)

            return jax.tree.map(one, best, params)

        return jax.jit(keep, out_shardings=self.state_shardings.params)

    def tables(self) -> Any:
        """Shows who the members are."""
        count, shown = len(self.settings), 10
        rows = [
            [i, ", ".join(f"{key}={value}" for key, value in one.items())]
            for i, one in enumerate(self.settings)
        ]
        if count > shown:
            rows = [*rows[: shown - 1], ["...", ""], rows[-1]]
        yield table(f"{count} members", ("member", "settings"), rows)


@dataclass(frozen=True)
class CrossValidation(MemberProgram):
    """The folds of `data.folds`, each the network that `data.fold` trains alone."""

    @cached_property
    def settings(self) -> list[dict[str, Any]]:
        """The dotted keys that each member changes."""
        seed = start_seed(self.config)
        return [{"train.seed": seed, "data.fold": i} for i in range(self.config.data.folds)]


def _by_member(sharding: Any) -> NamedSharding:
    """The sharding of arrays of one member, for all of them."""
    return NamedSharding(sharding.mesh, PartitionSpec(AXIS, *sharding.spec))


def _for_all(sharding: Any) -> NamedSharding:
    """The sharding of arrays that members share, one after the other."""
    return NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))
