"""Are all layouts the same training? Trains some SGD steps on each and compares with one device.

Differences are given relative to what moved, and two layouts are the same where they differ by no
more than rounding explains. How much that is follows from the network itself: one device trains
again from parameters that are off by `_ROUNDINGS` roundings, and what comes of that is the bound.
It holds sums in another order, and the units that rounding puts on the other side of a bend.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from ml_collections import ConfigDict
from numpy.typing import NDArray

from jaxdna.config import flat, start_seed, validate
from jaxdna.data.dataset import Dataset
from jaxdna.errors import UserError
from jaxdna.member_settings import ONE_NETWORK, member_settings
from jaxdna.parallel.mesh import AXES, DCN_AXES, divisors, factorisations
from jaxdna.study.plan import program_on
from jaxdna.training.dispatch import steps_in_calls
from jaxdna.training.program import Program

LAYOUT_AXES = ("data", "fsdp", "seq", "model")


# What rounding changes is measured with this many at once in every parameter: as many as sums of a
# few thousand terms gather (their square root: Higham and Mary, 2019, doi:10.1137/18M1226312).
_ROUNDINGS = 64
_UNIT = {"float32": 2.0**-24, "bfloat16": 2.0**-8 / _ROUNDINGS}  # whose sums are of float32
# Above this share rounding could pass for a gradient that is doubled or halved.
_TELLING = 0.25


class Difference(NamedTuple):
    """How far a layout is from one device after the same steps.

    Attributes:
      mesh: size of each axis that is larger than 1.
      strategy: how gradients are summed: `auto`, `ring`, or `hierarchical` with its hosts.
      max_abs_diff_params: largest difference of any parameter; None where not finite.
      max_abs_diff_loss: the same of any step's mean loss.
      max_rel_diff: largest difference as a share: of a parameter array's longest way from its
        start, of its largest gradient in the last step, or of the loss; None where not finite.
      same: whether rounding explains it.
      bound: the share that rounding explains.
    """

    mesh: dict[str, int]
    strategy: str
    max_abs_diff_params: float | None
    max_abs_diff_loss: float | None
    max_rel_diff: float | None
    same: bool
    bound: float

    @property
    def name(self) -> str:
        """Mesh and strategy in words."""
        return f"{mesh_words(self.mesh)} ({self.strategy})"


class Outcome(NamedTuple):
    """What some steps did; trees of arrays are NumPy's.

    Attributes:
      params: the parameters.
      way: the parameters minus the initial ones.
      gradient: of the last step.
      losses: the mean loss of each step, float64 [steps].
    """

    params: Any
    way: Any
    gradient: Any
    losses: NDArray[np.float64]


# SGD at a constant rate: Adam would hide gradients that are scaled. As momentum without any, it is
# the same, and its state holds the gradient. What follows is what the sweep itself chooses.
_COMPARABLE = {
    "optimizer.name": "momentum",
    "optimizer.momentum": 0.0,
    "optimizer.schedule": "constant",
    "optimizer.warmup_epochs": 0.0,
    "strategy": "spmd",
    **ONE_NETWORK,
    "gradient_sync.method": "auto",
    **{f"mesh.{axis}": -1 if axis == "data" else 1 for axis in AXES},
    **{f"mesh.dcn.{axis}": 1 for axis in DCN_AXES},
}


def comparable(config: ConfigDict) -> ConfigDict:
    """Returns what `config` trains on one device in the comparison, and every layout changes."""
    return validate(flat(config) | _COMPARABLE)


def layout_flags(devices: int) -> Iterator[dict[str, Any]]:
    """Yields config changes for every mesh of `devices`, each explicit gradient sum, and members.

    The members are as many as the places of their axis; the other devices share the batch.
    """
    for sizes in factorisations(devices, LAYOUT_AXES):
        yield {f"mesh.{axis}": n for axis, n in sizes.items()}
    data = {f"mesh.{axis}": 1 for axis in LAYOUT_AXES} | {"mesh.data": devices}
    if devices > 1:
        yield data | {"gradient_sync.method": "ring"}
    for hosts in divisors(devices)[1:-1]:
        yield data | {"gradient_sync.method": "hierarchical", "mesh.dcn.data": hosts}
    for members in divisors(devices)[1:]:
        many = {"members.seeds": members, "mesh.member": members}
        yield data | many | {"mesh.data": devices // members}


def legal_layouts(
    config: ConfigDict, dataset: Dataset, devices: Sequence[jax.Device]
) -> Iterator[Program]:
    """Yields the program of every layout of all `devices` that fits the model and the batch."""
    for flags in layout_flags(len(devices)):
        try:
            yield program_on(config, dataset.spec, devices, flags)
        except UserError:
            continue  # this layout does not divide something


def train_steps(program: Program, dataset: Dataset, steps: int, off: float = 0.0) -> Outcome:
    """Trains from the initial parameters.

    Args:
      program: what to train, with `comparable`'s optimizer.
      dataset: on what.
      steps: how many steps of the first epoch.
      off: by which share, at most, each initial parameter is moved first.
    """
    feed = program.streamed(dataset.splits["train"])
    mark = program.begin(dataset.splits["validation"].y).marked
    state, losses, first = program.init(), [], 0
    if off:
        state = replace(state, params=_moved(state.params, off))
    start = on_host(program, state.params)  # the state is donated
    for length in steps_in_calls(steps, program.most_steps):
        state, metrics = program.train_call(state, mark(feed(first, length)))
        losses.append(np.float64(metrics["loss"]) / np.float64(metrics["weight"]))
        first += length
    params = on_host(program, state.params)
    way = jax.tree.map(np.subtract, params, start)
    gradient = optax.tree_utils.tree_get(state.opt_state, "trace")
    return Outcome(params, way, on_host(program, gradient), np.concatenate(losses, axis=-1))


def on_host(program: Program, params: Any) -> Any:
    """Returns parameters, or what lies as they do, as NumPy's arrays in every process."""
    if jax.process_count() > 1:  # each has a part of them
        params = program.gather(params)
    return jax.tree.map(np.asarray, params)


def _moved(params: Any, off: float) -> Any:
    draw = np.random.default_rng(0)

    def move(leaf: jax.Array) -> jax.Array:
        factor = 1 + off * draw.uniform(-1, 1, leaf.shape)
        return jax.device_put((np.asarray(leaf) * factor).astype(leaf.dtype), leaf.sharding)

    return jax.tree.map(move, params)


def share_apart(one: Outcome, other: Outcome) -> float:
    """Returns `Difference.max_rel_diff` of two outcomes; infinite or NaN where one of them is."""

    def share(a: NDArray, b: NDArray) -> float:
        apart, size = np.abs(a - b).max(), np.abs(a).max()
        return float(apart / size) if size else float(apart and np.inf)

    shares = jax.tree.map(
        share, (one.way, one.gradient, one.losses), (other.way, other.gradient, other.losses)
    )
    return float(np.max(jax.tree.leaves(shares)))


def _coarseness(outcome: Outcome) -> float:
    """The distance between neighbouring floats as a share of the way, where it is the largest."""

    def share(params: NDArray, way: NDArray) -> float:
        longest = np.abs(way).max()
        return float(np.spacing(np.abs(params).max()) / longest) if longest else np.inf

    return max(jax.tree.leaves(jax.tree.map(share, outcome.params, outcome.way)))


def rounding_bound(program: Program, dataset: Dataset, steps: int, alone: Outcome) -> float:
    """Returns the share by which rounding alone can set two layouts of a training apart.

    Args:
      program: of one device.
      dataset: its data.
      steps: how many.
      alone: their outcome.

    Raises:
      UserError: it is so large that a wrong gradient could hide in it, or the loss is not finite.
    """
    config = program.config
    rate = f"--config.optimizer.learning_rate={config.optimizer.learning_rate:g}"
    if not np.isfinite(share_apart(alone, alone)):
        raise UserError(f"{rate} makes the loss infinite in {steps} steps; give a smaller one")
    off = _ROUNDINGS * _UNIT[config.train.precision]
    # Moved both ways: a unit close to its bend is then once on either side.
    others = [train_steps(program, dataset, steps, sign * off) for sign in (1, -1)]
    bound = max(_coarseness(alone), *(share_apart(alone, other) for other in others))
    if not bound < _TELLING:
        raise UserError(
            f"rounding alone is {bound:.2g} times the distance that {rate} moves the parameters in "
            f"--steps={steps}, and a wrong gradient could hide in it; legal: up to {_TELLING}, "
            "with another rate or fewer steps"
        )
    terms = config.train.batch_size * np.prod(program.example_shape)
    return bound + float(np.sqrt(terms)) * _UNIT["float32"]


def compare_layouts(
    config: ConfigDict, dataset: Dataset, devices: Sequence[jax.Device], steps: int
) -> Iterator[Difference]:
    """Trains `steps` SGD steps on one device and on every legal layout of all of them.

    Args:
      config: a whole configuration; of its mesh, strategy and gradient sum nothing is used.
      dataset: its data.
      devices: all devices of all processes, each of which must call.
      steps: how many steps; at most one epoch.

    Yields:
      One row per layout.

    Raises:
      UserError: the steps cannot tell layouts apart; see `rounding_bound`.
    """
    config = comparable(config)
    own = [device for device in devices if device.process_index == jax.process_index()]

    @cache
    def alone(seed: int) -> tuple[Outcome, float]:
        """What one device makes of a seed, and the bound."""
        changes = {"train.seed": seed}
        program = program_on(config, dataset.spec, own[:1], changes)
        outcome = train_steps(program, dataset, steps)
        return outcome, rounding_bound(program, dataset, steps, outcome)

    alone(start_seed(config))  # whether the steps can tell layouts apart
    for program in legal_layouts(config, dataset, devices):
        found = [
            _difference(program, *alone(seed), own)
            for seed, own in _networks(program, train_steps(program, dataset, steps))
        ]
        yield max(
            found, key=lambda one: (one.max_rel_diff is None, (one.max_rel_diff or 0) / one.bound)
        )


def _networks(program: Program, outcome: Outcome) -> Iterator[tuple[int, Outcome]]:
    """The seed of each network that is compared, and its outcome: of several the first and last."""
    members = member_settings(program.config)
    if not members:
        yield start_seed(program.config), outcome
    for i in (0, len(members) - 1) if members else ():
        yield members[i]["train.seed"], jax.tree.map(lambda leaf, i=i: leaf[i], outcome)


def _difference(program: Program, alone: Outcome, bound: float, other: Outcome) -> Difference:
    apart = jax.tree.map(lambda a, b: np.abs(a - b).max(), alone.params, other.params)
    share = share_apart(alone, other)
    return Difference(
        {axis: n for axis, n in program.mesh.shape.items() if n > 1},
        _strategy(program.config),
        _finite(np.max(jax.tree.leaves(apart))),
        _finite(np.abs(alone.losses - other.losses).max()),
        _finite(share),
        bool(share <= bound),
        bound,
    )


def mesh_words(mesh: Mapping[str, int]) -> str:
    """The axes of a mesh that are larger than 1, as `data=2 model=4`."""
    return " ".join(f"{axis}={n}" for axis, n in mesh.items() if n > 1) or "one device"


def _finite(number: float) -> float | None:
    """A number as JSON can have it: None for what a broken layout computes."""
    return float(number) if np.isfinite(number) else None


def _strategy(config: ConfigDict) -> str:
    method = config.gradient_sync.method
    return f"{method}, {config.mesh.dcn.data} hosts" if method == "hierarchical" else method
