"""The device mesh: the one place that counts devices. Everybody else reads `mesh.shape`."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict
from numpy.typing import NDArray

from jaxdna.errors import UserError

# From the slowest links to the fastest: neighbours on the last axis talk most, members never.
AXES = ("member", "data", "fsdp", "stage", "seq", "model")
BATCH_AXES = ("data", "fsdp")  # a batch is split over these
DCN_AXES = ("data", "fsdp", "stage")  # these may cross hosts or slices


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
    if devices % fixed == 0 and (open_axes or fixed == devices):
        return {axis: devices // fixed if sizes[axis] == -1 else sizes[axis] for axis in AXES}
    flags = " ".join(f"--config.mesh.{axis}={sizes[axis]}" for axis in AXES if sizes[axis] != 1)
    if open_axes:
        wanted = f"the other axes take {fixed}, which must divide {devices}"
    else:
        wanted = f"the sizes multiply to {fixed}, and must multiply to {devices}"
    raise UserError(
        f"{flags or '--config.mesh.data=1'} does not fit {devices} devices: {wanted} "
        f"(legal sizes: {', '.join(map(str, divisors(devices)))}; one axis may be -1)"
    )


def divisors(number: int) -> list[int]:
    """All divisors of a positive number, ascending."""
    return [n for n in range(1, number + 1) if number % n == 0]


def factorisations(devices: int, axes: Sequence[str]) -> Iterator[dict[str, int]]:
    """Every way to write `devices` as a product of one size per axis of `axes`."""
    for sizes in itertools.product(divisors(devices), repeat=len(axes)):
        if math.prod(sizes) == devices:
            yield dict.fromkeys(AXES, 1) | dict(zip(axes, sizes, strict=True))


def _check_equal(devices: Sequence[jax.Device]) -> None:
    """Refuses what could train and not save: jax's broadcast wants as many devices everywhere."""
    counts = Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        found = ", ".join(f"process {i}: {counts[i]}" for i in sorted(counts))
        raise UserError(
            f"the processes have different numbers of devices ({found}); give each the same "
            "number (GPUs, TPU chips, or --config.runtime.cpu_devices)"
        )


def make_mesh(config: ConfigDict, devices: Sequence[jax.Device]) -> Mesh:
    """Builds the mesh of `config.mesh` over all `devices`.

    Args:
      config: a whole configuration.
      devices: every device of every process.

    Raises:
      UserError: the axes do not fit the devices or the hosts, the batch does not divide, or the
        processes have different numbers of devices.
    """
    _check_equal(devices)
    sizes = resolve_axes(config.mesh, len(devices))
    check_batch(config.train.batch_size, sizes, config.train.accumulate)
    across = resolve_across(config.mesh.dcn, sizes, devices)
    # Auto axes: under Explicit ones a convolution with sharded output channels is an error.
    return Mesh(_grid(devices, sizes, across), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def flat_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """Returns a mesh with every device on `data`, for work that needs no other split."""
    grid = np.array(devices, dtype=object).reshape(-1, *[1] * (len(AXES) - 1))
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def granule(device: jax.Device) -> tuple[str, int]:
    """The part of the machine that a device shares fast links with: its TPU slice, or its host."""
    slice_index = getattr(device, "slice_index", None)
    if device.platform == "tpu":  # devices of a single slice may not say its number
        return "slice", slice_index or 0
    # Of GPUs that are only compiled for, every host is said to be in slice 0.
    described = device.platform == "gpu" and "CompileOnly" in type(device.client).__name__
    if slice_index is None or described:
        return "process", device.process_index
    return "slice", slice_index


def resolve_across(
    dcn: Mapping[str, int], sizes: Mapping[str, int], devices: Sequence[jax.Device]
) -> dict[str, int]:
    """Decides which part of each axis crosses slices or hosts.

    Where no flag says so it is as much of `data` as can be, then of `fsdp`, then of `stage`. Hosts
    of GPUs or CPUs that these do not divide are left alone: any of their devices reaches any other.

    Args:
      dcn: `config.mesh.dcn`.
      sizes: size of each axis.
      devices: all devices.

    Returns:
      The size of that part for each axis in the order of `AXES`; 1 for those that stay inside.

    Raises:
      UserError: the flags do not fit, or nothing that may cross slices can be divided over them.
    """
    check_across(dcn, sizes)
    across = {axis: dcn.get(axis, 1) for axis in AXES}
    parts, crossing = len(set(map(granule, devices))), math.prod(across.values())
    if parts == 1 or crossing == parts:
        return across
    where = f"the devices lie in {parts} {_granules(devices)}"
    if crossing > 1:
        flags = " ".join(f"--config.mesh.dcn.{a}={n}" for a, n in across.items() if n > 1)
        raise UserError(
            f"{flags} {'multiplies' if flags.count('=') == 1 else 'multiply'} to {crossing}, and "
            f"{where}; legal: mesh.dcn.* that multiply to {parts}, or none of them"
        )
    rest = parts
    for axis in DCN_AXES:
        across[axis] = math.gcd(sizes[axis], rest)
        rest //= across[axis]
    if rest == 1:
        return across
    if devices[0].platform != "tpu":
        return dict.fromkeys(AXES, 1)
    found = " x ".join(f"mesh.{axis}={sizes[axis]}" for axis in DCN_AXES)
    raise UserError(
        f"{where}, and only {', '.join(DCN_AXES[:-1])} and {DCN_AXES[-1]} may cross them: "
        f"{found} is not divisible by {parts}; legal: e.g. --config.mesh.data={parts} and "
        f"{len(devices) // parts} for the other axes together"
    )


def describe_mesh(config: ConfigDict, mesh: Mesh) -> str:
    """Returns one line such as `data=16  fsdp=1  … (over 2 slices: dcn.data=2)`."""
    line = "  ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    devices = list(mesh.devices.flat)
    count = len(set(map(granule, devices)))
    if count == 1:
        return line
    across = resolve_across(config.mesh.dcn, mesh.shape, devices)
    parts = " ".join(f"dcn.{axis}={n}" for axis, n in across.items() if n > 1)
    return f"{line}  (over {count} {_granules(devices)}: {parts or 'in their order'})"


def _granules(devices: Sequence[jax.Device]) -> str:
    return "slices" if devices[0].platform == "tpu" else "hosts"


def _grid(
    devices: Sequence[jax.Device], sizes: Mapping[str, int], across: Mapping[str, int]
) -> NDArray[np.object_]:
    """Orders devices so that only the `across` part of an axis leaves a slice or host."""
    whole, outer = [list(values.values()) for values in (sizes, across)]
    inner = [n // o for n, o in zip(whole, outer, strict=True)]
    if math.prod(outer) == 1:
        return mesh_utils.create_device_mesh(whole, devices, allow_split_physical_axes=True)
    if devices[0].platform == "tpu" and len(set(map(granule, devices))) > 1:
        return mesh_utils.create_hybrid_device_mesh(
            inner, outer, devices, allow_split_physical_axes=True
        )
    # Hosts of GPUs or CPUs; in a single process, equal runs of its devices stand for hosts.
    ordered = sorted(devices, key=lambda device: (granule(device), device.id))
    apart = np.array(ordered).reshape(*outer, *inner)
    pairs = [axis for i in range(len(AXES)) for axis in (i, len(AXES) + i)]
    return apart.transpose(pairs).reshape(whole)


def batch_shards(sizes: Mapping[str, int]) -> int:
    """Number of pieces that a batch is cut into."""
    return math.prod(sizes[axis] for axis in BATCH_AXES)


def check_batch(batch_size: int, sizes: Mapping[str, int], accumulate: int = 1) -> None:
    """Raises UserError where the global batch is not divisible by shards and microbatches."""
    parts = batch_shards(sizes) * accumulate
    if batch_size % parts:
        microbatches = f" x train.accumulate={accumulate}" if accumulate > 1 else ""
        raise UserError(
            f"--config.train.batch_size={batch_size} is not divisible by mesh "
            f"{' x '.join(BATCH_AXES)} = {batch_shards(sizes)}{microbatches}; "
            f"nearest legal: {nearest_multiples(batch_size, parts)}"
        )


def check_across(across: Mapping[str, int], sizes: Mapping[str, int]) -> None:
    """Raises UserError where the part of an axis that crosses hosts does not divide the axis."""
    for axis in DCN_AXES:
        if sizes[axis] % across[axis]:
            raise UserError(
                f"--config.mesh.dcn.{axis}={across[axis]} does not divide mesh.{axis}="
                f"{sizes[axis]}; legal: {', '.join(map(str, divisors(sizes[axis])))}"
            )


def nearest_multiples(number: int, factor: int) -> str:
    """The multiples of `factor` on both sides of `number`, as words."""
    below, above = number // factor * factor, -(-number // factor) * factor
    return f"{below} or {above}" if below else f"{above}"
