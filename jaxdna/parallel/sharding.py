"""What lies where: shardings of batches, parameters and optimizer state, as rules.

A rule is a pattern on a parameter's path (`layer/kernel`) and the axis of each of its last
dimensions; the first match wins. What is left unsharded is then split over `fsdp`.
"""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdna.errors import UserError
from jaxdna.parallel.mesh import BATCH_AXES, divisors

# The last layer takes in what the layers before it have split by filter or feature; every other
# layer splits its outputs.
MODEL_RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"^HEAD/kernel$", ("model", None)),
    (r"^HEAD/bias$", (None,)),
    (r"/kernel$", ("model",)),
    (r"/bias$", ("model",)),
)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def stacked_rows(mesh: Mesh) -> NamedSharding:
    """Arrays [steps, batch, ...]: the batch is split, every device holds its share of all steps."""
    return NamedSharding(mesh, PartitionSpec(None, BATCH_AXES))


def stacked_inputs(mesh: Mesh) -> NamedSharding:
    """Arrays [steps, batch, length, ...]: as `stacked_rows`, and the length split over `seq`."""
    return NamedSharding(mesh, PartitionSpec(None, BATCH_AXES, "seq"))


def parameter_spec(
    path: str,
    shape: tuple[int, ...],
    sizes: Mapping[str, int],
    head: str,
    whole: Collection[str] = (),
) -> PartitionSpec:
    """Decides how one parameter is split.

    Args:
      path: `layer/kernel` or the like.
      shape: of the whole array.
      sizes: size of each mesh axis.
      head: name of the network's last layer.
      whole: layers whose parameters are not split over `model`.

    Returns:
      One axis or None for each dimension.

    Raises:
      UserError: the model axis does not divide the dimension that it is to split.
    """
    spec: list[str | None] = [None] * len(shape)
    if sizes["model"] > 1 and path.split("/")[0] not in whole:
        for pattern, axes in MODEL_RULES:
            if re.search(pattern.replace("HEAD", re.escape(head)), path):
                spec[len(shape) - len(axes) :] = axes
                break
    for dimension, axis in zip(shape, spec, strict=True):
        if axis and dimension % sizes[axis]:
            raise UserError(
                f"--config.mesh.{axis}={sizes[axis]} does not divide the {dimension} filters or "
                f"features of {path}; legal: {', '.join(map(str, divisors(dimension)))}"
            )
    free = [
        i
        for i, (dimension, axis) in enumerate(zip(shape, spec, strict=True))
        if axis is None and dimension % sizes["fsdp"] == 0
    ]
    if sizes["fsdp"] > 1 and free:  # an array that nothing divides is whole everywhere
        spec[max(free, key=lambda i: shape[i])] = "fsdp"
    while spec and spec[-1] is None:
        spec.pop()
    return PartitionSpec(*spec)


def path_name(path: tuple[Any, ...]) -> str:
    """Returns a pytree path of dict keys as `layer/kernel`."""
    return "/".join(str(getattr(key, "key", key)) for key in path)


def parameter_shardings(mesh: Mesh, shapes: Any, head: str, whole: Collection[str] = ()) -> Any:
    """Returns the sharding of every parameter.

    Args:
      mesh: the devices.
      shapes: pytree of arrays or shapes, by layer and name.
      head: name of the network's last layer.
      whole: layers whose parameters are not split over `model`.

    Raises:
      UserError: an axis does not divide what it is to split.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(
            mesh, parameter_spec(path_name(path), leaf.shape, mesh.shape, head, whole)
        ),
        shapes,
    )


def gathered(params: Any, mesh: Mesh, head: str, whole: Collection[str] = ()) -> Any:
    """Returns parameters that are whole over `fsdp`, as operations take them; for use in `jit`.

    XLA may gather them later, or not at all, and then does not always compute what was asked for:
    with a batch over `data` and `fsdp` and a kernel over `fsdp` and `model`, the gradient of the
    layer's input is wrong, without a word (jaxlib 0.10.2, convolutions and matrix products).

    Args:
      params: pytree of arrays, by layer and name.
      mesh: the devices.
      head: name of the network's last layer.
      whole: layers whose parameters are not split over `model`.
    """
    sizes = dict(mesh.shape)
    if sizes["fsdp"] == 1:
        return params
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.lax.with_sharding_constraint(
            leaf,
            NamedSharding(
                mesh, parameter_spec(path_name(path), leaf.shape, sizes | {"fsdp": 1}, head, whole)
            ),
        ),
        params,
    )


class ParameterRow(NamedTuple):
    """How one parameter lies.

    Attributes:
      path: `layer/kernel`.
      shape: of the whole array.
      axes: the axis that splits each dimension, such as `- - model`, or `replicated`.
      local_shape: of the part on one device.
      bytes: size of the part on one device.
    """

    path: str
    shape: tuple[int, ...]
    axes: str
    local_shape: tuple[int, ...]
    bytes: int


def parameter_rows(params: Any) -> list[ParameterRow]:
    """Tells how every parameter of a pytree of arrays or shapes with shardings lies."""
    rows = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        spec = whole_spec(leaf)
        axes = " ".join(axis or "-" for axis in spec) if any(spec) else "replicated"
        local = leaf.sharding.shard_shape(leaf.shape)
        size = math.prod(local) * leaf.dtype.itemsize
        rows.append(ParameterRow(path_name(path), leaf.shape, axes, local, size))
    return rows


def whole_spec(leaf: Any) -> tuple[str | None, ...]:
    """Returns the axis (or None) of every dimension of an array or shape with a named sharding."""
    return tuple(leaf.sharding.spec) + (None,) * (leaf.ndim - len(leaf.sharding.spec))


class DeviceRow(NamedTuple):
    """What part of a batch one device holds.

    Attributes:
      device: its name.
      process: the process that drives it.
      coordinates: its place on the axes of the mesh that are larger than 1.
      rows: first and last row of the batch.
      positions: first and last position of each sequence (row of an image).
    """

    device: str
    process: int
    coordinates: str
    rows: str
    positions: str


def device_rows(mesh: Mesh, inputs: jax.ShapeDtypeStruct) -> list[DeviceRow]:
    """Tells what part of a batch every device holds, in the order of the mesh.

    Args:
      mesh: the devices.
      inputs: shape and sharding of stacked inputs [steps, batch, length, ...].
    """
    parts = inputs.sharding.devices_indices_map(inputs.shape)
    rows = []
    for place, device in zip(np.ndindex(mesh.devices.shape), mesh.devices.flat, strict=True):
        coordinates = " ".join(
            f"{axis}={i}"
            for axis, i in zip(mesh.axis_names, place, strict=True)
            if mesh.shape[axis] > 1
        )
        spans = [
            part.indices(size)
            for part, size in zip(parts[device][1:3], inputs.shape[1:3], strict=True)
        ]
        held = [f"{start}-{stop - 1}" for start, stop, _ in spans]
        rows.append(DeviceRow(str(device), device.process_index, coordinates or "-", *held))
    return rows
