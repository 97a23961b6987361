"""Names of devices that need not be there, ``v5e:2x4`` or ``h100:8``, become devices."""

import difflib
from types import ModuleType
from typing import Any

from jaxdna.errors import UserError
from jaxdna.study import gpus, tpus


def check(name: str, slices: int = 1) -> None:
    """Finds out whether `name` is known; loads no compiler.

    Args:
      name: a TPU slice such as ``v5e:2x4`` or ``v5p:4x4x4`` (generation and shape in chips), or
        GPUs such as ``h100:8`` or, on two hosts, ``h100:2x8``.
      slices: how many such TPU slices, joined by the data-centre network.

    Raises:
      UserError: there is no such thing.
    """
    maker = _maker(name)
    maker.parse(name)
    if slices < 1:
        raise UserError(f"--slices={slices} must be at least 1")
    if slices > 1 and maker is gpus:
        raise UserError(
            f"--slices={slices} is for TPUs; several hosts of GPUs: --topology={name.split(':')[0]}"
            f":{slices}x{gpus.parse(name)[2]}"
        )


def topology(name: str, slices: int = 1) -> Any:
    """Describes devices for compiling ahead of time.

    Args:
      name: as in `check`.
      slices: as in `check`.

    Returns:
      A ``jax.experimental.topologies.TopologyDescription``; its ``devices`` go into a mesh.

    Raises:
      UserError: as `check`, or the compiler for these devices is not installed.
    """
    check(name, slices)
    return gpus.topology(name) if _maker(name) is gpus else tpus.topology(name, slices)


def device_count(name: str, slices: int = 1) -> int:
    """The length of ``topology(name, slices).devices``, without loading a compiler."""
    return _maker(name).device_count(name) * slices


def _maker(name: str) -> ModuleType:
    """The module that knows the kind of device, `tpus` or `gpus`."""
    head = name.partition(":")[0]
    if head in gpus.GPUS:
        return gpus
    if head in tpus.GENERATIONS:
        return tpus
    near = difflib.get_close_matches(head, [*tpus.GENERATIONS, *gpus.GPUS], 1, cutoff=0.3)
    hint = f" (did you mean {near[0]}?)" if near else ""
    slices = [f"{g}:{'x'.join(map(str, known.shapes[1]))}" for g, known in tpus.GENERATIONS.items()]
    raise UserError(
        f"--topology={name} names an unknown device{hint}; legal: TPU slices such as "
        f"{', '.join(slices)} and larger, and GPUs such as "
        f"{', '.join(f'{head}:{gpu.per_host[-1]}' for head, gpu in gpus.GPUS.items())}"
    )
