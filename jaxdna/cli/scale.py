"""The scaling study: trains on 1, 2, 4, ... devices and compares time, throughput and cost.

  jaxdna scale --config=tal1 --devices=1,2
  jaxdna scale --config=cifar10:timing --devices=1,2,4,8 --price-per-hour=3

A run's time is that of the steps of all its epochs, from the measured time of a step; start,
compilation, evaluation and checkpoints are not in it. Interrupted, the same command continues.
Of the strategies spmd and pipeline are measured; a parameter server's processes have their own
devices, and it is refused.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxdna.cli.common import add_price
from jaxdna.config import load_config
from jaxdna.config_files import run_name
from jaxdna.errors import UserError
from jaxdna.storage.places import place_of

_MODES = ("strong", "weak", "both")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's flags."""
    parser.add_argument(
        "--config",
        required=True,
        action="append",
        metavar="NAME[:VARIANT]",
        help="the configuration, by name or as FILE.py[:VARIANT]; several make one table; "
        "--config.KEY=VALUE changes all",
    )
    parser.add_argument(
        "--devices", default="1,2,4", help="numbers of devices, joined by commas (default: 1,2,4)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="times of each (default: 3)")
    parser.add_argument(
        "--mode", choices=_MODES, default="strong",
        help="strong: the global batch stays; weak: the batch of each device does "
        "(default: strong)",
    )  # fmt: skip
    add_price(parser)
    parser.add_argument(
        "--workdir", type=place_of, metavar="DIR",
        help="where measurements, table and picture go (default: runs/scale-NAME-OF-CONFIG)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures and compares; returns the rows."""
    devices = device_counts(arguments.devices)
    if arguments.repeats < 1:
        raise UserError(f"--repeats={arguments.repeats} is not legal: it must be 1 or more")
    price = arguments.price_per_hour
    configs = named_configs(arguments.config, arguments.overrides)
    folder = arguments.workdir or Path("runs") / f"scale-{'+'.join(configs)}"

    from jaxdna.console import make_console, results_console, table
    from jaxdna.storage.files import folder_at
    from jaxdna.study import scaling, scaling_report

    notes = make_console()
    modes = scaling.MODES if arguments.mode == "both" else (arguments.mode,)
    parts = scaling.parts_of(configs, devices, modes)
    files = folder_at(folder)
    if files.exists("config.json"):
        raise UserError(
            f"--workdir={folder} holds a run of `jaxdna train`; give another folder for the study"
        )
    try:
        files.make()
    except OSError as error:
        raise UserError(
            f"--workdir={folder} cannot be made ({error.strerror}); give another folder"
        ) from None
    platforms = scaling.check_devices(configs, max(devices))
    measured = scaling.measure_all(parts, platforms, arguments.repeats, files, notes.print)
    rows = scaling.rows_of(list(measured), price)
    scaling_report.write_files(files, rows, os.cpu_count())

    console = results_console(arguments.json)
    if not console.is_terminal:
        console.width = 150
    heads, *lines = scaling_report.report_table(rows)
    console.print(table("Training time of a run", heads, lines))
    title, heads, lines = scaling_report.short_table(rows)
    console.print(table(f"{title}, median of {arguments.repeats}", heads, lines))
    for sentence in scaling_report.sentences(rows, os.cpu_count()):
        console.print(sentence)
    notes.print(f"table and picture are in {folder}: scaling.md, scaling.csv, scaling.png")
    return {"rows": scaling.as_json(rows)}


def named_configs(specs: Sequence[str], overrides: Sequence[str]) -> dict[str, ConfigDict]:
    """Returns the config of every `--config`, by the name that its rows have in the table.

    Raises:
      UserError: a config is wrong, or two have one name.
    """
    configs: dict[str, ConfigDict] = {}
    for spec in specs:
        name = run_name(spec)
        if name in configs:
            raise UserError(
                f"--config={spec} is the second with the name {name}; give each config once, and "
                "files of different names"
            )
        configs[name] = load_config(spec, overrides)
    return configs


def device_counts(text: str) -> list[int]:
    """Returns the numbers of `--devices`, ascending and each once.

    Raises:
      UserError: it is no list of positive integers.
    """
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise UserError(
            f"--devices={text} is not legal: it must be integers, 1 or more, joined by commas"
        )
    return sorted(set(map(int, parts)))
