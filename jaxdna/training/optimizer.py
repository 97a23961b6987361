"""`config.optimizer` as an optax gradient transformation."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict


def learning_rate(
    config: ConfigDict, steps_per_epoch: int, peak: float | jax.Array | None = None
) -> optax.Schedule:
    """Returns the step size as a function of the step.

    Args:
      config: a whole configuration.
      steps_per_epoch: batches in one pass over the training split.
      peak: the largest; `optimizer.learning_rate` if None.
    """
    peak = config.optimizer.learning_rate if peak is None else peak
    total = config.train.epochs * steps_per_epoch
    warmup = round(config.optimizer.warmup_epochs * steps_per_epoch)
    rest = max(1, total - warmup)
    falling = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, rest),
        "linear": optax.linear_schedule(peak, 0.0, rest),
    }[config.optimizer.schedule]
    if not warmup:
        return falling
    # The first step already moves: Adam's first update from a rate of 0 would be lost.
    rising = optax.linear_schedule(peak / warmup, peak, max(1, warmup - 1))
    return optax.join_schedules([rising, falling], [warmup])


def make_optimizer(
    config: ConfigDict,
    steps_per_epoch: int,
    head: str,
    word_tables: Collection[tuple[str, ...]] = (),
    own: Mapping[str, jax.Array] | None = None,
    rate: optax.Schedule | None = None,
) -> optax.GradientTransformation:
    """Returns the update rule of `config.optimizer`.

    Weight decay is decoupled (Loshchilov and Hutter, 2019, arXiv 1711.05101) and shrinks kernels
    only, and of them not the last layer's: there it would shrink the logits themselves.

    Every variable is updated by itself, and the numbers do not depend on which are updated
    together: a stage or a server that holds some finds the bits of one device that holds all.

    Args:
      config: a whole configuration.
      steps_per_epoch: batches in one pass over the training split.
      head: name of the network's last layer.
      word_tables: paths of the variables that are tables of words.
      own: float32 scalars in place of some of `PER_MEMBER`.
      rate: the step size as a function of the step; `learning_rate` if None.
    """
    own = own or {}
    values = {key: own.get(f"optimizer.{key}", value) for key, value in config.optimizer.items()}
    directions = {
        "adam": lambda: _scale_by_adam(
            values["b1"],
            values["b2"],
            values["eps"],
            _adam_direction(config, values["eps"], word_tables),
        ),
        "sgd": optax.identity,
        "momentum": lambda: optax.trace(decay=values["momentum"]),
    }

    def decays(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: path[-1].key == "kernel" and path[0].key != head, params
        )

    decay = [optax.add_decayed_weights(values["weight_decay"], decays)]
    return optax.chain(
        directions[config.optimizer.name](),
        *(decay if "optimizer.weight_decay" in own or values["weight_decay"] else []),
        optax.scale_by_learning_rate(
            rate or learning_rate(config, steps_per_epoch, values["learning_rate"])
        ),
    )


Direction = Callable[[Any, jax.Array, jax.Array], jax.Array]


def _adam_direction(
    config: ConfigDict, eps: Any, word_tables: Collection[tuple[str, ...]]
) -> Direction:
    """Returns (path, corrected moments of a variable) -> Adam's step of rate 1.

    A table of words follows the mean of its gradients instead. Adam moves the weight of a word that
    is met once as far as that of a word met everywhere, and so learns sequences by heart; the mean
    leads to a kernel machine of these words. With a loss of unbounded derivative (numbers, counts)
    that may diverge where sequences are all alike: there Adam's step it is, for scores of a 16th of
    the scale.
    """
    bounded = config.data.get("task") not in ("regression", "counts")

    def direction(path: Any, m: jax.Array, v: jax.Array) -> jax.Array:
        if tuple(part.key for part in path) not in word_tables:
            return m / (jnp.sqrt(v) + eps)
        return m if bounded else m / (jnp.sqrt(v) + eps) / 16

    return direction


def _scale_by_adam(
    b1: Any, b2: Any, eps: Any, direction: Direction
) -> optax.GradientTransformation:
    """`optax.scale_by_adam` with products in place of quotients.

    XLA turns the division of one variable by 1 - b^t into a product with the inverse, and leaves it
    a division where several variables share the divisor: the last bit would depend on their number.
    """

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        count = optax.safe_increment(state.count)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, gradients)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, gradients)
        first, second = 1 / (1 - b1**count), 1 / (1 - b2**count)
        updates = jax.tree_util.tree_map_with_path(
            lambda path, m, v: direction(path, m * first, v * second), mu, nu
        )
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(optax.scale_by_adam(b1, b2, eps).init, update)


def momentum_update(
    config: ConfigDict, steps_per_epoch: int, word_tables: Collection[tuple[str, ...]] = ()
) -> Callable[[Any], Any]:
    """Returns (optimizer state) -> the update that its momentum alone would make next.

    For momentum that is -rate * trace, for Adam -rate times its direction by the bias-corrected
    moments. `spectrain` predicts weights from it (arXiv 1809.02839).

    Args:
      config: a whole configuration whose optimizer has momentum.
      steps_per_epoch: batches in one pass over the training split.
      word_tables: paths of the variables that are tables of words.
    """
    rate, settings = learning_rate(config, steps_per_epoch), config.optimizer
    direction = _adam_direction(config, settings.eps, word_tables)

    def of(opt_state: Any) -> Any:
        kinds = (optax.TraceState, optax.ScaleByAdamState, optax.ScaleByScheduleState)
        found = {
            type(part): part
            for part in jax.tree.leaves(opt_state, is_leaf=lambda part: isinstance(part, kinds))
        }
        done = found[optax.ScaleByScheduleState].count
        if optax.TraceState in found:
            return jax.tree.map(lambda m: -rate(done) * m, found[optax.TraceState].trace)
        adam = found[optax.ScaleByAdamState]
        steps = jnp.maximum(done, 1)  # before the first step both moments are 0, and so is m / v

        def one(path: Any, m: jax.Array, v: jax.Array) -> jax.Array:
            m, v = m / (1 - settings.b1**steps), v / (1 - settings.b2**steps)
            return -rate(done) * direction(path, m, v)

        return jax.tree_util.tree_map_with_path(one, adam.mu, adam.nu)

    return of
