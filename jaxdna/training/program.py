"""From a config and a mesh to compiled functions: shapes first, shardings second, arrays last.

`Program` is `strategy=spmd`. Another `Strategy` may be a subclass that says otherwise where its
state is (`abstract_state`, `init`), how batches reach it (`feed`), how it takes the steps of one
call (`compiled`) and how it predicts (`predict_call`).
"""

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict
from numpy.typing import NDArray

from jaxdna.config import start_seed
from jaxdna.data.batches import Rows, batch_rows, steps_per_epoch
from jaxdna.data.dataset import Folds, Spec, Split
from jaxdna.models.motif_cnn import MotifScan
from jaxdna.models.network import Network, WordTable
from jaxdna.models.registry import build_network
from jaxdna.ops.motif_scan import turns_strands
from jaxdna.ops.sharded_scan import check_length
from jaxdna.parallel.compiler_options import overlap_options
from jaxdna.parallel.cores import a_core_each
from jaxdna.parallel.gradient_sync import make_sync
from jaxdna.parallel.sharding import (
    gathered,
    parameter_shardings,
    replicated,
    stacked_inputs,
    stacked_rows,
)
from jaxdna.tasks.task import Task
from jaxdna.training.augment import flip_and_shift
from jaxdna.training.dispatch import (
    calls_left,
    convolution_options,
    loops_well,
    most_steps,
    once_options,
)
from jaxdna.training.early_stopping import EarlyStopping
from jaxdna.training.feed import Feed, Shardings, make_feed, streamed_feed
from jaxdna.training.optimizer import make_optimizer
from jaxdna.training.progress import NetworkProgress
from jaxdna.training.read_ahead import ReadAhead
from jaxdna.training.state import Params, TrainState
from jaxdna.training.step import (
    Augment,
    Gradient,
    Step,
    accumulate,
    flip_strands,
    make_predict,
    make_train_call,
    make_train_step,
    skip_empty,
)
from jaxdna.training.strategy import Progress, TrainCall


def copied(params: Params) -> Params:
    """Returns parameters that outlive the state, whose memory the next call reuses."""
    return jax.tree.map(jnp.copy, params)


@dataclass(frozen=True)
class Program:
    """Everything that can be compiled for a config, before any array exists.

    Attributes:
      config: a whole configuration.
      mesh: the devices.
      example_shape: shape of one uint8 input example.
      task: what is asked of the network, and its loss.
      train_examples: examples that one network trains on.
      folds: see `Dataset`.
      progress: what the loop knows of such a run.
      lead: axes of every array of the state that come before those of one network.
      ahead: feeds that read ahead, each in a thread, until `close`.
    """

    config: ConfigDict
    mesh: Mesh
    example_shape: tuple[int, ...]
    task: Task
    train_examples: int
    folds: Folds = field(default=(), repr=False, compare=False)
    progress: ClassVar[type[Progress]] = NetworkProgress
    lead: ClassVar[int] = 0
    ahead: list[ReadAhead] = field(default_factory=list, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, config: ConfigDict, mesh: Mesh, spec: Spec) -> Self:
        """Returns the program that trains on a data set; only a weighted loss needs its targets.

        Raises:
          UserError: the config asks for what does not go with the data's task.
        """
        spec.task.check_metric(config.train.early_stopping.metric)
        config, mesh = cls.settle(config, mesh, spec)
        asked = spec.task.soft if spec.taught else spec.task
        task = asked.weighted(config.train.class_weight, spec.targets)
        return cls(config, mesh, spec.example_shape, task, spec.train_examples, spec.folds)

    @classmethod
    def settle(cls, config: ConfigDict, mesh: Mesh, spec: Spec) -> tuple[ConfigDict, Mesh]:
        """Returns what a strategy decides before anything is laid out: config and devices."""
        del spec
        return config, mesh

    def __post_init__(self) -> None:
        """Raises UserError where the mesh cannot split the examples or the parameters."""
        check_length(self.example_shape[0], self._abstract.least_stretch, self.mesh.shape["seq"])
        _ = self.abstract_state, self.train_call

    @property
    def rounds(self) -> int:
        """Networks, or groups of them, that a call trains one after the other in a loop."""
        return 1

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the training split."""
        return steps_per_epoch(self.train_examples, self.config.train.batch_size)

    def network(self, seed: int | jax.Array | None = None) -> Network:
        """Builds the network with its initial parameters, drawn from the config's seed if None."""
        return build_network(self.config, self.task.outputs, self.example_shape, seed)

    @cached_property
    def head(self) -> str:
        """Name of the network's last layer."""
        return self._abstract.head_name

    @cached_property
    def word_tables(self) -> frozenset[tuple[str, ...]]:
        """Paths of the parameters that are tables of words."""
        return self._abstract.word_tables

    @cached_property
    def _abstract(self) -> Network:
        return nnx.eval_shape(self.network)

    @cached_property
    def _suited(self) -> tuple[str, bool]:
        """What decides how the backend likes its work: platform, and whether it convolves."""
        kernels = jax.tree.leaves(nnx.state(self._abstract, nnx.Not(WordTable)))
        scans = sum(isinstance(one, MotifScan) for _, one in nnx.iter_modules(self._abstract))
        convolves = sum(kernel.ndim > 2 for kernel in kernels) > scans
        return self.mesh.devices.flat[0].platform, convolves

    @property
    def loops_well(self) -> bool:
        """Whether many batches in one call are as fast as each in its own."""
        return loops_well(*self._suited)

    @property
    def most_steps(self) -> int:
        """Steps that one call should hold at most, unless the config says otherwise."""
        batch_bytes = self.config.train.batch_size * math.prod(self.example_shape)
        return self.config.train.steps_per_call or most_steps(*self._suited, batch_bytes)

    @property
    def compiler_options(self) -> dict[str, Any]:
        """What the compiler must be told for this network on these devices."""
        return convolution_options(*self._suited, a_core_each(self.config, self.mesh))

    @property
    def augment(self) -> Augment | None:
        """What is done to the inputs of a training batch."""
        if self.config.data.get("reverse_complement"):
            first = getattr(self._abstract, self._abstract.names[0])
            by_network = (
                self.config.strategy == "spmd"
                and isinstance(first, MotifScan)
                and turns_strands(first.implementation, self.mesh.abstract_mesh.abstract_device)
            )
            return partial(flip_strands, task=self.task, by_network=by_network)
        return flip_and_shift if self.config.data.get("augment") else None

    @cached_property
    def _graph(self) -> nnx.GraphDef:
        return nnx.split(self._abstract)[0]

    def apply(self, params: Params, x: jax.Array, key: jax.Array | None) -> jax.Array:
        """Returns outputs [batch, outputs] of inputs uint8 [batch, ...], as training has them."""
        return self._outputs(self._in_precision(params), x, key)

    def _outputs(self, params: Params, x: jax.Array, key: jax.Array | None) -> jax.Array:
        inside_shard_map = not jax.sharding.get_abstract_mesh().empty
        if not inside_shard_map:
            params = gathered(params, self.mesh, self.head, self._abstract.unsplit_layers)
        network = nnx.merge(self._graph, nnx.State(params))
        mesh = jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh)
        with nullcontext() if inside_shard_map else mesh:
            return network(x, key)

    def _in_precision(self, params: Params) -> Params:
        """Casts all parameters but the last layer's: outputs are always float32."""
        dtype = jnp.dtype(self.config.train.precision)
        return {
            name: layer if name == self.head else jax.tree.map(lambda p: p.astype(dtype), layer)
            for name, layer in params.items()
        }

    @cached_property
    def optimizer(self) -> Any:
        """The update rule."""
        return make_optimizer(self.config, self.steps_per_epoch, self.head, self.word_tables)

    def initial_state(self, seed: int | jax.Array | None = None) -> TrainState:
        """The state before the first step, a pure function of the config, or of another seed."""
        seed = start_seed(self.config) if seed is None else seed
        params = nnx.to_pure_dict(nnx.split(self.network(seed))[1])
        rng = jax.random.key_data(jax.random.key(seed))
        return TrainState(jnp.int32(0), rng, params, self.optimizer.init(params))

    @cached_property
    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state."""
        shapes = jax.eval_shape(self.initial_state)
        whole = replicated(self.mesh)
        params = parameter_shardings(
            self.mesh, shapes.params, self.head, self._abstract.unsplit_layers
        )
        # Moments and traces lie as the parameters that they belong to.
        opt_state = optax.tree_map_params(
            self.optimizer,
            lambda _, sharding: sharding,
            shapes.opt_state,
            params,
            transform_non_params=lambda _: whole,
        )
        shardings = replace(
            jax.tree.map(lambda _: whole, shapes), params=params, opt_state=opt_state
        )
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            shardings,
        )

    @property
    def state_shardings(self) -> TrainState:
        """The sharding of every array of the state."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state)

    def init(self) -> TrainState:
        """Computes the initial state, each device its own part."""
        return self.once(self.initial_state, self.state_shardings)()

    def once(self, function: Callable[..., Any], shardings: Any) -> Any:
        """Returns a function jitted for one use; `shardings` are those of its results."""
        options = once_options(self.mesh.devices.flat[0].platform)
        return jax.jit(function, out_shardings=shardings, compiler_options=options)

    @cached_property
    def train_call(self) -> Any:
        """Jitted (state, stacked batches) -> (state, metrics per step); the state is donated."""
        return self.call_with(make_sync(self.config, self.mesh))

    def call_with(self, sync: Callable[[Gradient], Gradient]) -> Any:
        """Returns `train_call` with another synchronisation of gradients than the config's.

        Args:
          sync: as `gradient_sync.make_sync` returns.
        """
        device_kind = self.mesh.devices.flat[0].device_kind
        overlap = overlap_options(device_kind, self.config.gradient_sync.bucket_mb)
        return jax.jit(
            self.pure_call(sync),
            donate_argnums=0,
            out_shardings=(self.state_shardings, replicated(self.mesh)),
            compiler_options=overlap | self.compiler_options,
        )

    def pure_call(self, sync: Callable[[Gradient], Gradient]) -> Step:
        """Returns what `call_with` compiles."""
        return self.call_of_one(sync)

    def call_of_one(
        self,
        sync: Callable[[Gradient], Gradient],
        optimizer: optax.GradientTransformation | None = None,
        task: Task | None = None,
        skips: bool = False,
    ) -> Step:
        """Returns the call of one network.

        Args:
          sync: see `call_with`.
          optimizer: the update rule, if not that of the config.
          task: has the loss, if not that of the program.
          skips: whether there are batches without any weight, of which no step is taken.
        """
        parts = self.config.train.accumulate

        def around(gradient: Gradient) -> Gradient:
            return sync(accumulate(gradient, parts, self.loops_well))

        rule = optimizer or self.optimizer
        step = make_train_step(self.apply, task or self.task, rule, self.augment, around)
        if skips:
            step = skip_empty(step, self.loops_well)
        return make_train_call(step, self.loops_well)

    @cached_property
    def predict_call(self) -> Callable[[Params, jax.Array], jax.Array]:
        """Jitted (params, x [batches, batch, ...]) -> outputs [batches, batch, outputs].

        Every answer is in float32, whichever precision training had.
        """
        return jax.jit(
            self.pure_predict(),
            out_shardings=replicated(self.mesh),
            compiler_options=self.compiler_options,
        )

    def pure_predict(self) -> Callable[[Params, jax.Array], jax.Array]:
        """Returns what `predict_call` compiles."""
        strands = self.config.model.get("strands", "forward")
        return make_predict(self._outputs, self.task, strands)

    def gather(self, params: Params) -> Params:
        """Returns the parameters whole on every device, and so on every process."""
        return jax.jit(lambda tree: tree, out_shardings=replicated(self.mesh))(params)

    def feed(self, split: Split) -> Callable[[int, int], Any]:
        """Returns (first step, steps) -> what the calls of `compiled` take beside the state."""
        feed, resident = make_feed(split, self.rows(len(split)), self.batch_shardings)
        if resident:
            return feed

        def steps_from(first: int) -> int:
            done = first % self.steps_per_epoch
            return calls_left(self.steps_per_epoch, self.most_steps, done)[0]

        self.ahead.append(ReadAhead(feed, steps_from))
        return self.ahead[-1]

    def streamed(self, split: Split) -> Feed:
        """Returns a feed that puts nothing on the devices before it is asked for."""
        return streamed_feed(split, self.rows(len(split)), self.batch_shardings)

    def rows(self, examples: int) -> Rows:
        """Returns which of the training examples make which batches."""
        seed, batch_size = start_seed(self.config), self.config.train.batch_size
        return lambda first, steps: batch_rows(seed, first, steps, examples, batch_size)

    @property
    def batches(self) -> int:
        """Different batches of one step."""
        return 1

    def own_rows(self, split: str) -> list[NDArray[np.int64]] | None:
        """Returns which examples of a split each network has for itself; None: all have all."""
        del split
        return None

    @property
    def batch_shardings(self) -> Shardings:
        """How the stacked batches of one call lie."""
        return Shardings(stacked_inputs(self.mesh), stacked_rows(self.mesh))

    def begin(self, targets: NDArray) -> Progress:
        """Returns the progress of a run that begins.

        Args:
          targets: [examples, *target_shape] of the validation split.
        """
        return NetworkProgress(self.stopping(targets))

    def stopping(self, targets: NDArray) -> EarlyStopping:
        """Returns early stopping as the config has it; see `begin`."""
        return EarlyStopping(
            **self.config.train.early_stopping.to_dict(),
            chance_loss=self.task.chance_loss(targets),
            chance_auroc=self.task.chance_auroc(targets),
        )

    def scores(self, targets: NDArray, outputs: NDArray) -> Any:
        """Returns the task's scores of the validation split, with the loss of training."""
        return self.task.scores(targets, outputs) | {"loss": self.task.loss(targets, outputs)}

    def keep(self, best: Params, params: Params, improved: Any) -> Params:
        """Returns the best parameters so far; they outlive the state that the next call reuses."""
        return copied(params) if improved else best

    def compiled(self, steps: int) -> TrainCall:
        """Compiles the call that takes `steps` steps."""
        return self.train_call.lower(self.abstract_state, self.abstract_batches(steps)).compile()

    def report(self) -> dict[str, Any]:
        """Metrics of the strategy itself since the last report; they go into metrics.jsonl."""
        return {}

    def check(self) -> None:
        """Asks for what training needs beside devices; raises UserError where it is not there."""

    def tables(self) -> Iterable[Any]:
        """What the strategy shows before training, for a rich console."""
        return ()

    def close(self) -> None:
        """Ends what the program has started."""
        while self.ahead:
            self.ahead.pop().close()

    def abstract_batches(self, steps: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes, dtypes and shardings of `steps` stacked training batches."""
        rows, by = (steps, self.config.train.batch_size), self.batch_shardings
        leaves = {
            "x": ((*rows, *self.example_shape), "uint8", by.inputs),
            "y": ((*rows, *self.task.target_shape), self.task.target_dtype, by.rows),
            "weight": (rows, "float32", by.rows),
        }
        return {
            name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
            for name, (shape, dtype, sharding) in leaves.items()
        }
