"""How a backend likes its work: compiler options, steps in one dispatch, calls under way."""

from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import accumulate
from typing import Any, TypeVar

import jax

# Long enough that dispatch costs nothing, short enough that a stop is noticed within a second.
_STEPS = 256
# Batches of one dispatch lie on the devices together.
_BYTES = 2**26
# One call runs and one waits in the device's queue; more would only put off a stop. And simulated
# devices share a pool of threads: where 32 calls that sum over devices wait, each thread can wait
# for a device that has none left, and XLA aborts the process after 40 seconds.
CALLS_AHEAD = 1

_Job = TypeVar("_Job")

# XLA's CPU backend hands convolutions to YNNPACK by default, which takes eight times as long as
# Eigen for the forward pass of a 3 x 3 layer and four times for the gradient of its kernel
# (docs/benchmarks.md); an empty list hands nothing over.
_CPU_CONVOLUTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}
# oneDNN is faster still, on one thread: for devices that have one each (docs/performance.md).
# jaxlib obeys since 0.12; 0.10 knows the name, and is built without oneDNN.
_ON_A_CORE = {"xla_cpu_experimental_onednn_custom_call": True}


def loops_well(platform: str, convolves: bool) -> bool:
    """Whether a backend runs a network inside a loop as fast as outside.

    On the CPU a loop keeps convolutions from Eigen, and they take sixty times as long
    (docs/benchmarks.md); matrix products do not mind.

    Args:
      platform: `cpu`, `gpu` or `tpu`.
      convolves: whether the network has image convolutions.
    """
    return platform != "cpu" or not convolves


def most_steps(platform: str, convolves: bool, batch_bytes: int) -> int:
    """Returns how many steps one dispatch should hold at most.

    Args:
      platform: `cpu`, `gpu` or `tpu`.
      convolves: whether the network has image convolutions.
      batch_bytes: size of a global batch's inputs.
    """
    if not loops_well(platform, convolves):
        return 1
    return max(1, min(_STEPS, _BYTES // batch_bytes))


def few_ahead(begun: Iterable[_Job], ahead: int = CALLS_AHEAD) -> Iterator[_Job]:
    """Yields what calls return, in order, and begins few calls before the earlier ones are awaited.

    Args:
      begun: begins one more call each time that it is asked.
      ahead: calls begun after the one that is yielded. Who is given that one waits for it.
    """
    waiting: deque[_Job] = deque()
    for job in begun:
        waiting.append(job)
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting


def steps_in_calls(steps_per_epoch: int, most_steps: int) -> list[int]:
    """Splits an epoch into calls of equal or nearly equal length.

    Args:
      steps_per_epoch: what to split.
      most_steps: the longest call.

    Returns:
      Steps of each call. There are two different values at most, since each is compiled.
    """
    calls = -(-steps_per_epoch // most_steps)
    short, longer = divmod(steps_per_epoch, calls)
    return [short + 1] * longer + [short] * (calls - longer)


def calls_left(steps_per_epoch: int, most_steps: int, done: int) -> list[int]:
    """Returns the calls that end an epoch of which `done` steps are done.

    Args:
      steps_per_epoch: steps of a whole epoch.
      most_steps: the longest call.
      done: steps done. A run stops between two calls, so mostly the rest of the calls is left;
        with another `most_steps` than before, the rest of the steps is split anew.
    """
    calls = steps_in_calls(steps_per_epoch, most_steps)
    ends = list(accumulate(calls, initial=0))
    if done in ends:
        return calls[ends.index(done) :]
    return steps_in_calls(steps_per_epoch - done, most_steps)


def convolution_options(platform: str, convolves: bool, a_core_each: bool) -> dict[str, Any]:
    """Returns what the compiler must be told beyond its defaults.

    Args:
      platform: `cpu`, `gpu` or `tpu`.
      convolves: whether the network has image convolutions.
      a_core_each: whether each device has a core to itself.
    """
    if platform != "cpu" or not convolves:
        return {}
    wanted = _CPU_CONVOLUTIONS | (_ON_A_CORE if a_core_each else {})
    return {name: value for name, value in wanted.items() if _known(name, value)}


def once_options(platform: str) -> dict[str, Any]:
    """Returns compiler options for a program that runs once, such as that of initial parameters.

    Optimised, the draws of CIFAR-10's network take a CPU five seconds to compile; like this they
    take half a second, and have the same bits.

    Args:
      platform: `cpu`, `gpu` or `tpu`.
    """
    return {"xla_backend_optimization_level": 0} if platform == "cpu" else {}


@cache
def _known(option: str, value: Any) -> bool:
    """Whether the installed compiler has this option: an unknown one is an error."""
    try:
        jax.jit(lambda: 0, compiler_options={option: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
