"""The device mesh: the one place that counts devices. Everybody else reads `mesh.shape`."""

import math
from collections.abc import Mapping, Sequence

import jax
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict

from jaxdna.errors import UserError

AXES = ("data",)
BATCH_AXES = ("data",)  # a batch is split over these


def resolve_axes(sizes: Mapping[str, int], devices: int) -> dict[str, int]:
    """Replaces the -1 by what is left of the devices.

    Args:
      sizes: size of each axis; at most one of them is -1.
      devices: how many devices there are; all of them are used.

    Returns:
      The size of each axis in the order of `AXES`; their product is `devices`.

    Raises:
      UserError: there are two -1s, or the sizes do not multiply to the devices.
    """
    open_axes = [axis for axis in AXES if sizes[axis] == -1]
    if len(open_axes) > 1:
        flags = " and ".join(f"--config.mesh.{axis}=-1" for axis in open_axes)
        raise UserError(f"{flags}: only one axis can take the remaining devices")
    fixed = math.prod(sizes[axis] for axis in AXES if sizes[axis] != -1)
    flags = " ".join(f"--config.mesh.{axis}={sizes[axis]}" for axis in AXES if sizes[axis] != 1)
    if devices % fixed or (not open_axes and fixed != devices):
        divisors = [n for n in range(1, devices + 1) if devices % n == 0]
        raise UserError(
            f"{flags} needs a multiple of {fixed} devices, and there are {devices}; "
            f"legal sizes divide {devices}: {', '.join(map(str, divisors))}"
        )
    return {axis: devices // fixed if sizes[axis] == -1 else sizes[axis] for axis in AXES}


def make_mesh(config: ConfigDict, devices: Sequence[jax.Device]) -> Mesh:
    """Builds the mesh of `config.mesh` over all `devices`.

    Args:
      config: a whole configuration.
      devices: every device of every process.

    Raises:
      UserError: the axes do not fit the devices, or the batch does not divide.
    """
    sizes = resolve_axes(config.mesh, len(devices))
    check_batch(config.train.batch_size, sizes)
    # Auto axes: under Explicit ones a convolution with sharded output channels is an error.
    return jax.make_mesh(
        tuple(sizes.values()),
        tuple(sizes),
        axis_types=(AxisType.Auto,) * len(sizes),
        devices=devices,
    )


def batch_shards(sizes: Mapping[str, int]) -> int:
    """Number of pieces that a batch is cut into."""
    return math.prod(sizes[axis] for axis in BATCH_AXES)


def check_batch(batch_size: int, sizes: Mapping[str, int]) -> None:
    """Raises UserError where the global batch does not divide by the batch axes."""
    shards = batch_shards(sizes)
    if batch_size % shards:
        below, above = batch_size // shards * shards, -(-batch_size // shards) * shards
        legal = f"{below} or {above}" if below else f"{above}"
        raise UserError(
            f"--config.train.batch_size={batch_size} does not divide by "
            f"{' x '.join(BATCH_AXES)} = {shards} shards; nearest legal: {legal}"
        )
