"""NVIDIA GPUs that need not be there: ``h100:8`` or ``h100:2x8`` becomes devices to compile for.

XLA compiles for a GPU from a description of it; jax's CUDA plugin (without CUDA itself, and without
a driver) has the compiler. What it would have timed on the GPU, such as cuDNN's algorithms, it
leaves as it is.
"""

import dataclasses
from functools import partial
from typing import Any

from jaxdna.errors import UserError
from jaxdna.parallel import plugins
from jaxdna.quiet import no_chatter


@dataclasses.dataclass(frozen=True)
class Gpu:
    """What XLA wants to know of a GPU.

    Source: the files of XLA's repository under ``xla/backends/gpu/target_config/specs``, which are
    what its own tools read from each device.

    Attributes:
      description: what ``jax.Device.device_kind`` says.
      capability: CUDA's compute capability.
      cores: streaming multiprocessors.
      lanes: float32 units of each core.
      threads: that a core holds.
      shared_memory: bytes of each core, and those that one block of threads may ask for.
      memory: bytes.
      bandwidth: of the memory, bytes a second.
      cache: bytes of the second level.
      clock: GHz.
      per_host: how many GPUs a host has.
    """

    description: str
    capability: tuple[int, int]
    cores: int
    lanes: int
    threads: int
    shared_memory: tuple[int, int]
    memory: int
    bandwidth: int
    cache: int
    clock: float
    per_host: tuple[int, ...] = (1, 2, 4, 8)


GPUS = {
    "a6000": Gpu(
        "NVIDIA RTX A6000", (8, 6), cores=84, lanes=128, threads=1536,
        shared_memory=(102400, 101376), memory=51041271808, bandwidth=768096000000,
        cache=6291456, clock=1.8, per_host=(1, 2, 4),
    ),
    "a100": Gpu(
        "NVIDIA A100-SXM4-80GB", (8, 0), cores=108, lanes=64, threads=2048,
        shared_memory=(167936, 166912), memory=85100068864, bandwidth=2039040000000,
        cache=41943040, clock=1.41,
    ),
    "h100": Gpu(
        "NVIDIA H100 80GB HBM3", (9, 0), cores=132, lanes=128, threads=2048,
        shared_memory=(233472, 232448), memory=84942979072, bandwidth=3352320000000,
        cache=52428800, clock=1.98,
    ),
    "h200": Gpu(
        "NVIDIA H200 141GB HBM3e", (9, 0), cores=132, lanes=128, threads=2048,
        shared_memory=(233472, 232448), memory=151397597184, bandwidth=4800000000000,
        cache=52428800, clock=1.98,
    ),
    "b200": Gpu(
        "NVIDIA B200", (10, 0), cores=148, lanes=128, threads=2048,
        shared_memory=(233472, 232448), memory=191514411008, bandwidth=7672320000000,
        cache=132644864, clock=1.965,
    ),
}  # fmt: skip

_MOST_HOSTS = 512

# The text form of XLA's GpuTargetConfigProto; what is the same for every GPU above is written out.
_TARGET = """\
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {gpu.shared_memory[0]}
  shared_memory_per_block_optin: {gpu.shared_memory[1]}
  threads_per_core_limit: {gpu.threads}
  core_count: {gpu.cores}
  fpus_per_core: {gpu.lanes}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {gpu.bandwidth}
  l2_cache_size: {gpu.cache}
  clock_rate_ghz: {gpu.clock}
  device_memory_size: {gpu.memory}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  cuda_compute_capability {{ major: {gpu.capability[0]} minor: {gpu.capability[1]} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 9 }}
device_description_str: "{gpu.description}"
"""


def parse(name: str) -> tuple[str, int, int]:
    """Takes the name of some GPUs apart.

    Args:
      name: ``h100:8``, or ``h100:2x8`` for two hosts of eight; of a GPU in `GPUS`.

    Returns:
      The GPU, the number of hosts, and the GPUs of each.

    Raises:
      UserError: hosts with so many of these GPUs are not known.
    """
    head, _, tail = name.partition(":")
    gpu = GPUS[head]
    sizes = tail.split("x")
    if len(sizes) in (1, 2) and all(size.isdecimal() and len(size) < 6 for size in sizes):
        hosts, count = (int(size) for size in (["1", *sizes])[-2:])
        if 1 <= hosts <= _MOST_HOSTS and count in gpu.per_host:
            return head, hosts, count
    counts = [f"{head}:{count}" for count in gpu.per_host]
    raise UserError(
        f"--topology={name} names a number of GPUs that no host has; legal: {', '.join(counts)}, "
        f"and {head}:HOSTSx{gpu.per_host[-1]} and the like for 2 to {_MOST_HOSTS} hosts"
    )


def device_count(name: str) -> int:
    """The number of GPUs on all hosts of a name."""
    _, hosts, count = parse(name)
    return hosts * count


def topology(name: str) -> Any:
    """Describes GPUs of one host or several, for compiling ahead of time.

    Args:
      name: as in `parse`.

    Returns:
      A ``jax.experimental.topologies.TopologyDescription``; its ``devices`` go into a mesh, and
      those of a host have one ``process_index``.

    Raises:
      UserError: as in `parse`, or the compiler is not installed.
    """
    head, hosts, count = parse(name)
    if not plugins.installed():
        raise UserError(
            f"--topology={name} needs jax's compiler for GPUs, which is not installed: "
            "pip install 'jaxdna[plan-gpu]', or leave the flag out to compile for the devices here"
        )
    import jax
    from jax.experimental import topologies

    if not jax.config.values["jax_platforms"]:
        jax.config.update("jax_platforms", "cpu")
    describe = partial(
        topologies.get_topology_desc,
        platform="cuda",
        target_config=_TARGET.format(gpu=GPUS[head]),
        topology=f"1x{hosts}x{count}",
    )
    with no_chatter():
        try:
            return describe()
        except NotImplementedError:  # jax has started here without the plugins
            plugins.load()
            return describe()
