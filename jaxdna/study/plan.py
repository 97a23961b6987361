"""What a training step would do on devices: memory, operations, collectives and their overlap."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxdna.config import flat, validate
from jaxdna.data.dataset import Spec
from jaxdna.errors import UserError
from jaxdna.parallel.machines import MACHINES, Machine
from jaxdna.parallel.mesh import factorisations, granule, make_mesh
from jaxdna.strategies.prepare import program_of
from jaxdna.study.kernels import Kernel, bytes_moved, kernels
from jaxdna.study.roofline import roofline
from jaxdna.study.schedule import Collective, collectives, overlap_fraction
from jaxdna.training.program import Program

PLAN_AXES = ("data", "fsdp", "seq", "model")

# Strategies whose step is no single compiled program, with what it is instead.
_SEVERAL_PROGRAMS = {
    "pipeline": "has programs for each stage",
    "parameter_server": "is shared by processes with programs of their own",
}


def check_one_program(strategy: str) -> None:
    """Raises UserError where the step of `strategy` cannot be compiled as one program."""
    if strategy in _SEVERAL_PROGRAMS:
        raise UserError(
            f"--config.strategy={strategy} cannot be planned, since its step "
            f"{_SEVERAL_PROGRAMS[strategy]}; legal: spmd"
        )


def plan(
    program: Program, price_per_hour: float | None = None, machine: Machine | None = None
) -> dict[str, Any]:
    """Compiles the training step for the program's devices, which need not be there.

    Args:
      program: what `train` would run.
      price_per_hour: of one device.
      machine: the rates of one device; those of its maker's data sheet if None.

    Returns:
      The object of `plan --json`, without the topology's name: devices, mesh, flops_per_step (per
      device, as XLA counts them, or as the program's text shows them where it does not), bytes per
      device (arguments, temporaries, output, peak), bytes_moved_per_step (from and to a device's
      main memory, see `kernels`; of the loop over train.steps_per_call steps where the config
      gives more than one), kernels (of one step), libraries (what they call, with how often), the
      collectives of one step, overlapped (share of their bytes under way while a convolution or
      matrix product runs), roofline (see `roofline`; None for devices whose rates are not known)
      and compile_seconds. All of it is read from the compiled program; nothing is timed.
    """
    start = time.perf_counter()
    # One step without the loop round it: the loop's body is the same step.
    lowered = program.train_call.lower(program.abstract_state, program.abstract_batches(1))
    compiled = lowered.compile()
    machine = machine or MACHINES.get(program.mesh.devices.flat[0].device_kind)
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    text = compiled.as_text()
    found, launched = collectives(text), kernels(text, rounds=program.rounds)
    counted = compiled.cost_analysis()  # XLA has none for GPUs that are not there
    told = sum(kernel.flops * kernel.launches for kernel in launched)
    flops = counted["flops"] * program.rounds if counted else told
    # Where a call hides what it computes, XLA knows more. Else the text is more exact: XLA counts
    # every loop once, one that seldom runs as well as one of many rounds.
    opaque = any(kernel.library and not kernel.flops for kernel in launched)
    bytes_of = {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "output": memory.output_size_in_bytes,
        # Donated arguments are the outputs' memory, so they count once.
        "peak": memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes,
    }
    return {
        "devices": program.mesh.size,
        "mesh": dict(program.mesh.shape),
        "flops_per_step": flops,
        "bytes": bytes_of,
        "bytes_moved_per_step": round(_moved(program, text)),
        "kernels": sum(kernel.launches for kernel in launched),
        "libraries": dict(Counter(kernel.library for kernel in launched if kernel.library)),
        "collectives": [_row(collective) for collective in found],
        "overlapped": overlap_fraction(found, matmuls_only=True),
        "roofline": machine
        and _roofline(
            machine,
            program,
            launched,
            found,
            price_per_hour,
            footprint=bytes_of["peak"],
            flops=flops if opaque else told,
        ),
        "compile_seconds": round(seconds, 2),
    }


def _roofline(
    machine: Machine,
    program: Program,
    launched: list[Kernel],
    found: list[Collective],
    price_per_hour: float | None,
    **step: Any,
) -> dict[str, Any]:
    """The bound of a step, and what it means for a run of the config's epochs."""
    devices = list(program.mesh.devices.flat)
    train = program.config.train
    bound = roofline(
        machine,
        launched,
        found,
        [granule(device) for device in devices],
        precision=train.precision,
        **step,
    )
    seconds = bound["step_seconds_at_least"]
    run = seconds * program.steps_per_epoch * train.epochs
    return bound | {
        "examples_per_second_at_most": train.batch_size / seconds,
        "run_seconds": run,
        "cost": price_per_hour and price_per_hour * len(devices) * run / 3600,
    }


def _moved(program: Program, one_step: str) -> float:
    """From step to step a loop may keep on the chip what a program of one step reads anew."""
    steps = program.config.train.steps_per_call
    if steps > 1:
        loop: Any = program.compiled(steps)
        return bytes_moved(loop.as_text(), steps, program.rounds)
    return bytes_moved(one_step, rounds=program.rounds)


def _row(collective: Collective) -> dict[str, Any]:
    return {
        "kind": collective.kind,
        "bytes": collective.bytes * collective.executions,
        "async": collective.asynchronous,
        "compute_ops_overlapped": collective.compute_ops_overlapped,
        "matmul_ops_overlapped": len(collective.matmul_ops),
        "between_slices": collective.between_slices,
    }


def exposed_bytes(planned: dict[str, Any]) -> int:
    """Bytes of one step's collectives that no convolution or matrix product hides."""
    return sum(row["bytes"] for row in planned["collectives"] if not row["matmul_ops_overlapped"])


def every_mesh(config: ConfigDict, spec: Spec, devices: Sequence[jax.Device]) -> Iterator[Program]:
    """Yields the program of every mesh of the devices that the model and the batch allow."""
    for sizes in factorisations(len(devices), PLAN_AXES):
        try:
            yield program_on(config, spec, devices, {f"mesh.{a}": n for a, n in sizes.items()})
        except UserError:
            continue  # this mesh does not divide something


def program_on(
    config: ConfigDict,
    spec: Spec,
    devices: Sequence[jax.Device],
    changes: dict[str, Any] | None = None,
) -> Program:
    """Returns the program of a config, changed by dotted keys, on given devices.

    Raises:
      UserError: the mesh does not fit, or there is no one program.
    """
    check_one_program(config.strategy)
    changed = validate(flat(config) | (changes or {}))
    mesh = make_mesh(changed, devices)
    return program_of(changed).of(changed, mesh, spec)
