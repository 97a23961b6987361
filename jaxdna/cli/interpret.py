"""Shows what a trained network looks for: filters as motifs, and in-silico mutagenesis.

  jaxdna interpret --workdir=runs/tal1
  jaxdna interpret --workdir=runs/tal1 --sequences=x.fa --motifs=known.meme

Leaves in WORKDIR/interpret (or --output): filters.tsv, filters.meme, filters.jaspar, logos/,
mutagenesis.tsv and mutagenesis.png.
"""

import argparse
from typing import Any

from jaxdna.cli.common import add_member, add_output, add_workdir, output_folder
from jaxdna.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's flags."""
    add_workdir(parser)
    add_member(parser)
    parser.add_argument(
        "--sequences",
        metavar="X.fa",
        help="FASTA, lengths as in training (default: the run's test split)",
    )
    parser.add_argument(
        "--motifs",
        metavar="FILE",
        help="motifs to compare with: MEME, JASPAR, HOMER, gimme, TRANSFAC or CIS-BP (default: "
        "the archetypes of JASPAR 2024 and the presets)",
    )
    parser.add_argument(
        "--mutate", type=int, default=3, metavar="N", help="sequences to mutate, the top-scoring"
    )
    add_output(parser, "interpret")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Interprets; returns the filters."""
    if arguments.mutate < 0:
        raise UserError(f"--mutate={arguments.mutate} is not legal: it must be 0 or more")

    from jaxdna.analysis import interpretation
    from jaxdna.analysis.motif_match import LIKELY_E_VALUE, library_note
    from jaxdna.cli.common import open_network
    from jaxdna.console import make_console, results_console, table
    from jaxdna.data.motifs import LIBRARY, library, read_motifs
    from jaxdna.runs.run_folder import RunFolder

    notes = make_console()
    known = read_motifs(arguments.motifs) if arguments.motifs else library()
    trained = open_network(arguments)
    sample = (
        interpretation.read_sample(trained, arguments.sequences)
        if arguments.sequences
        else interpretation.test_sample(trained, RunFolder(arguments.workdir))
    )
    output = output_folder(arguments, "interpret")
    mutants, drawn = min(arguments.mutate, len(sample.codes)), interpretation.MOST_DRAWN
    if mutants > drawn:
        notes.print(
            f"note     mutating {mutants:,} sequences; the heat map shows the first {drawn}"
        )
    found = interpretation.interpret(trained, sample, known, mutants, output)
    if not trained.filters:
        _say_mutated(found, mutants, output, notes)
        return found | {"output": str(output.path)}
    if note := library_note(known):
        notes.print(f"note     {note}")
    console = results_console(arguments.json)
    rows, several = [], trained.task.outputs > 1
    for row in found["filters"][:20]:
        best = row["match"] if row["resembles"] else {}
        place = f"{best['strand']} {best['offset']}" if best else None
        p_value = f"{best['p_value']:.1e}" if best else None
        cells = (row["weight"], row["sites"], row["consensus"], row["resembles"], place, p_value)
        rows.append([f"filter{row['filter']}", *([row["output"]] if several else []), *cells])
    columns = ["", *(["output"] if several else []), "weight", "sites", "consensus"]
    columns += ["resembles", "strand,\noffset", "p"]
    console.print(table("Filters, the most influential first", columns, rows))
    if found["embedded"]:
        share, chance = found["embedded"]["found"], found["embedded"]["chance"]
        console.print(
            f"the window that adds most to the logit holds the embedded motif in {share:.1%} of "
            f"the bound sequences ({chance:.1%} by chance)"
        )
    console.print(
        f"compared with {len(known):,} known motifs: {arguments.motifs or LIBRARY}; a filter is "
        f"named only where {LIKELY_E_VALUE:g} of them or fewer would match as well by chance"
    )
    console.print(f"tables, motif files, logos and the heat map are in {output.path}")
    return found | {"output": str(output.path)}


def _say_mutated(found: dict[str, Any], mutants: int, output: Any, console: Any) -> None:
    console.print(
        "note     this network does not begin with a motif scan, so its filters are not motifs; "
        "what each base does is shown by mutagenesis"
    )
    if mutants:
        console.print(
            f"{mutants} of {found['sequences']:,} sequences are mutated; the results are in "
            f"{output.path}"
        )
