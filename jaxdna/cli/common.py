"""Flags that several verbs share."""

import argparse
from pathlib import Path
from typing import Any

from jaxdna.errors import UserError
from jaxdna.storage.files import Folder, folder_at
from jaxdna.storage.places import Place, name_and_choice, place_of

OWN_SEQUENCES = {  # keys of the config `fasta` that are flags
    "positives": ("A.fa", "FASTA of bound sequences"),
    "negatives": ("B.fa", "FASTA of unbound ones, or dinucleotide_shuffle, or gc_matched"),
    "test_positives": ("C.fa", "FASTA of bound sequences for the test"),
    "test_negatives": ("D.fa", "FASTA of unbound ones for the test"),
    "table": ("T.tsv", "instead: TSV or CSV, rows of sequence and 0 or 1"),
    "test_table": ("U.tsv", "such rows for the test"),
    "bed": ("B.bed", "instead: bound intervals on a genome; without --negatives gc_matched ones"),
    "genome": ("G.fa", "the genome of --bed"),
}


def add_own_sequences(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for each file of the config `fasta`; see `own_sequences`."""
    group = parser.add_argument_group("your own sequences, instead of --config")
    for key, (example, meaning) in OWN_SEQUENCES.items():
        group.add_argument(f"--{key.replace('_', '-')}", metavar=example, help=meaning)


def named_config(arguments: argparse.Namespace) -> str:
    """Returns the config that is asked for, by name or by files of one's own; '' for none."""
    files = any(getattr(arguments, key) for key in OWN_SEQUENCES)
    return arguments.config or ("fasta" if files else "")


def own_sequences(arguments: argparse.Namespace) -> tuple[str, list[str]]:
    """Returns the config and the overrides that flags for files stand for.

    Sequences whose lengths differ are padded, and windows of a genome get matched ones of the other
    class, unless an override says otherwise; a config that is not `fasta` has its own way.

    Raises:
      UserError: there is neither a config nor a file.
    """
    given = [key for key in OWN_SEQUENCES if getattr(arguments, key)]
    spec = named_config(arguments)
    if not spec:
        raise UserError(
            "--config is missing; legal: --config=NAME or FILE.py, or your own sequences: "
            "--positives=A.fa --negatives=B.fa, --table=T.tsv, or --bed=B.bed --genome=G.fa"
        )
    overrides = [f"data.{key}={getattr(arguments, key)}" for key in given]
    if Path(name_and_choice(spec)[0]).stem == "fasta" and given:
        said = {text.partition("=")[0] for text in [*overrides, *arguments.overrides]}
        if "bed" not in given:
            overrides.insert(0, "data.lengths=pad")
        elif not said & {"data.negatives", "data.tracks"}:
            overrides.append("data.negatives=gc_matched")
    return spec, [*overrides, *arguments.overrides]


def add_config(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Adds `--config`; `--help` then shows its keys."""
    parser.add_argument(
        "--config",
        required=required,
        metavar="NAME[:VARIANT]",
        help="the configuration, by name or as FILE.py[:VARIANT]; --config.KEY=VALUE changes a key",
    )


def add_workdir(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Adds `--workdir`; without a default the flag is required."""
    parser.add_argument(
        "--workdir",
        type=place_of,
        required=default is None,
        metavar="DIR",
        help=f"the run folder (default: {default})" if default else "the run folder",
    )


def add_member(parser: argparse.ArgumentParser) -> None:
    """Adds `--member`."""
    parser.add_argument(
        "--member",
        type=int,
        metavar="N",
        help="of several networks that were trained at once this one, from 0 (default: all of "
        "them, the mean of what they say)",
    )


def add_price(parser: argparse.ArgumentParser) -> None:
    """Adds `--price-per-hour`."""
    parser.add_argument(
        "--price-per-hour", type=_price, help="price of one device, in any currency"
    )


def _price(text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = 0.0
    if not 0 < price < float("inf"):
        raise UserError(f"--price-per-hour={text} is not legal: it must be a number above 0")
    return price


def open_trained(arguments: argparse.Namespace) -> Any:
    """Loads the trained model of `--workdir` onto all devices; see `runs.trained`."""
    from jaxdna.api import open_run

    return open_run(arguments.workdir, arguments.overrides, member=arguments.member).model


def open_network(arguments: argparse.Namespace) -> Any:
    """Loads it as one network: of an ensemble the best member, which a note then says."""
    from dataclasses import replace

    from jaxdna.console import make_console

    trained = open_trained(arguments)
    if trained.ensemble:
        make_console().print(
            f"note     of {len(trained.ensemble)} networks the best on the validation split is "
            "taken (--member=N for another one)"
        )
    return replace(trained, ensemble=())


def add_output(parser: argparse.ArgumentParser, name: str) -> None:
    """Adds `--output`, a folder; see `output_folder`."""

    def place(text: str) -> Place:
        return place_of(text, "--output")

    parser.add_argument("--output", type=place, metavar="DIR", help=f"default: WORKDIR/{name}")


def output_folder(arguments: argparse.Namespace, name: str) -> Folder:
    """Returns the folder of `--output`, or WORKDIR/NAME; in the run folder no link is followed."""
    path = arguments.output or arguments.workdir / name
    return folder_at(path, arguments.workdir if path.is_relative_to(arguments.workdir) else path)
