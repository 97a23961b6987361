"""From a config to everything that a run needs; nothing is written and nothing is trained."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console

from jaxdna.console import table
from jaxdna.data.dataset import Dataset
from jaxdna.data.registry import load_dataset
from jaxdna.errors import UserError
from jaxdna.member_settings import member_settings
from jaxdna.models.network import summary_rows
from jaxdna.parallel.agreement import agree_on_data
from jaxdna.parallel.mesh import batch_shards, describe_mesh, make_mesh
from jaxdna.parallel.runtime import describe_devices, start_backend
from jaxdna.training.program import Program


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made.

    Attributes:
      mesh: the devices.
      dataset: the data, on the host.
      program: the functions, not compiled yet.
    """

    mesh: Mesh
    dataset: Dataset
    program: Program


def prepare(
    config: ConfigDict,
    console: Console,
    started: Callable[[], None] = lambda: None,
    change: Callable[[Dataset], Dataset] = lambda dataset: dataset,
    kind: type[Program] | None = None,
) -> Prepared:
    """Resolves devices, mesh, data and program, and shows each.

    Args:
      config: a whole configuration.
      console: where the tables go.
      started: called when all processes have joined, before any data are read.
      change: what is done to the data.
      kind: of the program; what the config asks for if None.

    Raises:
      UserError: something that the user gave does not fit.
      Disagreement: several processes have different settings, versions or data.
    """
    kind = kind or program_of(config)
    devices = start_backend(config, console)
    started()
    mesh = make_mesh(config, devices)
    console.print(f"devices  {describe_devices(devices)}")
    console.print(f"mesh     {describe_mesh(config, mesh)}")
    dataset = change(load_dataset(config))
    agree_on_data(dataset)
    console.print(f"data     {dataset.describe}")
    for note in dataset.notes:
        console.print(f"note     {note}")
    examples = dataset.most("train")
    if config.train.batch_size > examples:
        batch = f"--config.train.batch_size={config.train.batch_size}"
        if "train_examples" in config.data:  # whose number the user has named too
            raise UserError(
                f"{batch} is more than the {examples} training examples; legal: 1 to {examples}"
            )
        console.print(
            f"note     there are {examples} training examples, fewer than {batch}: each step takes "
            "all of them"
        )
    program = kind.of(config, mesh, dataset.spec)
    return Prepared(program.mesh, dataset, program)


def program_of(config: ConfigDict) -> type[Program]:
    """Returns the kind of program that a configuration asks for; imports no other.

    Raises:
      UserError: what it needs is not installed.
    """
    return _members() if member_settings(config) else PROGRAMS[config.strategy]()


def _members() -> type[Program]:
    from jaxdna.strategies.members import MemberProgram

    return MemberProgram


def _pipeline() -> type[Program]:
    from jaxdna.strategies.pipeline import PipelineProgram

    return PipelineProgram


def _parameter_server() -> type[Program]:
    from jaxdna.strategies.parameter_server import ParameterServerProgram

    return ParameterServerProgram


PROGRAMS: dict[str, Callable[[], type[Program]]] = {
    "spmd": lambda: Program,
    "pipeline": _pipeline,
    "parameter_server": _parameter_server,
}


def show(prepared: Prepared, console: Console) -> None:
    """Prints the network and how each batch is divided."""
    program = prepared.program
    rows = summary_rows(program.network, program.example_shape)
    made = table(
        "Network",
        ("layer (type)", "output shape", "parameters"),
        [[f"{name} ({kind})", str((None, *shape)), count] for name, kind, shape, count in rows],
    )
    made.add_section()
    made.add_row("total", "", f"{sum(row[3] for row in rows):,}")
    console.print(made)
    for shown in program.tables():
        console.print(shown)
    batch = program.config.train.batch_size
    shards = batch_shards(prepared.mesh.shape)
    sizes = {name: prepared.dataset.most(name) for name in prepared.dataset.splits}
    console.print(
        table(
            "Batches",
            ("", "examples"),
            [
                ["global batch", batch],
                ["per process", batch // jax.process_count()],
                ["per device", batch // shards],
                ["steps per epoch", program.steps_per_epoch],
                *([name, size] for name, size in sizes.items()),
            ],
        )
    )
