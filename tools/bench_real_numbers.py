"""Predicts measured numbers of real sequences, beside the models that their authors ship.

python tools/bench_real_numbers.py [--sets=mpsa,sortseq] [--seeds=3] [--lsgkm=SOURCE]

The sets, their test rows and the models are those of the package mavenn (Tareen et al. 2022, Genome
Biology 23:98; MIT), installed once into an environment of its own: splicing of 30,483 5' splice
sites of 9 bases (`mpsa`, a pairwise model), and the mean bin of 50,518 mutants of a promoter of 75
bases sorted by expression (`sortseq`, an additive model). Everyone learns the training and
validation rows and predicts the test rows; the score is R² and Pearson's r, so that all of them
can have it. --lsgkm adds support vector regression of gapped k-mers (gkmtrain-svr) with its
defaults, words no longer than the sequences, and one strand.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent.parent))

import jaxdna
from jaxdna.runs.run_folder import RunFolder
from jaxdna.tasks.kinds import task_of
from tools.bench_real import FASTER, TRAIN_FASTER, mean_and_error
from tools.peers.environments import CACHE, PEERS, environment

Values = NDArray[np.float64]
SHIPPED = "mavenn's model"
SETS = {"mpsa": 9, "sortseq": 75}  # bases
OURS = [
    "data.task=regression",
    # One strand is measured.
    "data.reverse_complement=false",
    "model.strands=forward",
    # What a base does depends on its place: filters as long as the sequences are a dense layer.
    "model.name=multiscale",
    "model.filters=64",
    "model.short_filters=64",
    "model.dense=64",
    "model.dropout=0.1",
    "optimizer.weight_decay=0.01",
    "train.epochs=15",
]


def run_ours(folder: Path, name: str, seed: int) -> Values:
    """Trains the fasta config; returns what it predicts of the test rows."""
    files = [f"data.table={folder}/{name}.train.csv", f"data.test_table={folder}/{name}.test.csv"]
    widths = [f"model.width={SETS[name]}", f"model.short_width={SETS[name]}"]
    config = jaxdna.load_config("fasta", [*OURS, *widths, *files, f"seed={seed}"])
    run = folder / f"{name}-{seed}"
    jaxdna.train(config, run, quiet=True)
    task = task_of(RunFolder(run).read_data() or {})
    return task.predicted(RunFolder(run).read_test(task)[2])[:, 0]


def run_svr(programs: Path, folder: Path, name: str) -> Values:
    """Trains gkmtrain-svr; returns what it predicts of the test rows."""
    train, test = (read(folder / f"{name}.{part}.csv") for part in ("train", "test"))
    (folder / "svr.tsv").write_text("".join(f"{x}\t{y}\n" for x, y in train))
    (folder / "svr.fa").write_text("".join(f">s{i}\n{x}\n" for i, (x, _) in enumerate(test)))
    span = min(11, len(train[0][0]))
    letters = min(7, span - 2)
    words = ["-l", str(span), "-k", str(letters), "-d", str(min(3, span - letters))]
    calls = [
        ["gkmtrain-svr", *TRAIN_FASTER, "-R", *words, "svr.tsv", "svr"],
        ["gkmpredict", *FASTER, "svr.fa", "svr.model.txt", "svr.out"],
    ]
    for program, *rest in calls:
        subprocess.run([programs / program, *rest], cwd=folder, check=True, stdout=sys.stderr)
    return np.loadtxt(folder / "svr.out", usecols=1)


def read(path: Path) -> list[tuple[str, float]]:
    """Returns the rows of a table."""
    with path.open() as lines:
        return [(row["sequence"], float(row["y"])) for row in csv.DictReader(lines)]


def score(truth: Values, predicted: Values) -> dict[str, float]:
    """Share of the variance that is explained, and Pearson's r."""
    left = np.mean((truth - predicted) ** 2) / truth.var()
    return {"r2": float(1 - left), "pearson": float(np.corrcoef(truth, predicted)[0, 1])}


def table(found: dict[str, Any]) -> str:
    """The table in Markdown: mean and standard error over seeds."""
    lines = ["| set | who | R² | Pearson's r | seconds |", "| --- | --- | --- | --- | --- |"]
    for name, rows in found.items():
        for who, runs in rows.items():
            cells = [mean_and_error([run[key] for run in runs]) for key in ("r2", "pearson")]
            trained = f"{np.median([run['seconds'] for run in runs]):.0f}" if who != SHIPPED else ""
            lines.append(f"| {name} | {who} | {' | '.join(cells)} | {trained} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the table and writes bench_real_numbers.json and .md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", default=",".join(SETS), help="of " + ", ".join(SETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lsgkm", type=Path, help="source folder of lsgkm, to build it")
    parser.add_argument("--cache", type=Path, default=CACHE, help="of mavenn's environment")
    parser.add_argument("--output", type=Path, default=Path("runs/bench_real_numbers"))
    arguments = parser.parse_args()
    sets = arguments.sets.split(",")
    if unknown := [name for name in sets if name not in SETS]:
        parser.error(f"--sets={unknown[0]} is unknown; choose from {', '.join(SETS)}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {name: {} for name in sets}

    def measure(name: str, who: str, truth: Values, predict: Callable[[], Values]) -> None:
        start = time.perf_counter()
        result = score(truth, predict()) | {"seconds": time.perf_counter() - start}
        found[name].setdefault(who, []).append(result)
        print(name, who, result, file=sys.stderr, flush=True)
        (arguments.output / "bench_real_numbers.json").write_text(json.dumps(found, indent=2))

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        python = environment("mavenn", arguments.cache.resolve())
        shipped = [python, PEERS / "mavenn_models.py", folder]
        subprocess.run(shipped, check=True, stdout=sys.stderr)
        for name in sets:
            truth = np.array([y for _, y in read(folder / f"{name}.test.csv")])
            measure(name, SHIPPED, truth, partial(np.load, folder / f"{name}.npy"))
            for seed in range(arguments.seeds):
                measure(name, "jaxdna", truth, partial(run_ours, folder, name, seed))
            if arguments.lsgkm:
                programs = arguments.lsgkm.resolve() / "src"
                subprocess.run(["make", "-s", "-C", programs], check=True, stdout=sys.stderr)
                measure(name, "gkmtrain-svr", truth, partial(run_svr, programs, folder, name))
    (arguments.output / "bench_real_numbers.md").write_text(table(found) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
