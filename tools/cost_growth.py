"""Time and memory of training and prediction against the size of the work.

python tools/cost_growth.py [--sequences=10000,100000,1000000] [--output=runs/cost_growth]

Every point is a `jaxdna` command in a separate process, whose peak memory (resident) the operating
system reports: everything counts, Python, JAX, its compiler and the data. A training's
seconds are those of its second epoch, the validation of 3,200 sequences included; a prediction's
are of the whole command, its start included.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

WINDOW, STRIDE = 500, 250
LINE, LINES = 60, 20_000  # bases in a line of FASTA, and lines written at once


def run(arguments: list[str]) -> dict[str, Any]:
    """Runs the command; returns its seconds and its largest resident memory in GB."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        command = [sys.executable, "-m", "jaxdna", *arguments]
        process = subprocess.Popen(command, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed:\n{said.read()}")
    return {"seconds": time.perf_counter() - start, "gb": usage.ru_maxrss * 1024 / 1e9}


def train(sequences: int, length: int, filters: int, folder: Path) -> dict[str, Any]:
    """Trains two epochs and measures the second."""
    sizes = {
        "data.train_examples": sequences,
        "data.length": length,
        "model.filters": filters,
        "train.epochs": 2,
        "train.batch_size": 128,
    }
    flags = [f"--config.{key}={value}" for key, value in sizes.items()]
    found = run(["train", "--config=configs/tal1.py", *flags, f"--workdir={folder}"])
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    seconds = json.loads(lines[1])["seconds"]
    found |= {"epoch_seconds": seconds, "per_second": sequences / seconds}
    return found | {"sequences": sequences, "length": length, "filters": filters}


def predict(bases: int, folder: Path, model: Path) -> dict[str, Any]:
    """Scores windows of both strands along a random chromosome."""
    path = folder / "chromosome.fa"
    rng = np.random.default_rng(0)
    with path.open("wb") as stream:
        stream.write(b">chr1\n")
        for first in range(0, bases // LINE, LINES):
            lines = min(LINES, bases // LINE - first)
            letters = np.frombuffer(b"ACGT", np.uint8)[rng.integers(0, 4, (lines, LINE))]
            stream.write(b"\n".join(letters.view(f"S{LINE}").ravel().tolist()) + b"\n")
    output = folder / "windows.bedGraph"
    wanted = ["predict", f"--workdir={model}", f"--sequences={path}", f"--output={output}"]
    return run([*wanted, f"--window={WINDOW}", f"--stride={STRIDE}"]) | {"bases": bases}


def short(size: int) -> str:
    """A size as a tick has room for it: 64, 2k, 50M."""
    for unit, name in ((10**6, "M"), (10**3, "k")):
        if size >= unit:
            return f"{size / unit:g}{name}"
    return str(size)


def draw(result: dict[str, list[Any]], path: Path) -> None:
    """Draws seconds and memory against each size."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(13, 5.5), layout="constrained", sharey="row")
    labels = {"sequences": "sequences", "length": "bases in each", "filters": "filters"}
    labels["bases"] = "bases to predict"
    for column, (key, label) in enumerate(labels.items()):
        rows = sorted(result[key], key=lambda row, key=key: row[key])
        sizes = [row[key] for row in rows]
        time_of = "seconds" if key == "bases" else "epoch_seconds"
        for row, name in enumerate((time_of, "gb")):
            axes[row, column].plot(sizes, [point[name] for point in rows], "o-")
            axes[row, column].set_xscale("log")
            axes[row, column].set_xticks(sizes, list(map(short, sizes)))
            axes[row, column].minorticks_off()
        axes[0, column].set_yscale("log")
        axes[0, column].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes[1, column].set_ylim(0)
        axes[1, column].set_xlabel(label)
        axes[0, column].set_title("prediction" if key == "bases" else "training")
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("peak memory, GB")
    figure.savefig(path, dpi=120)


def show(result: dict[str, list[Any]]) -> str:
    """The tables, in Markdown."""
    lines = ["| sequences | length | filters | epoch, s | sequences/s | memory, GB |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    points = [row for key in ("sequences", "length", "filters") for row in result[key]]
    for row in {json.dumps(row): row for row in points}.values():
        lines.append(
            f"| {row['sequences']:,} | {row['length']:,} | {row['filters']} | "
            f"{row['epoch_seconds']:.2f} | {row['per_second']:,.0f} | {row['gb']:.2f} |"
        )
    lines += ["", "| bases to predict | seconds | million bases/s | memory, GB |"]
    lines.append("| --- | --- | --- | --- |")
    for row in result["bases"]:
        rate = row["bases"] / row["seconds"] / 1e6
        lines.append(f"| {row['bases']:,} | {row['seconds']:.1f} | {rate:.1f} | {row['gb']:.2f} |")
    first, *_, last = result["bases"]
    rate = (last["bases"] - first["bases"]) / (last["seconds"] - first["seconds"]) / 1e6
    lines += ["", f"Without the start, from the first to the last row: {rate:.1f} million bases/s."]
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the tables and writes cost_growth.json and cost_growth.png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    numbers = {
        "sequences": "10000,100000,1000000",
        "length": "250,500,1000,2000",
        "filters": "4,16,64",
        "bases": "10000000,50000000,200000000",
    }
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", default=default)
    parser.add_argument("--output", type=Path, default=Path("runs/cost_growth"))
    arguments = parser.parse_args()
    sizes = {name: [int(n) for n in getattr(arguments, name).split(",")] for name in numbers}
    usual = {"sequences": 10_000, "length": 500, "filters": 16}
    result: dict[str, list[Any]] = {name: [] for name in numbers}
    with tempfile.TemporaryDirectory() as scratch:
        done: dict[tuple[int, ...], Any] = {}
        for name in usual:
            for size in sizes[name]:
                point = tuple((usual | {name: size}).values())
                if point not in done:
                    done[point] = train(*point, Path(scratch) / "-".join(map(str, point)))
                    print(name, size, done[point], file=sys.stderr, flush=True)
                result[name].append(done[point])
        model = Path(scratch) / "-".join(map(str, next(iter(done))))
        for bases in sizes["bases"]:
            result["bases"].append(predict(bases, Path(scratch), model))
            print(result["bases"][-1], file=sys.stderr, flush=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "cost_growth.json").write_text(json.dumps(result, indent=2))
    draw(result, arguments.output / "cost_growth.png")
    print(show(result))


if __name__ == "__main__":
    main()
