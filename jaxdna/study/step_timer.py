"""How long a training step takes, trained as `train` does it."""

import math
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import jax

from jaxdna.data.dataset import Split
from jaxdna.parallel.peers import largest
from jaxdna.training.dispatch import few_ahead, steps_in_calls
from jaxdna.training.program import Program
from jaxdna.training.state import TrainState
from jaxdna.training.strategy import TrainCall

_LEAST_SECONDS = 0.5  # of one repeat: far above the noise of a clock or a wake-up
_MOST_CALLS = 200


def step_timer(
    program: Program,
    compiled: Callable[[int], TrainCall],
    split: Split,
    clock: Callable[[], float] = time.perf_counter,
) -> Callable[[], float]:
    """Compiles and warms up; returns a function that trains on and returns seconds per step.

    Batches from the feed are timed as well; compilation and the first calls are not.

    Args:
      program: what is trained.
      compiled: its own `compiled`, or another one whose calls take the same.
      split: the training split.
      clock: returns seconds.
    """
    feed = program.feed(split)
    calls = steps_in_calls(program.steps_per_epoch, program.most_steps)
    length = calls[0]
    call = compiled(length)
    starts = [i * length for i, steps in enumerate(calls) if steps == length]
    state: list[TrainState] = [program.init()]

    def train(count: int) -> float:
        def begun() -> Iterator[Any]:
            for i in range(count):
                batches = feed(starts[i % len(starts)], length)
                state[0], metrics = call(state[0], batches)
                yield metrics

        start = clock()
        for metrics in few_ahead(begun()):
            jax.block_until_ready(metrics)
        return (clock() - start) / count / length

    train(1)
    once = largest(median(train(1) for _ in range(2)) * length)
    count = min(_MOST_CALLS, math.ceil(_LEAST_SECONDS / once))
    return lambda: train(count)
