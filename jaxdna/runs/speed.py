"""How fast a run trains, in examples and in operations, and what share of the peak that is."""

from collections.abc import Callable
from typing import Any

from jaxdna.parallel.machines import MACHINES
from jaxdna.training.flops import training_flops
from jaxdna.training.program import Program

NO_SPEED = {"samples_per_second": None, "flops_per_second": None, "mfu": None}


def speed_of(program: Program) -> Callable[[int, float], dict[str, Any]]:
    """Returns (examples, seconds) -> the keys of `NO_SPEED`, for training with this program.

    `flops_per_second` is that of all devices, in the operations that the network needs (see
    `training_flops`); `mfu` is their share of the devices' peak at the run's precision, and None
    where no data sheet is known.
    """
    needed = training_flops(program.config, program.task.outputs, program.example_shape)
    machine = MACHINES.get(program.mesh.devices.flat[0].device_kind)
    peak = machine and getattr(machine, program.config.train.precision) * program.mesh.size

    def speed(examples: int, seconds: float) -> dict[str, Any]:
        if not examples or not seconds:
            return dict(NO_SPEED)
        flops = needed * examples / seconds
        return {
            "samples_per_second": round(examples / seconds),
            "flops_per_second": round(flops),
            "mfu": round(flops / peak, 4) if peak else None,
        }

    return speed
