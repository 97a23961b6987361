"""Many members in one run against as many runs: seconds, memory, and whether they are the same.

python tools/bench_members.py [--config=tal1] [--seeds=5] [--folds=5] [--epochs=6] [--runs=25]
    [--cached] [--workdir=DIR]

Trains seeds x folds members in one run, and then each of them by itself, one after the other, as
far as --runs goes; the others are taken to cost what these do on average. Each command is a process
of its own with an empty folder; start, compilation, evaluation and report are in its time. Nothing
is compiled beforehand; with --cached all runs share what the first one of them compiled. What is
shown: seconds of wall and of processor time, peak memory (resident), and the largest
difference of a member's test loss from that of its lone run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import NamedTuple

SHARE, MEMORY = 0.25, 3.0  # of the time of all runs, of the memory of one: what members may take


class Cost(NamedTuple):
    """What a command took.

    Attributes:
      clock: seconds that passed.
      processor: seconds of all cores.
      memory: the largest resident memory in MB.
    """

    clock: float
    processor: float
    memory: float


def train(folder: Path, arguments: list[str]) -> tuple[Cost, dict]:
    """Runs `jaxdna train`; returns its cost, and its summary."""
    command = [sys.executable, "-m", "jaxdna", "train", *arguments, f"--workdir={folder}"]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed:\n{said.read()}")
    clock = time.perf_counter() - start
    cost = Cost(clock, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)
    return cost, json.loads((folder / "summary.json").read_text())


def measure(settings: argparse.Namespace, workdir: Path) -> bool:
    """Trains and shows; returns whether the members cost as little as they should."""
    cache = str(workdir / "cache") if settings.cached else "off"
    common = [
        f"--config={settings.config}", f"--config.train.epochs={settings.epochs}",
        f"--config.runtime.compilation_cache={cache}", f"--config.members.folds={settings.folds}",
    ]  # fmt: skip
    together, summary = train(
        workdir / "members", [*common, f"--config.members.seeds={settings.seeds}"]
    )
    who = list(product(range(settings.seeds), range(settings.folds) if settings.folds else [-1]))
    alone: list[Cost] = []
    apart = 0.0
    for number, (seed, fold) in enumerate(who[: settings.runs]):
        own = [f"--config.train.seed={seed}", f"--config.members.fold={fold}"]
        cost, lone = train(workdir / f"alone{number}", [*common, *own])
        alone.append(cost)
        member = summary["members"][number]
        apart = max(apart, abs(lone["test"]["loss"] - member["test"]["loss"]))
        print(f"run {number + 1} of {min(settings.runs, len(who))}: {cost.clock:.1f} s", flush=True)
    times = len(who) / len(alone)
    clock, processor = (sum(values) * times for values in list(zip(*alone, strict=True))[:2])
    memory = max(cost.memory for cost in alone)
    measured = "" if times == 1 else f" ({len(alone)} of them measured)"
    print(f"{len(who)} members in one run: {_words(*together)}")
    print(f"{len(who)} runs{measured}: {_words(clock, processor, memory)}")
    print(
        f"ratios: {together.clock / clock:.3f} by the clock, {together.processor / processor:.3f} "
        f"of the processor, {together.memory / memory:.2f} of the memory of one run"
    )
    print(f"largest difference of a member's test loss from its lone run's: {apart:.1e}")
    return together.clock <= SHARE * clock and together.memory <= MEMORY * memory


def _words(clock: float, processor: float, memory: float) -> str:
    return f"{clock:.1f} s, {processor:.1f} s of the processor, {memory:.0f} MB"


def main() -> int:
    """Measures; 1 where members take more than a quarter of the time, or thrice the memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="tal1")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--runs", type=int, default=25, help="lone runs to measure")
    parser.add_argument("--cached", action="store_true", help="runs share what is compiled")
    parser.add_argument("--workdir", type=Path, help="an empty folder (default: a temporary one)")
    settings = parser.parse_args()
    if settings.workdir:
        settings.workdir.mkdir(parents=True)
        return int(not measure(settings, settings.workdir))
    with tempfile.TemporaryDirectory() as folder:
        return int(not measure(settings, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
