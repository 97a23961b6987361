"""What a training step would do on devices: memory, operations, collectives and their overlap."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxdna.config import flat, validate
from jaxdna.data.dataset import Dataset
from jaxdna.errors import UserError
from jaxdna.parallel.mesh import factorisations, make_mesh
from jaxdna.strategies.prepare import program_of
from jaxdna.study.schedule import Collective, collectives, overlap_fraction
from jaxdna.study.traffic import bytes_moved
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


def plan(program: Program) -> dict[str, Any]:
    """Compiles the training step for the program's devices, which need not be there.

    Args:
      program: what `train` would run.

    Returns:
      The object of `plan --json`, without the topology's name: devices, mesh, flops_per_step (per
      device, as XLA counts them), bytes per device (arguments, temporaries, output, peak),
      bytes_moved_per_step (from and to a device's main memory, see `traffic`; of the loop over
      train.steps_per_call steps where the config gives more than one), the collectives of
      one step, overlapped (share of their bytes under way while a convolution or
      matrix product runs) and compile_seconds. All of it is read from the compiled program;
      nothing is timed.
    """
    start = time.perf_counter()
    # One step without the loop round it: the loop's body is the same step.
    lowered = program.train_call.lower(program.abstract_state, program.abstract_batches(1))
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    text = compiled.as_text()
    found = collectives(text)
    return {
        "devices": program.mesh.size,
        "mesh": dict(program.mesh.shape),
        "flops_per_step": compiled.cost_analysis()["flops"],
        "bytes": {
            "arguments": memory.argument_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "output": memory.output_size_in_bytes,
            # Donated arguments are the outputs' memory, so they count once.
            "peak": memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            + memory.temp_size_in_bytes
            - memory.alias_size_in_bytes,
        },
        "bytes_moved_per_step": round(_moved(program, text)),
        "collectives": [_row(collective) for collective in found],
        "overlapped": overlap_fraction(found, matmuls_only=True),
        "compile_seconds": round(seconds, 2),
    }


def _moved(program: Program, one_step: str) -> float:
    """From step to step a loop may keep on the chip what a program of one step reads anew."""
    steps = program.config.train.steps_per_call
    if steps > 1:
        loop: Any = program.compiled(steps)
        return bytes_moved(loop.as_text(), steps)
    return bytes_moved(one_step)


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


def every_mesh(
    config: ConfigDict, dataset: Dataset, devices: Sequence[jax.Device]
) -> Iterator[Program]:
    """Yields the program of every mesh of the devices that the model and the batch allow."""
    for sizes in factorisations(len(devices), PLAN_AXES):
        try:
            yield program_on(config, dataset, devices, {f"mesh.{a}": n for a, n in sizes.items()})
        except UserError:
            continue  # this mesh does not divide something


def program_on(
    config: ConfigDict,
    dataset: Dataset,
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
    return program_of(changed.strategy).of(changed, mesh, dataset)
