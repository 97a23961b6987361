"""Scores the best checkpoint of a run folder on the test split."""

import argparse
from typing import Any

from jaxdna.cli.common import add_workdir


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's flags."""
    add_workdir(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Evaluates; returns the parts of the summary that apply."""
    import jax
    from rich.console import Console

    from jaxdna.config import flat, override, validate
    from jaxdna.models.network import parameter_count
    from jaxdna.training.checkpoint import load_best, params_sha256
    from jaxdna.training.display import make_console, results
    from jaxdna.training.evaluation import Evaluator
    from jaxdna.training.prepare import prepare
    from jaxdna.training.run_folder import RunFolder
    from jaxdna.versions import versions

    folder = RunFolder(arguments.workdir)
    config = validate(override(flat(folder.read_model_config()), arguments.overrides))
    prepared = prepare(config, make_console())
    best = load_best(folder.checkpoints, prepared.program.abstract_state.params)
    dataset = prepared.dataset
    summary = {
        "params": parameter_count(best),
        "params_sha256": params_sha256(prepared.program.gather(best)),
        "test": Evaluator(prepared.program, dataset.splits["test"]).scores(best),
        "ceiling": dataset.ceiling("test") if dataset.ceiling else None,
        "mesh": dict(prepared.mesh.shape),
        "devices": prepared.mesh.size,
        "processes": jax.process_count(),
        "versions": versions(),
    }
    if not arguments.json:
        Console(highlight=False).print(results(summary))
    return summary
