"""`config.optimizer` as an optax gradient transformation."""

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


def make_optimizer(config: ConfigDict, steps_per_epoch: int) -> optax.GradientTransformation:
    """Returns the update rule of `config.optimizer`.

    Args:
      config: a whole configuration.
      steps_per_epoch: batches in one pass over the training split.
    """
    rate = learning_rate(config, steps_per_epoch)
    settings = config.optimizer
    return {
        "adam": lambda: optax.adam(rate, b1=settings.b1, b2=settings.b2, eps=settings.eps),
        "sgd": lambda: optax.sgd(rate),
        "momentum": lambda: optax.sgd(rate, momentum=settings.momentum),
    }[settings.name]()
