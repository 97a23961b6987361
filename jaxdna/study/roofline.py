"""How fast a compiled step can be at best on devices whose peak rates are known.

Each kernel takes the longer of its operations at the peak rate and its bytes at the memory's
bandwidth (Williams, Waterman and Patterson 2009, Roofline); a collective takes what the links need
for its messages and bytes (the alpha-beta model; Thakur, Rabenseifner and Gropp 2005, Optimization
of collective communication operations in MPICH), less the kernels that its schedule puts beside it.
Launching kernels, feeding batches and the host are left out: a bound, not a prediction.
"""

import math
from collections.abc import Sequence
from typing import Any

from jaxdna.parallel.machines import Machine
from jaxdna.study.kernels import Kernel
from jaxdna.study.schedule import Collective


def roofline(
    machine: Machine,
    kernels: Sequence[Kernel],
    collectives: Sequence[Collective],
    hosts: Sequence[Any],
    *,
    precision: str,
    footprint: int,
    flops: float = 0.0,
) -> dict[str, Any]:
    """Bounds the time of one step from below.

    Args:
      machine: the rates of one device.
      kernels: of one step.
      collectives: of one step.
      hosts: the host or slice of each device of the mesh, in the mesh's order.
      precision: ``float32`` or ``bfloat16``, of the matrix products.
      footprint: bytes that the step needs in memory. Where they fit into the cache, the bytes that
        kernels move need not reach main memory, and cost nothing.
      flops: of the whole step, where more is known than the kernels tell: a kernel that is called
        from a program as a whole does not say what it computes.

    Returns:
      `bound`, which of compute, memory and links takes most of the time; the seconds of each; and
      `step_seconds_at_least`.
    """
    rate = getattr(machine, precision)
    cached = footprint <= machine.cache
    times, parts = {}, {"compute": 0.0, "memory": 0.0, "links": 0.0}
    for kernel in kernels:
        compute = kernel.launches * kernel.flops / rate
        memory = 0.0 if cached else kernel.launches * kernel.bytes / machine.memory
        times[kernel.name] = max(compute, memory)
        parts["compute" if compute > memory else "memory"] += times[kernel.name]
    parts["compute"] += max(0.0, flops / rate - sum(times.values()))
    for collective in collectives:
        hidden = sum(times.get(name, 0.0) for name in collective.compute_ops)
        taken = collective.executions * link_seconds(machine, collective, hosts)
        parts["links"] += max(0.0, taken - hidden)
    return {
        "bound": max(parts, key=lambda part: parts[part]),
        "seconds": parts,
        "step_seconds_at_least": sum(parts.values()),
    }


def link_seconds(machine: Machine, collective: Collective, hosts: Sequence[Any]) -> float:
    """The least time of one run of a collective, by the slower of the links inside and across."""
    size = collective.bytes
    if collective.between_slices:
        return machine.network_latency + size / machine.network
    groups = collective.groups or (tuple(range(len(hosts))),)
    members = max(len(group) for group in groups)
    # A host's devices share the way to the others: all of their cards carry one part of it each.
    across = max(len({hosts[i] for i in group}) for group in groups)
    inside = members // across
    return max(
        _seconds(collective.kind, size, inside, machine.link, machine.link_latency),
        _seconds(collective.kind, size, across, machine.network * inside, machine.network_latency),
    )


def _seconds(kind: str, size: int, members: int, rate: float, latency: float) -> float:
    if members < 2:
        return 0.0
    hops = math.ceil(math.log2(members))
    share = (members - 1) / members * size / rate  # of the array, what each has to send or get
    if kind == "all-reduce":
        return 2 * (hops * latency + share)
    if kind in ("collective-permute", "collective-broadcast"):
        return latency + size / rate
    return hops * latency + share
