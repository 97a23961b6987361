"""The one step: (state, batch) -> (state, metrics), pure, for every verb, test and layout.

A batch is a dict of `x` uint8 [batch, ...], `y` [batch, *target_shape] of the task's dtype and
`weight` float32 [batch]; rows of weight 0 are padding. Everything is written for the global batch:
which device computes which rows is decided by the shardings of the arguments alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdna.ops.strands import Strands, complement_strand, read
from jaxdna.parallel.gradient_sync import hold_update
from jaxdna.tasks.task import Batch, Task
from jaxdna.training.state import Params, TrainState

Metrics = dict[str, jax.Array]
Apply = Callable[[Params, jax.Array, jax.Array | None], jax.Array]
Augment = Callable[[Batch, jax.Array], Batch]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
# (params, rows of a batch, total weight of the batch, key) -> sums over the rows
Gradient = Callable[[Params, Batch, jax.Array, jax.Array], tuple[Params, Metrics]]


def flip_strands(batch: Batch, key: jax.Array, task: Task, by_network: bool = False) -> Batch:
    """Replaces each sequence of a batch by its other strand half of the time, and its targets.

    Args:
      batch: `x` is uint8 [batch, length].
      key: decides for every sequence on its own.
      task: knows which targets the other strand exchanges.
      by_network: leaves the sequences as they are, and `x` as `Strands` to the network.
    """
    # A TPU takes them out of the stack of batches once, and not once for each strand.
    codes = jax.lax.optimization_barrier(batch["x"])
    flip = jax.random.bernoulli(key, 0.5, codes.shape[:1])
    strands = Strands(codes, flip)
    flipped: dict[str, Any] = {"x": strands if by_network else read(strands)}
    if task.swaps:
        flipped["y"] = jnp.where(flip[:, None], task.turned(batch["y"]), batch["y"])
    return batch | flipped


def accumulate(gradient: Gradient, parts: int, loops_well: bool = True) -> Gradient:
    """Returns `gradient` computed on `parts` equal pieces of the rows, one after the other.

    Only one piece's activations are held at a time. Sums are the same up to rounding; dropout
    draws anew for every piece.

    Args:
      gradient: of some rows.
      parts: a divisor of the number of rows.
      loops_well: False where the backend should not see a loop.
    """
    if parts == 1:
        return gradient

    def summed(
        params: Params, batch: Batch, total: jax.Array, key: jax.Array
    ) -> tuple[Params, Metrics]:
        # Every parts-th row is a piece, so that a device finds all pieces among its own rows.
        pieces = jax.tree.map(
            lambda leaf: jnp.moveaxis(leaf.reshape(-1, parts, *leaf.shape[1:]), 1, 0), batch
        )

        def add(sums: Any, piece: tuple[Batch, jax.Array]) -> tuple[Any, None]:
            rows, index = piece
            part = gradient(params, rows, total, jax.random.fold_in(key, index))
            return jax.tree.map(jnp.add, sums, part), None

        shapes = jax.eval_shape(gradient, params, batch, total, key)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        each = (pieces, jnp.arange(parts))
        return jax.lax.scan(add, zeros, each, unroll=1 if loops_well else True)[0]

    return summed


def step_keys(rng: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the keys of one step: for augmentation and for dropout.

    Args:
      rng: uint32 [2], data of the run's base key.
      step: int32 scalar.
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(rng), step)
    augment_key, dropout_key = jax.random.split(key)
    return augment_key, dropout_key


def piece_keys(key: jax.Array, pieces: int) -> jax.Array:
    """Returns a key for each piece of a batch; a batch in one piece keeps its own."""
    if pieces == 1:
        return key[None]
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(pieces))


def make_train_step(
    apply: Apply,
    task: Task,
    optimizer: optax.GradientTransformation,
    augment: Augment | None = None,
    around: Callable[[Gradient], Gradient] = lambda gradient: gradient,
) -> Step:
    """Returns the training step.

    Args:
      apply: (params, x, key or None) -> outputs; the key is for dropout.
      task: has the loss.
      optimizer: the update rule.
      augment: (batch, key) -> batch, applied to the training batch on the device.
      around: makes the gradient of some rows one of the whole batch, where it needs more than
        XLA: synchronisation by hand, or accumulation over parts of the batch.

    Returns:
      A pure function; its metrics are the task's `batch_sums`, each a float32 scalar.
    """

    def gradient(
        params: Params, batch: Batch, total: jax.Array, key: jax.Array
    ) -> tuple[Params, Metrics]:
        def share_of_mean_loss(params: Params) -> tuple[jax.Array, Metrics]:
            sums = task.batch_sums(apply(params, batch["x"], key), batch)
            return sums["loss"] / total, sums

        return jax.grad(share_of_mean_loss, has_aux=True)(params)

    whole_gradient = around(gradient)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        augment_key, dropout_key = step_keys(state.rng, state.step)
        if augment:
            batch = augment(batch, augment_key)
        total = jnp.sum(batch["weight"])
        gradients, metrics = whole_gradient(state.params, batch, total, dropout_key)
        # Not fused with the update, the gradients also round as they do where both are compiled
        # apart: in a pipeline, on a parameter server.
        gradients = hold_update(gradients)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, state.rng, params, opt_state), metrics

    return step


def skip_empty(step: Step, loops_well: bool = True) -> Step:
    """Returns a step that leaves everything as it is where no row of the batch has any weight.

    Args:
      step: see `make_train_step`.
      loops_well: False where the backend should see no branch, but a step whose result is dropped.
    """

    def stay(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        _, metrics = jax.eval_shape(step, state, batch)
        return state, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), metrics)

    def skipping(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        some = jnp.any(batch["weight"] > 0)
        if loops_well:
            return jax.lax.cond(some, step, stay, state, batch)
        return jax.tree.map(partial(jnp.where, some), step(state, batch), stay(state, batch))

    return skipping


def make_train_call(step: Step, loops_well: bool = True) -> Step:
    """Returns a function that takes the steps of stacked batches [steps, batch, ...] in one call.

    Its metrics have one entry per step: float32 [steps].

    Args:
      step: one step.
      loops_well: False where the backend should see no loop, but the steps one after the other.
    """

    def call(state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        if batches["weight"].shape[0] == 1:  # a loop of one would only hide the step from XLA
            state, metrics = step(state, jax.tree.map(lambda leaf: leaf[0], batches))
            return state, jax.tree.map(lambda leaf: leaf[None], metrics)
        return jax.lax.scan(step, state, batches, unroll=1 if loops_well else True)

    return call


STRANDS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "average": lambda forward, reverse: (forward + reverse) / 2,
    "max": jnp.maximum,
}


def make_predict(
    apply: Apply, task: Task, strands: str = "forward"
) -> Callable[[Params, jax.Array], jax.Array]:
    """Returns (params, x [batches, batch, ...]) -> outputs float32 [batches, batch, outputs].

    Args:
      apply: (params, x, None) -> outputs.
      task: knows which outputs the other strand exchanges.
      strands: for sequences, `average` or `max` of the outputs of both strands; else `forward`.
    """

    def predict_one(params: Params, x: jax.Array) -> jax.Array:
        outputs = apply(params, x, None)
        if strands != "forward":
            other = task.turned(apply(params, complement_strand(x), None))
            outputs = STRANDS[strands](outputs, other)
        return outputs.astype(jnp.float32)

    def predict(params: Params, x: jax.Array) -> jax.Array:
        if x.shape[0] == 1:
            return predict_one(params, x[0])[None]
        return jax.lax.map(lambda rows: predict_one(params, rows), x)

    return predict
