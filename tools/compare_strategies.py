"""Trains TAL1 once under every strategy and prints the comparison of docs/strategies.md.

python tools/compare_strategies.py [--epochs=7] [--batch_size=128] [--slow_seconds=0.05]

Every row is `jaxdna train` in a process of its own. The last rows slow one of two workers down:
a synchronous step takes as long as the slow worker, an asynchronous one does not.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

PIPELINE = ["strategy=pipeline", "mesh.stage=2", "mesh.data=1", "pipeline.microbatches=4"]
SERVER = ["strategy=parameter_server", "parameter_server.workers=2"]
MULTI_WORKER = "multi-worker mirrored, 2 processes"


def rows(slow: float) -> dict[str, list[str]]:
    """Returns the flags of every row by its title."""
    one, two = "runtime.cpu_devices=1", "runtime.cpu_devices=2"
    named = {
        "one device": [one],
        "mirrored, 2 devices": [two],
        MULTI_WORKER: [one],
        "data 2 x model 2, 4 devices": ["runtime.cpu_devices=4", "mesh.data=2", "mesh.model=2"],
    }
    for schedule in ("sequential", "gpipe", "1f1b", "pipedream", "2bw", "spectrain"):
        named[f"pipeline {schedule}"] = [two, *PIPELINE, f"pipeline.schedule={schedule}"]
    behind = f"parameter_server.delays=0,{slow:g}"
    for title, bound in (("synchronous", 0), ("staleness <= 8", 8)):
        named[f"parameter server, {title}"] = [
            one, *SERVER, f"parameter_server.max_staleness={bound}"
        ]  # fmt: skip
    for title, bound in (("synchronous", 0), ("staleness <= 1", 1), ("staleness <= 8", 8)):
        named[f"one slow worker, {title}"] = [
            one, *SERVER, f"parameter_server.max_staleness={bound}", behind
        ]  # fmt: skip
    return named


def train(flags: list[str], folder: Path, processes: int) -> tuple[dict, list[dict]]:
    """Runs one training; returns its summary and the rows of metrics.jsonl."""
    launch = ["launch", f"--processes={processes}", "--"] if processes > 1 else []
    command = [sys.executable, "-m", "jaxdna", *launch, "train", "--config=configs/tal1.py"]
    subprocess.run(
        [*command, f"--workdir={folder}", *(f"--config.{flag}" for flag in flags)],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return json.loads((folder / "summary.json").read_text()), [json.loads(line) for line in lines]


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--slow_seconds", type=float, default=0.05)
    arguments = parser.parse_args()
    common = [f"train.epochs={arguments.epochs}", f"train.batch_size={arguments.batch_size}"]
    print("| strategy | training, s | steps/s | staleness, mean | waiting, s | test AUROC |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for i, (title, flags) in enumerate(rows(arguments.slow_seconds).items()):
            processes = 2 if title == MULTI_WORKER else 1
            summary, epochs = train([*common, *flags], Path(folder) / str(i), processes)
            seconds = summary["seconds"]["train"]
            stale = [row["staleness_mean"] for row in epochs if "staleness_mean" in row]
            waited = [row["waiting_seconds"] for row in epochs if "waiting_seconds" in row]
            cells = [
                title,
                f"{seconds:.1f}",
                f"{epochs[-1]['step'] / seconds:.0f}",
                f"{sum(stale) / len(stale):.2f}" if stale else "",
                f"{sum(waited):.1f}" if waited else "",
                f"{summary['test']['auroc']:.4f}",
            ]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
