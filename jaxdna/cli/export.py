"""Writes a trained model as files that run without jaxdna.

  jaxdna export --workdir=runs/tal1 --output=model

Leaves in --output model.stablehlo (the entire model, letters in and logits out; needs only jax and
flatbuffers), model.safetensors (the weights) and README.md with a short example for each.
"""

import argparse
from typing import Any

from jaxdna.cli.common import add_member, add_output, add_workdir, output_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's flags."""
    add_workdir(parser)
    add_member(parser)
    add_output(parser, "export")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Exports; returns the files."""
    from jaxdna.analysis.export import write_export
    from jaxdna.cli.common import open_network
    from jaxdna.console import results_console

    trained = open_network(arguments)
    output = output_folder(arguments, "export")
    files = write_export(trained, output, name=arguments.workdir.name)
    if not arguments.json:
        results_console().print(f"{output.path}: {', '.join(files)}")
    return {"output": str(output.path), "files": files}
