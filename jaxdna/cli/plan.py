"""Compiles the training step for TPUs or GPUs that need not be there, and says what it would do.

  jaxdna plan --config=tal1 --topology=v5e:2x4
  jaxdna plan --config=cifar10 --topology=h100:8 --price-per-hour=3

It says "the schedule overlaps", never "faster": nothing is timed. Only strategy=spmd has
such a step as one program; the others are refused.
"""

import argparse
from typing import Any

from jaxdna.cli.common import add_config, add_price
from jaxdna.config import load_config
from jaxdna.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's flags."""
    add_config(parser)
    parser.add_argument(
        "--topology",
        metavar="NAME",
        help="e.g. v5e:2x4, v5p:4x4x4, h100:8, or h100:2x8 for two hosts (default: the devices of "
        "this machine)",
    )
    parser.add_argument(
        "--slices", type=int, default=1, help="how many such TPU slices (default: 1)"
    )
    parser.add_argument("--all", action="store_true", help="every legal mesh, ranked")
    add_price(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Plans; returns what is compiled."""
    config = load_config(arguments.config, arguments.overrides)
    if arguments.topology is not None:
        from jaxdna.study.topology import check

        # A wrong name is answered before anything is loaded.
        check(arguments.topology, arguments.slices)
    elif arguments.slices != 1:
        raise UserError(f"--slices={arguments.slices} needs --topology=NAME")

    from jaxdna.console import make_console, results_console
    from jaxdna.data.registry import spec_of
    from jaxdna.parallel.mesh import describe_mesh
    from jaxdna.study.plan import (
        check_one_program,
        every_mesh,
        exposed_bytes,
        plan,
        program_on,
    )

    check_one_program(config.strategy)
    notes = make_console()
    console = results_console(arguments.json)
    devices, name = _devices(arguments, config, notes)
    spec = spec_of(config)
    if not arguments.all:
        program = program_on(config, spec, devices)
        notes.print(f"mesh     {describe_mesh(program.config, program.mesh)}")
        notes.print(f"compiling for {len(devices)} x {devices[0].device_kind} ...")
        planned = {"topology": name, **plan(program, arguments.price_per_hour)}
        _print_one(planned, console)
        if planned["roofline"]:
            _print_roofline(planned["roofline"], console)
        return planned
    plans = []
    for program in every_mesh(config, spec, devices):
        notes.print(f"compiling {_mesh(dict(program.mesh.shape))} ...")
        plans.append({"topology": name, **plan(program, arguments.price_per_hour)})
    plans.sort(key=lambda planned: (exposed_bytes(planned), planned["bytes"]["peak"]))
    _print_all(plans, console)
    return {"topology": name, "plans": plans}


def _devices(arguments: argparse.Namespace, config: Any, notes: Any) -> tuple[list, str]:
    if arguments.topology is None:
        from jaxdna.parallel.runtime import describe_devices, start_backend

        devices = start_backend(config, notes)
        return devices, describe_devices(devices)
    import jax

    from jaxdna.study.topology import topology

    jax.config.update("jax_platforms", "cpu")
    slices = f" x {arguments.slices}" if arguments.slices > 1 else ""
    described = topology(arguments.topology, arguments.slices)
    return list(described.devices), arguments.topology + slices


def _mesh(mesh: dict[str, int]) -> str:
    return " ".join(f"{axis}={size}" for axis, size in mesh.items() if size > 1) or "one device"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def _print_one(planned: dict[str, Any], console: Any) -> None:
    from jaxdna.console import table

    rows = [
        ["devices", f"{planned['devices']} ({planned['topology']})"],
        ["mesh", _mesh(planned["mesh"])],
        ["operations per step and device", f"{planned['flops_per_step']:.3e}"],
        *([f"memory: {part}", _size(size)] for part, size in planned["bytes"].items()),
        ["collective bytes overlapped", f"{planned['overlapped']:.0%}"],
        ["kernels per step", planned["kernels"]],
        *([f"calls of {name}", count] for name, count in planned["libraries"].items()),
        ["compile time", f"{planned['compile_seconds']} s"],
    ]
    console.print(table("Training step, per device, as compiled (not timed)", ("", ""), rows))
    if planned["collectives"]:
        columns = ("collective", "size", "asynchronous", "kernels meanwhile", "of these matmuls")
        console.print(
            table(
                "Collectives of one step, in order of issue",
                columns,
                [
                    [
                        row["kind"] + " between slices" * row["between_slices"],
                        _size(row["bytes"]),
                        "yes" if row["async"] else "no",
                        row["compute_ops_overlapped"],
                        row["matmul_ops_overlapped"],
                    ]
                    for row in planned["collectives"]
                ],
            )
        )


def _print_roofline(bound: dict[str, Any], console: Any) -> None:
    from jaxdna.console import table

    rows = [
        ["a step takes at least", _seconds(bound["step_seconds_at_least"])],
        *([f"of these: {part}", _seconds(taken)] for part, taken in bound["seconds"].items()),
        ["examples per second, at most", f"{bound['examples_per_second_at_most']:,.0f}"],
        ["training of all epochs, at least", _seconds(bound["run_seconds"])],
        *([["cost of it, at least", f"{bound['cost']:.4g}"]] if bound["cost"] else []),
    ]
    title = f"Roofline: bound by {bound['bound']}"
    console.print(table(title, ("", ""), rows))


def _seconds(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def _print_all(plans: list[dict[str, Any]], console: Any) -> None:
    from jaxdna.console import table
    from jaxdna.study.plan import exposed_bytes

    columns = ("mesh", "exposed", "all collectives", "overlapped", "peak memory", "operations")
    console.print(
        table(
            "Every mesh, fewest exposed collective bytes per step first (compiled, not timed)",
            columns,
            [
                [
                    _mesh(planned["mesh"]),
                    _size(exposed_bytes(planned)),
                    _size(sum(row["bytes"] for row in planned["collectives"])),
                    f"{planned['overlapped']:.0%}",
                    _size(planned["bytes"]["peak"]),
                    f"{planned['flops_per_step']:.2e}",
                ]
                for planned in plans
            ],
        )
    )
