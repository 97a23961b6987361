"""What the devices here reach: in matrix products, from their memory, and on their links.

All devices work at once: they may share a power supply, a switch or, where they are simulated, the
cores of one CPU. Each figure is that of one device, and of the slowest process.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdna.parallel.machines import Machine
from jaxdna.parallel.peers import largest

_ROWS = PartitionSpec("devices")
_SIDES, _SIDES_ON_CPU = (8192,), (256, 512, 1024)  # of the matrices
_MEMORY_BYTES, _MEMORY_BYTES_ON_CPU = 2**30, 2**28  # the latter of all devices together
_SUM_BYTES, _SUM_BYTES_ON_CPU = 2**26, 2**22
_CACHED_BYTES, _ROUNDS = 2**20, 64
_SECONDS, _SERIES = 0.2, 3  # of one series of calls, and how many there are
_SHORTEST, _MOST_CALLS = 1e-6, 1000

Clock = Callable[[], float]


@dataclass(frozen=True)
class Rates:
    """What one device reaches.

    Attributes:
      float32: floating-point operations a second of a product of float32 matrices, as XLA computes
        it unless told otherwise.
      bfloat16: the same of bfloat16 matrices.
      memory: bytes a second, from and to main memory.
      cached: bytes a second of what stays in a CPU's cache; `memory` elsewhere.
      links: bytes a second that each device sends in a sum over all; None for a single one.
    """

    float32: float
    bfloat16: float
    memory: float
    cached: float
    links: float | None

    def machine(self) -> Machine:
        """The rates of a roofline; what a CPU's kernels move may come from its cache."""
        links = self.links or math.inf
        memory = max(self.memory, self.cached)
        return Machine(
            self.float32, self.bfloat16, memory, 0, links, links, "measured", 0.0, 0.0
        )  # fmt: skip


def measure_rates(devices: Sequence[jax.Device], clock: Clock = time.perf_counter) -> Rates:
    """Measures for some seconds; the best of several repeats counts.

    Args:
      devices: all devices of all processes, each of which must call.
      clock: returns seconds.
    """
    mesh = Mesh(np.array(devices), ("devices",))
    on_cpu = devices[0].platform == "cpu"

    def product(dtype: str, side: int) -> float:
        a = _random(mesh, (side, side), dtype)
        return 2 * side**3 / _seconds(_each(mesh, lambda a: a @ a, keep=True), a, clock)

    def copied(size: int, rounds: int) -> float:
        x = _random(mesh, (size // 4,), "float32")
        # In a loop where one pass is too short to be timed.
        once = _each(mesh, lambda x: lax.fori_loop(0, rounds, lambda _, x: x + 1, x))
        return 2 * size * rounds / _seconds(once, x, clock)

    def summed(size: int) -> float:
        x = _random(mesh, (size // 4,), "float32")
        sent = 2 * (len(devices) - 1) / len(devices) * size  # by a ring, the least that there is
        return sent / _seconds(_each(mesh, lambda x: lax.psum(x, "devices")), x, clock)

    sides = _SIDES_ON_CPU if on_cpu else _SIDES
    memory = copied(_MEMORY_BYTES_ON_CPU // len(devices) if on_cpu else _MEMORY_BYTES, 1)
    return Rates(
        float32=max(product("float32", side) for side in sides),
        bfloat16=max(product("bfloat16", side) for side in sides),
        memory=memory,
        cached=copied(_CACHED_BYTES, _ROUNDS) if on_cpu else memory,
        links=summed(_SUM_BYTES_ON_CPU if on_cpu else _SUM_BYTES) if len(devices) > 1 else None,
    )


def _random(mesh: Mesh, shape: tuple[int, ...], dtype: str) -> jax.Array:
    """One array for each device; of zeros or ones a GPU would take less power, and be faster."""
    whole = (mesh.size, *shape)
    draw = jax.jit(
        lambda: jax.random.normal(jax.random.key(0), whole, dtype),
        out_shardings=NamedSharding(mesh, _ROWS),
    )
    return draw()


def _each(
    mesh: Mesh, function: Callable[[jax.Array], jax.Array], keep: bool = False
) -> Callable[..., Any]:
    """Jits a function that each device applies to its own array, which it may `keep`.

    Otherwise the result takes its memory: a CPU's system would have to clear other.
    """
    own = jax.shard_map(
        lambda stacked: function(stacked[0])[None],
        mesh=mesh, in_specs=_ROWS, out_specs=_ROWS, check_vma=False,
    )  # fmt: skip
    return jax.jit(own, donate_argnums=() if keep else 0)


def _seconds(call: Callable[..., Any], x: jax.Array, clock: Clock) -> float:
    """The least mean time of one call over some series of calls."""

    def series(count: int) -> float:
        nonlocal x
        start = clock()
        for _ in range(count):
            result = jax.block_until_ready(call(x))
            x = result if x.is_deleted() else x
        return (clock() - start) / count

    series(1)
    # Long, since the clock of a processor's time moves in steps of milliseconds.
    count = min(_MOST_CALLS, math.ceil(_SECONDS / largest(max(series(2), _SHORTEST))))
    return largest(min(series(count) for _ in range(_SERIES)))
