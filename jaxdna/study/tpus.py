"""TPU slices that need not be there: a name such as ``v5e:2x4`` becomes devices to compile for.

The compiler for all generations is in the package ``libtpu``, which works on a machine without a
TPU. Left to itself, though, it looks for one: it asks the cloud's metadata server, complains on
stderr, takes a lock that one process per machine can hold, and ends the process on a malformed
shape. So the name is checked here first, and libtpu is loaded with the settings that keep it quiet.
"""

import contextlib
import dataclasses
import math
import os
import re
from collections.abc import Iterator
from typing import Any

from jaxdna.errors import UserError
from jaxdna.parallel import plugins


@dataclasses.dataclass(frozen=True)
class Generation:
    """A TPU generation as the cloud offers it.

    Attributes:
      shapes: the usual slices, smallest first, in chips.
      max_chips: the size of a whole pod.
      devices_per_chip: how many JAX devices a chip is; two where the cores are programmed apart.
      chip_config: libtpu's name for how the cores of a chip work together.
    """

    shapes: tuple[tuple[int, ...], ...]
    max_chips: int
    devices_per_chip: int = 1
    chip_config: str = "default"


_FLAT = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_SOLID = (
    (2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), (4, 4, 4), (4, 4, 8), (4, 8, 8), (8, 8, 8),
    (8, 8, 16), (8, 16, 16), (16, 16, 16),
)  # fmt: skip

# Sizes: cloud.google.com/tpu/docs, the page of each generation. A v4 or v5p chip joins its two
# cores into one device ("megacore"); libtpu does so for v4 only when told.
GENERATIONS = {
    "v4": Generation(_SOLID, max_chips=4096, chip_config="megacore"),
    "v5e": Generation(_FLAT, max_chips=256),
    "v5p": Generation((*_SOLID, (16, 16, 24)), max_chips=8960, chip_config="megacore"),
    "v6e": Generation(_FLAT, max_chips=256),
    "tpu7x": Generation(_SOLID, max_chips=9216, devices_per_chip=2),
}

# Without these libtpu waits for the metadata server, prints errors about a host that it takes to be
# a TPU's, writes log files, and refuses to load while another process has it loaded. They matter
# while it loads, and must not outlast that: a child process may have a real TPU.
_QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
}


def topology(name: str, slices: int = 1) -> Any:
    """Describes a TPU slice, or several of them, for compiling ahead of time.

    JAX's own backend stays as it is, or becomes the CPU if none has been chosen: loading libtpu
    must not make JAX look for a TPU.

    Args:
      name: generation and shape in chips, e.g. ``v5e:2x4`` or ``v5p:4x4x4``.
      slices: how many such slices, joined by the data-centre network.

    Returns:
      A ``jax.experimental.topologies.TopologyDescription``; its ``devices`` go into a mesh.

    Raises:
      UserError: the name is not a known generation with a shape that it is offered in, or libtpu
        is not installed.
    """
    generation, shape = parse(name)
    if not plugins.libtpu():
        raise UserError(
            f"--topology={name} needs libtpu, which is not installed: "
            "pip install 'jaxdna[plan]', or leave the flag out to compile for the devices here"
        )
    import jax
    from jax.experimental import topologies

    if not jax.config.values["jax_platforms"]:
        jax.config.update("jax_platforms", "cpu")
    solid = (*shape, 1)[:3]
    with _environment(_QUIET), plugins.held_back():
        return topologies.get_topology_desc(
            f"{generation}:{'x'.join(map(str, shape))}",
            platform="tpu",
            num_slices=slices,
            chip_config_name=GENERATIONS[generation].chip_config,
            # A host has a block of 2x2 chips, or all of a smaller slice.
            chips_per_host_bounds=(min(solid[0], 2), min(solid[1], 2), 1),
        )


def parse(name: str) -> tuple[str, tuple[int, ...]]:
    """Takes the name of a slice apart.

    Args:
      name: as in `topology`, of a generation in `GENERATIONS`.

    Returns:
      The generation and the shape in chips.

    Raises:
      UserError: the generation is not offered in this shape.
    """
    head, _, tail = name.partition(":")
    known = GENERATIONS[head]
    shape = tuple(map(int, tail.split("x"))) if re.fullmatch(r"\d+(x\d+)*", tail) else ()
    # Larger three-dimensional slices are made of cubes of 4x4x4 chips, in any arrangement.
    cubes = len(known.shapes[0]) == len(shape) == 3 and all(n > 0 and n % 4 == 0 for n in shape)
    if shape in known.shapes or (cubes and math.prod(shape) <= known.max_chips):
        return head, shape
    chips = math.prod(shape)
    near_shapes = sorted(known.shapes, key=lambda s: abs(math.log(math.prod(s) / max(chips, 1))))
    raise UserError(
        f"--topology={name} is not a shape of {head}, whose slices are "
        f"{', '.join(map(_text, known.shapes))} chips"
        f"{' or other multiples of 4x4x4' if len(known.shapes[0]) == 3 else ''}; "
        f"the nearest is {head}:{_text(near_shapes[0])}"
    )


def device_count(name: str) -> int:
    """The number of JAX devices of a slice, without loading libtpu."""
    generation, shape = parse(name)
    return math.prod(shape) * GENERATIONS[generation].devices_per_chip


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
