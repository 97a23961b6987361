"""Kills, stops and damages short runs at random, and compares each with one that nobody touched.

python tools/fault_campaign.py --faults=200               one process per run
python tools/fault_campaign.py --faults=40 --processes=2  two processes per run

A run is a folder. It is started again and again: each start is killed or stopped at a random
moment, and between two starts files of the newest checkpoint, or of the run folder, are damaged.
The last start is left alone. Lost is a run that ends with other parameters or other metrics than
the untouched one, with an exit code that the fault does not explain, or not at all.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from jaxdna.parallel.cluster import free_port
from tools.jobs import Job

CONFIG = [
    "--config=configs/tal1.py",
    "--config.data.length=60",
    "--config.data.train_examples=1280",
    "--config.data.validation_examples=64",
    "--config.data.test_examples=64",
    "--config.train.epochs=16",
    "--config.train.steps_per_call=4",
    "--config.runtime.platform=cpu",
    "--config.cluster.heartbeat_seconds=5",
]
FAULTS_PER_RUN = 5
# A killed process leaves 70 or SIGABRT to the other one of two; a stop comes too late for 78 once
# the last parameters are saved.
EXPECTED = {
    "kill": {-signal.SIGKILL, 0, 70, -signal.SIGABRT},
    "stop": {78, 0},
    "interrupt": {78, 0},
}


@dataclass
class Report:
    """What a campaign did and found.

    Attributes:
      runs: folders trained to the end.
      starts: processes' starts, or of pairs.
      faults: how many of each kind.
      resumes: starts that went on from a checkpoint.
      fallbacks: starts that found the newest checkpoint damaged and took an older one.
      losses: one line for each run that was lost or wrong.
      seconds: of the whole campaign.
    """

    runs: int = 0
    starts: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    resumes: int = 0
    fallbacks: int = 0
    losses: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def show(self) -> str:
        """Returns the figures as text."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items()))
        return (
            f"{self.runs} runs, {self.starts} starts, {self.faults.total()} faults ({kinds}), "
            f"{self.resumes} resumes, {self.fallbacks} fallbacks, "
            f"{len(self.losses)} lost or wrong, {self.seconds:.0f} s"
        )


def campaign(faults: int, processes: int, seed: int, folder: Path) -> Report:
    """Runs a campaign.

    Args:
      faults: how many to do at least.
      processes: of each run, 1 or 2.
      seed: decides what is done when; the machine decides what it hits.
      folder: where the runs go; those that were not lost are removed.

    Returns:
      The figures.
    """
    chance, report, begin = random.Random(seed), Report(), time.monotonic()
    reference = folder / "reference"
    for _ in range(2):  # the first one compiles for all
        shutil.rmtree(reference, ignore_errors=True)
        start = time.monotonic()
        codes, output = _train(reference, processes, folder, lambda jobs: None)
        seconds = time.monotonic() - start
    if set(codes) != {0}:
        raise RuntimeError(f"the untouched run ended with {codes}:\n{output}")
    while report.faults.total() < faults:
        run = folder / f"run-{report.runs}"
        loss = _one_run(run, reference, processes, seconds, chance, report)
        report.runs += 1
        if loss:
            report.losses.append(f"{run}: {loss}")
        else:
            shutil.rmtree(run)
        report.seconds = time.monotonic() - begin
        print(report.show(), file=sys.stderr, flush=True)
    return report


def _one_run(
    run: Path,
    reference: Path,
    processes: int,
    seconds: float,
    chance: random.Random,
    report: Report,
) -> str | None:
    """Starts one run until nothing is left to do to it; returns how it was lost."""
    for left in range(chance.randint(1, FAULTS_PER_RUN), -1, -1):
        kind = chance.choice(sorted(EXPECTED)) if left else None
        moment = chance.uniform(0.1, 1.0) * seconds

        def hurt(jobs: list[Job], kind: str | None = kind, moment: float = moment) -> None:
            if kind is not None:
                time.sleep(moment)
                number = {"kill": signal.SIGKILL, "stop": signal.SIGTERM}.get(kind, signal.SIGINT)
                chance.choice(jobs).send(number)

        codes, output = _train(run, processes, run.parent, hurt)
        report.starts += 1
        report.resumes += "resuming after" in output
        report.fallbacks += "falling back" in output
        legal = EXPECTED[kind] if kind else {0}
        if kind == "stop" and (run / "summary.json").exists():
            legal = legal | {-signal.SIGTERM}  # all is written: the process ends as any other does
        if not set(codes) <= legal:
            return f"exit codes {codes} after {kind}:\n{output}"
        if kind:
            report.faults[kind] += 1
            if chance.random() < 0.5:
                damage = _damage(run, chance)
                report.faults.update([damage] if damage else [])
    for name, read in (("parameters", _sha), ("metrics", _rows)):
        if read(run) != read(reference):
            return f"the {name} differ from those of the untouched run"
    return None


def _train(
    workdir: Path, processes: int, folder: Path, hurt: Callable[[list[Job]], None]
) -> tuple[list[int], str]:
    """Starts the processes of a run, hurts them, and returns their exit codes and output."""
    port = free_port()
    logs = [folder / f"process-{i}.log" for i in range(processes)]
    several = [f"--config.cluster.coordinator=127.0.0.1:{port}"] * (processes > 1)
    with ExitStack() as stack:
        jobs = [
            stack.enter_context(
                Job(
                    [
                        *("train", *CONFIG, f"--workdir={workdir}", *several),
                        *(f"--config.cluster.processes={processes}",) * (processes > 1),
                        f"--config.cluster.process_id={i}",
                    ],
                    log,
                    {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")},
                )
            )
            for i, log in enumerate(logs)
        ]
        hurt(jobs)
        return [job.end(300) for job in jobs], "\n".join(job.output for job in jobs)


def _damage(run: Path, chance: random.Random) -> str | None:
    """Damages one file of the newest of several checkpoints, or one that is no checkpoint's."""
    checkpoints = (run / "checkpoints").glob("epoch-*")
    whole = sorted(
        (path for path in checkpoints if not path.suffix),
        key=lambda path: [int(number) for number in re.findall("[0-9]+", path.name)],
    )
    # A finished run writes its files no more: what becomes of them is no fault of training.
    others = ["metrics.jsonl", "data.json"] * (not (run / "summary.json").exists())
    files = [run / name for name in [".lock", ".saved", *others] if (run / name).exists()]
    if len(whole) > 1:
        files += [path for path in whole[-1].rglob("*") if path.is_file()]
    files = [path for path in files if path.stat().st_size]
    if not files:
        return None
    path = chance.choice(files)
    size = path.stat().st_size
    kind = chance.choice(["bit flip", "truncation", "zeroed page", "deletion"])
    if kind == "deletion":
        path.unlink()
    elif kind == "truncation":
        os.truncate(path, chance.randrange(size))
    else:
        data = bytearray(path.read_bytes())
        if kind == "bit flip":
            data[chance.randrange(size)] ^= 1 << chance.randrange(8)
        else:
            at = chance.randrange(size) // 4096 * 4096
            data[at : at + 4096] = bytes(len(data[at : at + 4096]))
        path.write_bytes(data)
    return kind


def _sha(run: Path) -> Any:
    return json.loads((run / "summary.json").read_text())["params_sha256"]


def _rows(run: Path) -> Any:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in lines]


def main() -> int:
    """Runs a campaign from the command line; exit code 1 where anything was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=200, help="at least this many (default: 200)")
    parser.add_argument("--processes", type=int, choices=(1, 2), default=1, help="of each run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keeps the runs that were lost")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        report = campaign(arguments.faults, arguments.processes, arguments.seed, folder)
    print(*report.losses, sep="\n", file=sys.stderr)
    print(json.dumps(vars(report) | {"losses": len(report.losses)}))
    return 1 if report.losses else 0


if __name__ == "__main__":
    raise SystemExit(main())
