"""What training carries from step to step."""

from dataclasses import dataclass
from typing import Any

import jax

Params = Any  # a pytree of float32 arrays: {layer: {"kernel": ..., "bias": ...}}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """The whole state; the batches and the random numbers follow from it.

    Attributes:
      step: int32 scalar, updates done so far; also the position in the data.
      rng: uint32 [2], data of the run's base key; step s uses `fold_in(rng, s)`.
      params: float32 arrays by layer and name.
      opt_state: optax's state.
    """

    step: jax.Array
    rng: jax.Array
    params: Params
    opt_state: Any
