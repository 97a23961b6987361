"""The steps of `interpret`, and the files that it leaves."""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxdna.analysis.filters import FilterMotif, filter_motifs, found_share
from jaxdna.analysis.logos import write_logos
from jaxdna.analysis.motif_match import likely
from jaxdna.analysis.mutagenesis import Mutated, draw, mutate, write_table
from jaxdna.analysis.scorers import make_scorer
from jaxdna.analysis.windows import find_windows
from jaxdna.data.dataset import SPLITS
from jaxdna.data.fasta import read_fasta_blocks
from jaxdna.data.motif_writers import jaspar, meme
from jaxdna.data.motifs import Motif, load_motif
from jaxdna.data.records import check_minimum, common_length, fit_length, join
from jaxdna.data.registry import load_dataset, simulation
from jaxdna.data.sequences import Codes
from jaxdna.data.streams import display
from jaxdna.errors import UserError
from jaxdna.progress import counted
from jaxdna.runs.run_folder import RunFolder
from jaxdna.runs.trained import Trained
from jaxdna.storage.files import Folder, writing

MOST_DRAWN = 20  # sequences in the heat-map: more would take minutes and be no picture
_MOST = 20_000  # sequences: more would change no frequency that a logo shows


@dataclass(frozen=True)
class Sample:
    """Sequences to interpret a network on.

    Attributes:
      ids: their names.
      codes: uint8 [sequences, length].
      starts: int32 [sequences], where the motif was embedded, or -1; None for real sequences.
      instance: bases of an embedded instance.
      lengths: int64 [sequences], bases before any padding or cropping; None where there was none.
    """

    ids: list[str]
    codes: Codes
    starts: NDArray[np.int32] | None = None
    instance: int = 0
    lengths: NDArray[np.int64] | None = None


def read_sample(trained: Trained, path: str) -> Sample:
    """Reads a FASTA file; lengths and letters are treated as in training.

    Shorter sequences are padded to the length of training at least, and longer ones cropped to it
    at most, so that all have one length.

    Raises:
      UserError: the file is wrong, or a sequence is shorter than a filter.
    """
    data = trained.config.data
    ids: list[str] = []
    sequences: list[Codes] = []
    for block in read_fasta_blocks(path, data.get("ambiguous", "zero")):
        ids += block.ids
        sequences += [block[i] for i in range(len(block))]
        if len(ids) >= _MOST:
            break
    records = join(ids[:_MOST], sequences[:_MOST])
    policy = data.get("lengths", "error")
    if trained.scan:
        check_minimum(records, trained.width, path)
    length = common_length(records, policy)
    if policy != "error":  # the network knows the length of training, with its padding
        length = {"pad": max, "center_crop": min}[policy](length, trained.length)
    if not trained.scan and length != trained.length:
        raise UserError(
            f"{display(path)} has sequences of {length} bases, but the network reads "
            f"{trained.length}; give sequences of that length"
        )
    fitted = fit_length(records, length, policy, path)
    return Sample(ids[:_MOST], fitted, lengths=records.lengths)


def test_sample(trained: Trained, folder: RunFolder) -> Sample:
    """Returns the run's test split, with the places of the motif if it is simulated.

    Raises:
      UserError: the data cannot be read, or have changed since the run in `folder` was begun.
    """
    config = trained.config
    if config.data.name == "tal1":
        everything, slices = simulation(config)
        rows = slices[SPLITS[-1]]
        codes = everything.codes[rows][:_MOST]
        ids = [f"test_{i}" for i in range(len(codes))]
        instance = load_motif(config.data.motif).width
        return Sample(ids, codes, everything.starts[rows][:_MOST], instance)
    dataset = load_dataset(config)
    folder.check_data(dataset)
    codes = np.asarray(dataset.splits[dataset.held_out].x[:_MOST])
    ids = dataset.names(dataset.held_out)[:_MOST]
    lengths = dataset.lengths(dataset.held_out)[:_MOST] if dataset.lengths else None
    return Sample(ids, codes, lengths=lengths)


def interpret(
    trained: Trained,
    sample: Sample,
    library: Sequence[Motif],
    mutants: int,
    output: Folder,
) -> dict[str, Any]:
    """Interprets a network and writes what it finds.

    Args:
      trained: a network; one that does not begin with a motif scan has no filters to show, and is
        mutated only.
      sample: sequences on which the filters fire.
      library: known motifs.
      mutants: how many of the top-scoring sequences to mutate.
      output: the folder; made if absent.

    Returns:
      `filters` (a dict each, the most influential first) and `embedded` (None for real sequences).

    Raises:
      UserError: the folder cannot be written.
    """
    with writing(output):  # fails before any work if it does
        output.make()
    if not trained.filters:
        with writing(output):
            _mutate(trained, sample, mutants, output)
        return {"filters": [], "embedded": None, "sequences": len(sample.codes)}
    both = trained.config.model.strands != "forward"
    windows = find_windows(trained, sample.codes, both)
    filters = filter_motifs(trained, sample.codes, windows, library)
    motifs = [one.motif for one in filters if one.motif]
    sites = [one.sites for one in filters if one.motif]
    rows = [_row(one) for one in filters]
    with writing(output):
        output.write("filters.meme", meme(motifs, sites))
        output.write("filters.jaspar", jaspar(motifs, sites))
        write_logos(motifs, output)
        output.write("filters.tsv", _table(rows))
        if mutants:
            _mutate(trained, sample, mutants, output)
    embedded = None
    if sample.starts is not None:
        share, chance = found_share(trained, sample.codes, windows, sample.starts, sample.instance)
        embedded = {"found": share, "chance": chance}
    return {"filters": rows, "embedded": embedded, "sequences": len(sample.codes)}


def _row(one: FilterMotif) -> dict[str, Any]:
    found = likely(one.hits)
    return {
        "filter": one.number,
        "output": one.output,
        "weight": one.weight,
        "influence": one.influence,
        "sites": one.sites,
        "consensus": one.core.consensus if one.core else "",
        "match": asdict(one.hits[0]) if one.hits else None,
        "resembles": found.target if found else None,
    }


def _table(rows: list[dict[str, Any]]) -> str:
    keys = ("target", "strand", "offset", "overlap", "p_value", "e_value", "q_value")
    lines: list[list[Any]] = [["filter", "weight", "influence", "sites", "consensus", *keys]]
    for row in rows:
        match = row["match"] or {}
        values = [f"{row['weight']:.6g}", f"{row['influence']:.6g}", row["sites"]]
        found = [match.get(key, "") for key in keys]
        cells = [f"{x:.3g}" if isinstance(x, float) else x for x in found]
        lines.append([row["filter"], *values, row["consensus"], *cells])
    return "".join("\t".join(map(str, line)) + "\n" for line in lines)


def _mutate(trained: Trained, sample: Sample, mutants: int, output: Folder) -> None:
    scorer, task = make_scorer(trained), trained.task
    count, length = sample.codes.shape
    starts = np.arange(count, dtype=np.int64) * length
    outputs = scorer.outputs(
        sample.codes.reshape(-1), starts, np.full(count, length - trained.width + 1)
    )
    names = list(task.additive(outputs))
    strongest = outputs.max(axis=1)
    top = np.argsort(-strongest, kind="stable")[:mutants].tolist()
    mutated = []
    for i in counted("mutating", top, len(top)):
        codes = sample.codes[i]
        given = length if sample.lengths is None else int(sample.lengths[i])
        # As `fit_length` pads and crops: padding is no position of the sequence.
        first, cropped = max(length - given, 0) // 2, max(given - length, 0) // 2
        stop = first + min(given, length)
        changes = mutate(scorer, codes, first, stop)
        mutated += [
            Mutated(sample.ids[i], codes[first:stop], changes[..., k], cropped + 1, name)
            for k, name in enumerate(names)
        ]
    table = io.StringIO()
    write_table(table, mutated)
    output.write("mutagenesis.tsv", table.getvalue())
    output.write("mutagenesis.png", draw(mutated[:MOST_DRAWN]))
