"""Trains some SGD steps on every legal layout of the visible devices and compares with one device.

  jaxdna layouts --config=tal1 --config.runtime.cpu_devices=8
  jaxdna layouts --config=tal1 --config.mesh.model=2 --show

Exits with 1 where a layout differs by more than rounding explains.

The mesh, the strategy and the gradient sum of the config are set aside: the sweep chooses them, and
says what it changes. With --show it trains nothing, and draws which device holds what under the
config's own mesh (strategy=spmd only).
"""

import argparse
from typing import Any

from jaxdna.cli.common import add_config
from jaxdna.config import load_config
from jaxdna.errors import EXIT_FAULT, EXIT_OK, UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's flags."""
    add_config(parser)
    parser.add_argument(
        "--steps", type=int, help="SGD steps to train, at most an epoch's (default: up to 20)"
    )
    parser.add_argument("--show", action="store_true", help="draw which device holds what")


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Compares or shows; returns the rows, and the exit code."""
    config = load_config(arguments.config, arguments.overrides)

    from jaxdna.console import make_console, results_console
    from jaxdna.strategies.prepare import prepare

    notes = make_console()
    console = results_console(arguments.json)
    if arguments.show:
        if config.strategy != "spmd":
            raise UserError(
                f"--config.strategy={config.strategy} cannot be drawn by --show; legal: spmd "
                "(`jaxdna train` prints which device holds what before it trains)"
            )
        return _show(prepare(config, notes), console), EXIT_OK
    return _compare(config, arguments.steps, notes, console)


def _compare(
    config: Any, steps: int | None, notes: Any, console: Any
) -> tuple[dict[str, Any], int]:
    from jaxdna.config import differences
    from jaxdna.console import loud, table
    from jaxdna.data.batches import steps_per_epoch
    from jaxdna.data.registry import load_dataset
    from jaxdna.parallel.runtime import describe_devices, start_backend
    from jaxdna.study.layouts import comparable, compare_layouts, mesh_words

    devices = start_backend(config, notes)
    notes.print(f"devices  {describe_devices(devices)}")
    asked, config = config, comparable(config)
    dataset = load_dataset(config)
    notes.print(f"data     {dataset.describe}")
    for changes in differences(asked, config):
        for change in changes:
            notes.print(f"note     for the comparison, {change}")
    most = steps_per_epoch(len(dataset.splits["train"]), config.train.batch_size)
    steps = min(20, most) if steps is None else steps
    if not 1 <= steps <= most:
        raise UserError(
            f"--steps={steps} is not legal: it must be 1 to {most}, the steps of one epoch"
        )
    rows = []
    for row in compare_layouts(config, dataset, devices, steps):
        rows.append(row)
        notes.print(f"{row.name}: parameters within {_number(row[2])}, {_verdict(row)}")
    console.print(
        table(
            f"Largest difference from one device after {steps} SGD steps",
            ("mesh", "strategy", "parameters", "loss", "relative", "training"),
            [
                [mesh_words(row.mesh), row.strategy, *map(_number, row[2:5]), _verdict(row)]
                for row in rows
            ],
        )
    )
    different = [row for row in rows if not row.same]
    found = {"rows": [row._asdict() for row in rows], "same": not different}
    if different:
        loud(notes)(
            f"{len(different)} of {len(rows)} layouts differ from one device by more than "
            f"rounding explains; the first is {mesh_words(different[0].mesh)}"
        )
    return found, EXIT_FAULT if different else EXIT_OK


def _verdict(row: Any) -> str:
    return "same" if row.same else "different"


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.1e}"


def _show(prepared: Any, console: Any) -> dict[str, Any]:
    import jax

    from jaxdna.console import table
    from jaxdna.parallel.sharding import device_rows, parameter_rows, whole_spec

    devices = device_rows(prepared.mesh, prepared.program.abstract_batches(1)["x"])
    columns = ("device", "process", "coordinates", "rows of the batch", "positions")
    console.print(table("Devices", columns, devices))
    params = prepared.program.abstract_state.params
    parameters = parameter_rows(params)
    columns = ("parameter", "shape", "split over", "on one device", "bytes there")
    console.print(
        table(
            "Parameters",
            columns,
            [
                [row.path, str(row.shape), row.axes, str(row.local_shape), row.bytes]
                for row in parameters
            ],
        )
    )
    if not console.stderr:  # jax draws on stdout, which --json keeps free
        for leaf, row in zip(jax.tree.leaves(params), parameters, strict=True):
            *leading, second, last = (None, *whole_spec(leaf))
            if (second or last) and not any(leading):  # jax draws two dimensions
                shape = leaf.shape[-2:]
                spec = jax.sharding.PartitionSpec(*(second, last)[-len(shape) :])
                console.print(f"{row.path}: its last dimensions {shape}")
                trailing = jax.sharding.NamedSharding(prepared.mesh, spec)
                # A square: jax leaves the names of devices out of what is too wide to print.
                square = (8 * prepared.mesh.size,) * len(shape)
                jax.debug.visualize_sharding(square, trailing, min_width=7)
    return {
        "mesh": dict(prepared.mesh.shape),
        "devices": [row._asdict() for row in devices],
        "parameters": [row._asdict() for row in parameters],
    }
