"""What a configuration leaves open on a CPU: how many devices it is, and how they sum gradients.

The gradient of an image convolution's kernel is a sum over the batch, which one device divides
badly among its cores. With a device for each core, each has rows of its own, and training is 1.1 to
1.4 times as fast (docs/performance.md has the figures). All other networks want one device that has
all cores.
"""

import os

from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxdna.parallel.mesh import AXES, divisors
from jaxdna.schema import CONVOLVE_IMAGES

LEAST_ROWS = 16  # of a batch, for a device that is one of several on the same CPU


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices_for_cores(config: ConfigDict, cores: int) -> int:
    """Returns how many devices a CPU should be.

    Args:
      config: a whole configuration.
      cores: that this process may use.

    Returns:
      A divisor of the batch that leaves each device at least `LEAST_ROWS` rows; 1 where another
      strategy, or another axis than `data`, is asked for.
    """
    others = [config.mesh[axis] for axis in AXES if axis != "data"]
    open_to_us = config.mesh.data == -1 and set(others) == {1} and config.strategy == "spmd"
    rows, rest = divmod(config.train.batch_size, config.train.accumulate)
    if not open_to_us or rest or config.model.name not in CONVOLVE_IMAGES:
        return 1
    return max((n for n in divisors(rows) if n <= cores and rows // n >= LEAST_ROWS), default=1)


def a_core_each(config: ConfigDict, mesh: Mesh) -> bool:
    """Returns whether the devices that train an image network share a CPU, and none its cores.

    Then gradients should travel together, once all of them are known: XLA's own sums stand in the
    middle of back-propagation, where devices that share cores wait for each other. More devices
    than cores are a study of layouts, and keep XLA's.

    Args:
      config: a whole configuration.
      mesh: the devices.
    """
    devices = list(mesh.devices.flat)
    one_process = len({device.process_index for device in devices}) == 1
    return (
        devices[0].platform == "cpu"
        and one_process
        and config.model.name in CONVOLVE_IMAGES
        and 1 < mesh.size == mesh.shape["data"] <= cores()
    )
