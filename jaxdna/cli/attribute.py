"""Scores each base of sequences: what it adds to each answer of a trained network.

  jaxdna attribute --workdir=runs/tal1
  jaxdna attribute --workdir=runs/tal1 --sequences=x.fa --output=x.h5
  jaxdna attribute --workdir=runs/tal1 --bed=x.bed --genome=g.fa --method=ism
  jaxdna attribute --workdir=runs/tal1 --variants=x.vcf --genome=g.fa

deeplift_shap and integrated_gradients share out the difference between a sequence and references;
saliency is the gradient, and ism changes every base in turn. Sequences are read as in training.
"""

import argparse
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

from jaxdna.cli.common import add_member, add_workdir
from jaxdna.errors import UserError
from jaxdna.schema import ATTRIBUTION_METHODS, ATTRIBUTION_REFERENCES, STRAND_CHOICES

_SOURCES = ("sequences", "bed", "variants")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's flags."""
    add_workdir(parser)
    add_member(parser)
    parser.add_argument(
        "--sequences", metavar="X.fa[.gz]", help="FASTA (default: the run's test split)"
    )
    parser.add_argument("--bed", metavar="X.bed", help="instead: windows around these intervals")
    parser.add_argument("--variants", metavar="X.vcf[.gz]", help="instead: both alleles of each")
    parser.add_argument("--genome", type=Path, metavar="G.fa", help="of --bed or --variants")
    parser.add_argument(
        "--method", choices=ATTRIBUTION_METHODS, default=ATTRIBUTION_METHODS[0],
        help="default: deeplift_shap",
    )  # fmt: skip
    parser.add_argument(
        "--references", choices=ATTRIBUTION_REFERENCES,
        help="what sequences are compared with (default: dinucleotide_shuffle; background for "
        "integrated_gradients)",
    )  # fmt: skip
    parser.add_argument(
        "--shuffles", type=int, default=20, metavar="N", help="of each sequence (default: 20)"
    )
    parser.add_argument(
        "--steps", type=int, default=64, metavar="N",
        help="places at which integrated_gradients takes the gradient (default: 64)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the shuffles")
    parser.add_argument("--answer", metavar="NAME", help="the answer to score (default: all)")
    parser.add_argument("--strands", choices=STRAND_CHOICES, help="default: as it was trained")
    parser.add_argument(
        "--output", action="append", metavar="Y.npz",
        help="NPZ, .h5 as tfmodisco-lite reads it, .tsv[.gz], .png with the logos of ten, or with "
        "--bed .bedGraph[.gz] or .bw; may be given several times (default: "
        "WORKDIR/attributions.npz)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Attributes; returns what was counted."""
    if not arguments.output and not isinstance(arguments.workdir, Path):
        raise UserError(
            f"--workdir={arguments.workdir} is in an object store, and scores go to a disk; "
            "give --output=Y.npz"
        )
    outputs = arguments.output or [str(arguments.workdir / "attributions.npz")]
    _check(arguments, outputs)

    from jaxdna.analysis.attributed import BOUND
    from jaxdna.analysis.attribution import Settings, make_attributor
    from jaxdna.analysis.attribution_files import FORMS, form_of
    from jaxdna.analysis.attribution_kept import Kept
    from jaxdna.analysis.attribution_logos import Telling
    from jaxdna.analysis.run_report import add_attributions
    from jaxdna.cli.common import open_trained
    from jaxdna.console import make_console, results_console
    from jaxdna.progress import counted
    from jaxdna.runs.run_folder import RunFolder

    notes = make_console()
    for path in outputs:
        form_of(path, arguments.bed is not None, 1)
    trained = open_trained(arguments)
    answers = 1 if arguments.answer else trained.task.outputs
    forms = {path: form_of(path, arguments.bed is not None, answers) for path in outputs}
    settings = Settings(
        arguments.method,
        arguments.references or "",
        arguments.shuffles,
        arguments.steps,
        arguments.seed,
        arguments.answer,
        together=2 if arguments.variants else 1,
    )
    begin = time.perf_counter()
    blocks, total, found, source = _sequences(arguments, trained)
    kept = Kept(outputs[0], _depends_on(trained, settings, arguments.strands))
    scored = make_attributor(trained, settings, arguments.strands)(blocks, kept)
    parts = counted("attributing", scored, total, lambda part: len(part.ids))
    # What is wrong with the first sequences shows before a file is begun.
    first = next(parts, None)
    if first is None:
        reasons = "".join(f" ({note})" for note in found())
        raise UserError(f"there is no sequence to attribute{reasons}; legal: one or more")
    counts, telling = _Counts(), Telling()
    own = not any(getattr(arguments, key) for key in _SOURCES)
    with ExitStack() as opened:
        writers: list[Any] = [telling.add] if own else []
        writers += [opened.enter_context(FORMS[form](path, source)) for path, form in forms.items()]
        for part in chain([first], parts):
            counts.add(part)
            for write in writers:
                write(part)
    kept.remove()
    seconds = time.perf_counter() - begin
    if kept.used:
        notes.print(f"note     {kept.used:,} sequences were scored before the command was stopped")
    for note in found():
        notes.print(f"note     {note}")
    if counts.beyond:
        more = "; more --steps come nearer" if "gradients" in arguments.method else ""
        notes.print(
            f"note     the scores of {counts.beyond:,} of {counts.sequences:,} sequences miss the "
            f"change of the output by more than {BOUND:.0e} of it{more}"
        )
    console = results_console(arguments.json)
    noun = "sequence" if counts.sequences == 1 else "sequences"
    console.print(
        f"{counts.sequences:,} {noun} of {first.codes.shape[1]:,} bases in {seconds:.1f} s by "
        f"{arguments.method}, for {', '.join(first.answers)}"
    )
    if counts.compared:
        console.print(
            "the scores of a sequence add up to the change of its output, to "
            f"{counts.largest:.1e} of that at most"
        )
    console.print(f"they are in {' and '.join(outputs)}")
    if own and add_attributions(RunFolder(arguments.workdir), telling, arguments.method):
        console.print(f"the most telling sequences are in {arguments.workdir / 'report.html'}")
    return {
        "sequences": counts.sequences,
        "answers": list(first.answers),
        "method": arguments.method,
        "largest_delta": counts.largest if counts.compared else None,
        "beyond": counts.beyond,
        "seconds": round(seconds, 3),
        "output": outputs[0] if len(outputs) == 1 else outputs,
    }


def _depends_on(trained: Any, settings: Any, strands: str | None) -> dict[str, Any]:
    """What scores depend on beside the sequences."""
    from dataclasses import asdict

    from jaxdna.training.checkpoint import params_sha256
    from jaxdna.versions import versions

    return {
        "networks": [params_sha256(params) for params in trained.networks],
        "strands": strands or trained.config.model.strands,
        "settings": asdict(settings),
        "devices": [device.device_kind for device in trained.mesh.devices.flat],
        "versions": versions(),
    }


class _Counts:
    """What is said of all sequences in the end.

    Attributes:
      sequences: how many there were.
      compared: whether they were compared with references.
      largest: of all deltas, as a share of the size of the output's change.
      beyond: sequences whose delta is more than the bound.
    """

    def __init__(self) -> None:
        self.sequences = self.beyond = 0
        self.compared, self.largest = False, 0.0

    def add(self, part: Any) -> None:
        self.sequences += len(part.ids)
        missed = part.missed
        if (missed == missed).any():
            self.compared = True
            self.largest = max(self.largest, float(missed.max()))
            self.beyond += int(part.beyond.any(axis=1).sum())


def _check(arguments: argparse.Namespace, outputs: list[str]) -> None:
    """Refuses flags that do not go together; touches nothing."""
    given = [key for key in _SOURCES if getattr(arguments, key)]
    if len(given) > 1:
        named = " and ".join(f"--{key}={getattr(arguments, key)}" for key in given)
        raise UserError(f"{named} do not go together; give only one of them")
    needs_genome = "bed" in given or "variants" in given
    if needs_genome and not arguments.genome:
        raise UserError(f"--{given[0]}={getattr(arguments, given[0])} needs --genome=G.fa")
    if arguments.genome and not needs_genome:
        raise UserError(f"--genome={arguments.genome} needs --bed=X.bed or --variants=X.vcf")
    if len({os.path.realpath(path) for path in outputs}) < len(outputs):
        given_files = " ".join(f"--output={path}" for path in outputs)
        raise UserError(f"{given_files} is the same file twice; give different files")


def _sequences(
    arguments: argparse.Namespace, trained: Any
) -> tuple[Any, int | None, Callable[[], list[str]], Any]:
    """Returns the sequences, how many if that is known, what to say of them, and their source."""
    from jaxdna.analysis import attribution_inputs as inputs
    from jaxdna.analysis.attribution_files import Source
    from jaxdna.analysis.interpretation import test_sample
    from jaxdna.data.genome import Genome
    from jaxdna.data.sequence_stats import SequenceStats
    from jaxdna.runs.run_folder import RunFolder

    data = trained.config.data
    if arguments.genome:
        cache = trained.config.runtime.get("data_cache", "auto")
        genome = Genome(arguments.genome, data.get("ambiguous", "zero"), cache)
    if arguments.sequences:
        stats = SequenceStats()
        blocks = inputs.fasta_blocks(trained, arguments.sequences, stats)
        return blocks, None, stats.notes, Source()
    if arguments.bed:
        windows, notes = inputs.windows_of(trained, arguments.bed, genome)
        source = Source(windows=windows, sizes=genome.lengths)
        return inputs.window_blocks(windows, genome), len(windows), lambda: notes, source
    if arguments.variants:
        found: dict[str, list[str]] = {
            "alleles left out": [], "alleles whose REF is not in the genome": []
        }  # fmt: skip
        tell = [those.append for those in found.values()]
        blocks = inputs.variant_blocks(trained, arguments.variants, genome, *tell)

        def say() -> list[str]:
            return [f"{k}: {len(v):,}; the first: {v[0]}" for k, v in found.items() if v]

        return blocks, None, say, Source(together=2)
    sample = test_sample(trained, RunFolder(arguments.workdir))
    return iter([(sample.ids, sample.codes)]), len(sample.ids), list, Source()
