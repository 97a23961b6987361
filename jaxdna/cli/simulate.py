"""Writes the simulated data of a config: FASTA, labels with embeddings, and provenance.

jaxdna simulate --config=tal1 --output=data
jaxdna simulate --list
"""

import argparse
import json
import os
from collections.abc import Iterable
from itertools import islice
from typing import Any

from jaxdna.cli.common import add_config
from jaxdna.config import load_config, to_json
from jaxdna.errors import UserError
from jaxdna.storage.places import disk_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's flags."""
    add_config(parser, required=False)
    parser.add_argument("--output", type=disk_path, metavar="DIR", help="a new or empty folder")
    parser.add_argument("--list", action="store_true", help="list the motif presets and stop")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Simulates, or lists the motifs; returns what was made."""
    from jaxdna.console import results_console

    console = results_console(arguments.json)
    return _list(console) if arguments.list else _simulate(arguments, console)


def _list(console: Any) -> dict[str, Any]:
    from jaxdna.console import table
    from jaxdna.data.motifs import presets

    motifs = presets().values()
    rows = [[motif.name, motif.consensus, motif.width, motif.source] for motif in motifs]
    console.print(table("Motif presets", ("data.motif", "consensus", "width", "source"), rows))
    return {motif.name: motif.source for motif in motifs}


def _simulate(arguments: argparse.Namespace, console: Any) -> dict[str, Any]:
    for flag in ("config", "output"):
        if getattr(arguments, flag) is None:
            raise UserError(f"--{flag} is missing; or --list to see the motif presets")
    config = load_config(arguments.config, arguments.overrides)
    if config.data.name != "tal1":
        raise UserError(
            f"--config={arguments.config} does not describe simulated data "
            f"(data.name={config.data.name}); give one such as configs/tal1.py"
        )
    folder = arguments.output
    if os.path.exists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--output={folder} exists and is not an empty folder")

    from jaxdna.console import table
    from jaxdna.data.motifs import load_motif
    from jaxdna.data.registry import simulation
    from jaxdna.data.simulated_files import table_rows, write_simulation
    from jaxdna.versions import versions

    motif = load_motif(config.data.motif)
    everything, splits = simulation(config)
    provenance = {
        "config": json.loads(to_json(config)),
        "motif": {"name": motif.name, "source": motif.source, "rows": motif.smoothed().tolist()},
        "versions": versions(("numpy",)),
    }
    write_simulation(folder, everything, table_rows(everything, splits, motif), provenance)
    sizes = {name: rows.stop - rows.start for name, rows in splits.items()}
    console.print(_head(everything, islice(table_rows(everything, splits, motif), 5), table))
    console.print(f"{folder}: " + ", ".join(f"{size:,} {name}" for name, size in sizes.items()))
    return {"output": str(folder), "motif": motif.name, **sizes}


def _head(everything: Any, rows: Iterable[Any], table: Any) -> Any:
    from jaxdna.data.sequences import decode

    head = [
        [row.id, decode(codes[:44]) + "...", str(bool(row.label)), row.embedding or "-"]
        for row, codes in zip(rows, everything.codes, strict=False)
    ]
    return table("Head of the training split", ("id", "sequence", "bound", "embedding"), head)
