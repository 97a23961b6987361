"""`config.optimizer` as an optax gradient transformation."""

from typing import Any

import jax
import optax
from ml_collections import ConfigDict


def learning_rate(config: ConfigDict, steps_per_epoch: int) -> optax.Schedule:
    """Returns the step size as a function of the step.

    Args:
      config: a whole configuration.
      steps_per_epoch: batches in one pass over the training split.
    """
    peak = config.optimizer.learning_rate
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
    config: ConfigDict, steps_per_epoch: int, head: str
) -> optax.GradientTransformation:
    """Returns the update rule of `config.optimizer`.

    Weight decay is decoupled (Loshchilov and Hutter, 2019, arXiv 1711.05101) and shrinks kernels
    only, and of them not the last layer's: there it would shrink the logits themselves.

    Args:
      config: a whole configuration.
      steps_per_epoch: batches in one pass over the training split.
      head: name of the network's last layer.
    """
    settings = config.optimizer
    directions = {
        "adam": lambda: optax.scale_by_adam(b1=settings.b1, b2=settings.b2, eps=settings.eps),
        "sgd": optax.identity,
        "momentum": lambda: optax.trace(decay=settings.momentum),
    }

    def decays(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: path[-1].key == "kernel" and path[0].key != head, params
        )

    decay = [optax.add_decayed_weights(settings.weight_decay, decays)]
    return optax.chain(
        directions[settings.name](),
        *(decay if settings.weight_decay else []),
        optax.scale_by_learning_rate(learning_rate(config, steps_per_epoch)),
    )
