"""Trains on every real set of a folder, with jaxdna's recipes, gapped k-mer SVMs and CNNs in turn.

python tools/bench_real.py --data=FOLDER [--seeds=5] [--recipes=fasta,fasta:small] [--lsgkm=SOURCE]
    [--gkmsvm=COMMAND] [--cnns=keras,torch]

FOLDER has NAME.train.fasta and NAME.test.fasta for each set, with the label in every header (>1
bound, >0 not), as FastSK distributes those of DeepBind. Peers are lsgkm (gkmtrain and gkmpredict on
the path, or built from the source folder --lsgkm) and gkmsvm-lite (gkmsvm on the path, or
--gkmsvm=COMMAND), with their own defaults; they draw nothing, so they run once. --cnns has Keras
and PyTorch train a plain CNN of the size of the recipe's motif branch (peers/motif_files.py says
how), in environments of their own that are made once. A row says so where a peer is absent. The
members of an ensemble are the seeds of a competitor: the mean of their logits.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).parent.parent))

import jaxdna
from jaxdna.data.fasta import read_fasta_blocks
from jaxdna.data.header_targets import labelled_by_headers
from jaxdna.data.sequences import UNKNOWN, decode, encode
from jaxdna.runs.run_folder import RunFolder
from jaxdna.tasks.classes import Binary
from tools.peers.environments import CACHE, PEERS, environment

Scores = NDArray[np.float64]
# Threads of lsgkm and the megabytes of its cache: neither changes what it learns.
FASTER, TRAIN_FASTER = ["-T", "4"], ["-T", "4", "-m", "4000"]
CNNS = {"keras": "Keras", "torch": "PyTorch"}


@dataclass(frozen=True)
class RealSet:
    """A set's files.

    Attributes:
      train, test: as they were given.
      folder: what `write_parts` wrote, and a place for the competitors' own files.
    """

    train: Path
    test: Path
    folder: Path

    @property
    def data(self) -> list[str]:
        """The changes of a config that train on the one file and test on the other."""
        files = [f"data.positives={self.train}", f"data.test_positives={self.test}"]
        return [*files, "data.labels_in_headers=true"]


@dataclass(frozen=True)
class Competitor:
    """What scores the test sequences of a set.

    Attributes:
      score: takes the set and a seed, and returns the logits or margins; None: it is absent.
      runs: how many seeds; 1 where nothing is drawn.
    """

    score: Callable[[RealSet, int], Scores] | None
    runs: int


def find_sets(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Returns the files to train and to test on by the set's name."""
    trains = sorted(folder.glob("*.train.fa*"))
    pairs = {path.name.split(".train.")[0]: path for path in trains}
    return {
        name: (path, path.with_name(path.name.replace(".train.", ".test.")))
        for name, path in pairs.items()
    }


def labelled(path: Path) -> Iterator[tuple[str, int]]:
    """Yields the sequences of a file with their labels, in order."""
    for block in labelled_by_headers(read_fasta_blocks(path, whole_headers=True), str(path)):
        for row, label in enumerate(block.targets[:, 0]):
            yield decode(block.records[row]), int(label)


def write_parts(train: Path, test: Path, folder: Path) -> list[int]:
    """Writes what the peers read; returns the test labels.

    Files: bound.fa, unbound.fa and test.fa; the same as codes, padded, in parts.npz: `x`, `y` of
    the training sequences, `x_test`.
    """
    rows, tested = list(labelled(train)), list(labelled(test))
    for name, wanted in (("bound", 1), ("unbound", 0)):
        texts = [text for text, label in rows if label == wanted]
        (folder / f"{name}.fa").write_text(_fasta(texts))
    (folder / "test.fa").write_text(_fasta([text for text, _ in tested]))
    most = max(len(text) for text, _ in [*rows, *tested])
    x, x_test = (_codes([text for text, _ in part], most) for part in (rows, tested))
    y = np.array([label for _, label in rows], np.float32)
    np.savez(folder / "parts.npz", x=x, y=y, x_test=x_test)
    return [label for _, label in tested]


def _fasta(texts: list[str]) -> str:
    return "".join(f">s{i}\n{text}\n" for i, text in enumerate(texts))


def _codes(texts: list[str], length: int) -> NDArray[np.uint8]:
    codes = np.full((len(texts), length), UNKNOWN, np.uint8)
    for row, text in zip(codes, texts, strict=True):
        row[: len(text)] = encode(text)
    return codes


def run_recipe(recipe: str, which: RealSet, seed: int) -> Scores:
    """Trains a config of jaxdna and returns its logits of the test file."""
    run = which.folder / f"{recipe.replace(':', '-')}-{seed}"
    config = jaxdna.load_config(recipe, [*which.data, f"seed={seed}"])
    jaxdna.train(config, run, quiet=True)
    return RunFolder(run).read_test(Binary())[2][:, 0].astype(np.float64)


def run_cnn(framework: str, python: Path, which: RealSet, seed: int) -> Scores:
    """Trains a network of the size of the recipe's motif branch in another framework."""
    config = jaxdna.load_config("fasta", which.data)
    network, answers = config.model, which.folder / f"{framework}-{seed}.npz"
    request = {
        "data": str(which.folder / "parts.npz"),
        "answers": str(answers),
        "motifs": [
            (network.filters, network.width),
            (network.short_filters, network.short_width),
        ],
        "hidden": int(network.dense),
        "dropout": network.dropout,
        "batch": config.train.batch_size,
        "seed": seed,
    }
    script = str(PEERS / f"{framework}_motifs.py")
    _call(which.folder, str(python), script, json.dumps(request))
    return np.load(answers)["logits"].astype(np.float64)


def find_svms(lsgkm: Path | None, gkmsvm: str) -> dict[str, Competitor]:
    """Returns the gapped k-mer SVMs by their names."""
    if lsgkm:
        subprocess.run(["make", "-s", "-C", lsgkm / "src"], check=True, stdout=sys.stderr)
    where = str(lsgkm / "src") if lsgkm else None
    gkmtrain, gkmpredict = (shutil.which(name, path=where) for name in ("gkmtrain", "gkmpredict"))
    found = shutil.which(gkmsvm)
    light = Path(found).absolute() if found else None  # peers run in a folder of their own

    def lsgkm_scores(which: RealSet, seed: int) -> Scores:
        folder = which.folder
        files = ["bound.fa", "unbound.fa", "lsgkm"]
        _call(folder, str(gkmtrain), *TRAIN_FASTER, *files)
        _call(folder, str(gkmpredict), *FASTER, "test.fa", "lsgkm.model.txt", "lsgkm.tsv")
        return _column(folder / "lsgkm.tsv")

    def light_scores(which: RealSet, seed: int) -> Scores:
        folder = which.folder
        files = ["-p", "bound.fa", "-n", "unbound.fa", "-o", "light.npz"]
        _call(folder, str(light), "train", *files)
        _call(folder, str(light), "predict", "-m", "light.npz", "-i", "test.fa", "-o", "light.tsv")
        return _column(folder / "light.tsv")

    return {
        "lsgkm": Competitor(lsgkm_scores if gkmtrain and gkmpredict else None, 1),
        "gkmsvm-lite": Competitor(light_scores if light else None, 1),
    }


def _absolute(text: str) -> Path:
    return Path(text).resolve()


def _call(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=sys.stderr)


def _column(path: Path) -> Scores:
    """The numbers in the last column of a table, with or without a header."""
    column = np.genfromtxt(path, usecols=-1, comments=None)
    return column[1:] if np.isnan(column[0]) else column


def measure(
    sets: Mapping[str, tuple[Path, Path]],
    competitors: Mapping[str, Competitor],
    done: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Returns for each set and competitor the AUROC and seconds of every run."""
    found: dict[str, Any] = {}
    for name, (train, test) in sets.items():
        found[name] = {}
        with tempfile.TemporaryDirectory() as made:
            which = RealSet(train.resolve(), test.resolve(), Path(made))
            labels = write_parts(train, test, which.folder)
            for one, competitor in competitors.items():
                if not competitor.score:
                    continue
                runs: list[Scores] = []
                row = found[name][one] = {"auroc": [], "seconds": []}
                for seed in range(competitor.runs):
                    start = time.perf_counter()
                    runs.append(competitor.score(which, seed))
                    row["seconds"].append(time.perf_counter() - start)
                    row["auroc"].append(float(roc_auc_score(labels, runs[-1])))
                    row["ensemble"] = float(roc_auc_score(labels, np.mean(runs, axis=0)))
                    done(found)
    return found


def table(found: dict[str, Any], names: list[str]) -> str:
    """The table in Markdown: mean and standard error over seeds, seconds, paired differences."""
    ours = names[0]
    lines = [f"| set | {' | '.join(names)} | {ours}, members averaged |"]
    lines += ["| --- " * (len(names) + 2) + "|"]
    for name, rows in found.items():
        cells = [_cell(rows.get(one)) for one in names]
        lines.append(f"| {name} | {' | '.join(cells)} | {rows[ours]['ensemble']:.4f} |")
    means = [
        f"{np.mean([np.mean(rows[one]['auroc']) for rows in found.values()]):.4f}"
        if all(one in rows for rows in found.values())
        else "absent"
        for one in names
    ]
    members = f"{np.mean([rows[ours]['ensemble'] for rows in found.values()]):.4f}"
    lines.append(f"| mean | {' | '.join(means)} | {members} |")
    lines.append("")
    for one in names[1:]:
        gaps = [
            np.mean(rows[ours]["auroc"]) - np.mean(rows[one]["auroc"])
            for rows in found.values()
            if one in rows
        ]
        if not gaps:
            lines.append(f"- {one} is absent, and its column is empty.")
            continue
        each = ", ".join(f"{gap:+.4f}" for gap in gaps)
        if len(gaps) > 1:
            error = np.std(gaps, ddof=1) / np.sqrt(len(gaps))
            each = f"{np.mean(gaps):+.4f} (standard error {error:.4f}; {each})"
        lines.append(f"- {ours} less {one}, paired by set: {each}")
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None) -> str:
    if not row:
        return "absent"
    return f"{mean_and_error(row['auroc'])} ({np.median(row['seconds']):.0f} s)"


def mean_and_error(values: list[float]) -> str:
    """Returns the mean with its standard error, which a single value does not have."""
    error = f" ± {np.std(values, ddof=1) / np.sqrt(len(values)):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{error}"


def draw(found: dict[str, Any], names: list[str], path: Path) -> None:
    """Draws every run as a dot, a column for each set."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(1.5 + 1.3 * len(found), 4), layout="constrained")
    for i, name in enumerate(names):
        at = (i - (len(names) - 1) / 2) * 0.8 / len(names)
        points = [
            (place + at, value)
            for place, rows in enumerate(found.values())
            for value in rows.get(name, {"auroc": []})["auroc"]
        ]
        if points:
            axes.scatter(*np.array(points).T, s=18, label=name, alpha=0.8)
    axes.set_xticks(range(len(found)), list(found))
    axes.set_ylabel("AUROC of the test file")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measures, prints the table and writes bench_real.json, .md and .png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="NAME.train.fasta, NAME.test.fasta"
    )
    parser.add_argument("--sets", default="", help="names, joined by commas; all if empty")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--recipes", default="fasta,fasta:small", help="the first is compared; none if empty"
    )
    parser.add_argument("--lsgkm", type=_absolute, help="source folder of lsgkm, to build it")
    parser.add_argument("--gkmsvm", default="gkmsvm", help="the command of gkmsvm-lite")
    parser.add_argument("--cnns", default="", help="of keras, torch; each gets an environment")
    parser.add_argument("--cache", type=_absolute, default=CACHE, help="of those environments")
    parser.add_argument("--output", type=Path, default=Path("runs/bench_real"))
    arguments = parser.parse_args()
    sets = find_sets(arguments.data)
    wanted = arguments.sets.split(",") if arguments.sets else list(sets)
    if unknown := [name for name in wanted if name not in sets]:
        parser.error(f"--sets={unknown[0]} is not in {arguments.data}; there: {', '.join(sets)}")
    if not wanted:
        parser.error(f"{arguments.data} has no NAME.train.fasta")
    recipes, cnns = (filter(None, text.split(",")) for text in (arguments.recipes, arguments.cnns))
    competitors = {
        recipe: Competitor(partial(run_recipe, recipe), arguments.seeds) for recipe in recipes
    }
    competitors |= find_svms(arguments.lsgkm, arguments.gkmsvm)
    for cnn in cnns:
        if cnn not in CNNS:
            parser.error(f"--cnns={cnn} is unknown; choose from {', '.join(CNNS)}")
        trained = partial(run_cnn, cnn, environment(cnn, arguments.cache))
        competitors[CNNS[cnn]] = Competitor(trained, arguments.seeds)
    if not any(one.score for one in competitors.values()):
        parser.error("no --recipes, and none of the peers is there")
    arguments.output.mkdir(parents=True, exist_ok=True)

    def keep(found: dict[str, Any]) -> None:
        last = list(found.items())[-1]
        print(last[0], json.dumps(last[1]), file=sys.stderr, flush=True)
        (arguments.output / "bench_real.json").write_text(json.dumps(found, indent=2))

    chosen = {name: sets[name] for name in wanted}
    found = measure(chosen, competitors, keep)
    names = sorted(competitors, key=lambda one: competitors[one].score is None)
    text = table(found, names)
    (arguments.output / "bench_real.md").write_text(text + "\n")
    draw(found, names, arguments.output / "bench_real.png")
    print(text)


if __name__ == "__main__":
    main()
