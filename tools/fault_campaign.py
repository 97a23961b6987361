"""Disturbs short runs at random, and compares each with one that nobody touched.

python tools/fault_campaign.py --faults=200               one process per run
python tools/fault_campaign.py --faults=40 --processes=2  two processes per run

A run is a folder. It is started again and again: each start is disturbed in one way
(`fault_kinds.py`: killed, stopped, its power cut, its folder moved, one of its system calls made to
fail, ...), and between two starts files of the newest checkpoint, or of the run folder, are
damaged. The last start is left alone. Lost is a run that ends with other parameters or other
metrics than the untouched one, with an exit code that the fault does not explain, with a traceback,
or not at all.

With --folder the campaign is kept there: given again, it goes on until --faults are done. Power is
cut where this is root and the kernel mounts an ext4 file system; calls fail where there is a `cc`.
"""

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from jaxdna.parallel.cluster import free_port
from tools.fault_kinds import KINDS, Kind, Scene, damage
from tools.jobs import Job, failing_calls
from tools.lossy_disk import LossyDisk

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
    "--config.cluster.start_seconds=120",
]
FAULTS_PER_RUN = 5
_RARE = {
    "stopped lock holder": 0.1
}  # it takes the other job 20 s to believe that the first is dead
_UNHURT = Kind(frozenset({0}))


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


def possible_kinds(processes: int, disk: LossyDisk | None) -> list[str]:
    """Returns the kinds of faults that can be done here to runs of so many processes."""
    impossible = {"disagreeing processes"} if processes == 1 else {"stopped lock holder"}
    if disk is None:
        impossible |= {kind for kind in KINDS if kind.startswith("power cut")}
    if failing_calls() is None:
        impossible |= {kind for kind in KINDS if kind.startswith("failing")}
        impossible.add("stopped lock holder")
    return sorted(KINDS.keys() - impossible)


def campaign(
    faults: int, processes: int, seed: int, folder: Path, kinds: Sequence[str] = ()
) -> Report:
    """Runs a campaign, or goes on with the one in `folder`.

    Args:
      faults: how many to do at least.
      processes: of each run, 1 or 2.
      seed: decides, with the number of a run, what is done when; the machine decides what it hits.
      folder: where the runs go; those that were not lost are removed.
      kinds: only these; all if empty; those that cannot be done here are left out.

    Returns:
      The figures.
    """
    kept, begin = folder / "campaign.json", time.monotonic()
    report = Report(**json.loads(kept.read_text())) if kept.exists() else Report()
    report.faults, before = Counter(report.faults), report.seconds
    with ExitStack() as stack:
        disk = None
        with suppress(OSError):
            disk = stack.enter_context(LossyDisk(folder))
        possible = possible_kinds(processes, disk)
        wanted = [kind for kind in possible if kind in kinds or not kinds]
        place = _Place(folder, processes, disk, wanted)
        for _ in range(2):  # the first one compiles for all
            shutil.rmtree(place.reference, ignore_errors=True)
            start = time.monotonic()
            scene = place.scene(place.reference, random.Random(0), 0)
            codes, output = place.start(scene, _UNHURT)
            if set(codes) != {0}:
                raise RuntimeError(f"the untouched run ended with {codes}:\n{output}")
            place.seconds = time.monotonic() - start
        while report.faults.total() < faults:
            run = (disk.path if disk else folder) / f"run-{report.runs}"
            shutil.rmtree(run, ignore_errors=True)  # of a campaign that was ended in its midst
            loss = _one_run(run, place, random.Random(f"{seed}-{report.runs}"), report)
            report.runs += 1
            if loss:
                report.losses.append(f"{run.name}: {loss}")
            if loss and disk:
                with suppress(OSError):
                    shutil.copytree(run, folder / run.name, symlinks=True, dirs_exist_ok=True)
            if disk or not loss:
                shutil.rmtree(run, ignore_errors=True)
            report.seconds = before + time.monotonic() - begin
            kept.write_text(json.dumps(vars(report)))
            print(report.show(), file=sys.stderr, flush=True)
    return report


@dataclass
class _Place:
    """Where the runs of a campaign are started, and with what.

    Attributes:
      folder: of logs and compiled programs.
      processes: of each run.
      disk: that the runs lie on, if its power can be cut.
      kinds: of faults.
      seconds: that the untouched run takes.
    """

    folder: Path
    processes: int
    disk: LossyDisk | None
    kinds: Sequence[str]
    seconds: float = 0.0

    @property
    def reference(self) -> Path:
        return self.folder / "reference"

    def scene(self, run: Path, chance: random.Random, moment: float) -> Scene:
        return Scene(
            run, moment, chance, self.disk, lambda: self.job(run, "other", (), {"FAIL_FLOCK": "1"})
        )

    def job(
        self, run: Path, name: str, flags: Sequence[str], environment: Mapping[str, str]
    ) -> Job:
        cache = f"--config.runtime.compilation_cache={self.folder / 'compiled'}"
        command = ["train", *CONFIG, cache, f"--workdir={run}", *flags]
        return Job(command, self.folder / f"{name}.log", environment)

    def start(self, scene: Scene, kind: Kind) -> tuple[list[int], str]:
        """Starts the processes of a run, hurts them, and returns their exit codes and output."""
        environment, port = kind.environment(scene), free_port()
        several = [
            f"--config.cluster.coordinator=127.0.0.1:{port}",
            f"--config.cluster.processes={self.processes}",
        ] * (self.processes > 1)
        try:
            for i in range(self.processes):
                own = [f"--config.cluster.process_id={i}", *(kind.changes if i else ())]
                flags = [*several, *own]
                scene.jobs.append(self.job(scene.run, f"process-{i}", flags, environment))
            if kind.hurt:
                kind.hurt(scene)
            codes = [job.end(300) for job in scene.jobs]
            return codes, "\n".join(job.output for job in scene.jobs)
        finally:
            for job in scene.jobs:
                job.__exit__()


def _one_run(run: Path, place: _Place, chance: random.Random, report: Report) -> str | None:
    """Starts one run until nothing is left to do to it; returns how it was lost."""
    weights = [_RARE.get(kind, 1.0) for kind in place.kinds]
    hurt = chance.choices(place.kinds, weights, k=chance.randint(1, FAULTS_PER_RUN))
    cut = False
    for name in [*hurt, None]:
        kind = KINDS[name] if name else _UNHURT
        scene = place.scene(run, chance, chance.uniform(0.1, 1.0) * place.seconds)
        try:
            codes, output = place.start(scene, kind)
        except TimeoutError as error:
            codes, output = [], f"no end: {error}"
        wrong = kind.after(scene)
        report.starts += 1
        report.resumes += "resuming after" in output
        report.fallbacks += "falling back" in output
        legal = set(kind.legal)
        if (run / "summary.json").exists():
            # All is written: a process ends as any other does, and has no need of the others.
            legal |= {
                "stop": {-signal.SIGTERM},
                "second signal": {-signal.SIGTERM},
                "disagreeing processes": {0},
            }.get(name or "", set())
        if not codes or not set(codes) <= legal:
            return f"exit codes {codes} after {name}:\n{output}"
        if not scene.fallen and ("Traceback" in output or "Exception ignored" in output):
            return f"a traceback after {name}:\n{output}"
        # What cannot be read in this start says nothing of what the cut has left.
        if cut and "DAMAGED" in output and not (name or "").startswith("failing"):
            return f"a checkpoint that the power cut has damaged:\n{output}"
        if wrong:
            return f"after {name}: {wrong}:\n{output}"
        cut = bool(name and name.startswith("power cut"))
        if name and scene.done:
            report.faults[name] += 1
            if not cut and chance.random() < 0.5:
                damaged = damage(run, chance)
                report.faults.update([damaged] if damaged else [])
    for name, read in (("parameters", _sha), ("metrics", _rows)):
        if read(run) != read(place.reference):
            return f"the {name} differ from those of the untouched run"
    return None


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
    parser.add_argument("--kinds", help=f"some of: {', '.join(KINDS)}")
    parser.add_argument("--folder", type=Path, help="keeps the campaign, and the runs it has lost")
    arguments = parser.parse_args()
    kinds = [kind.strip() for kind in (arguments.kinds or "").split(",") if kind.strip()]
    if unknown := set(kinds) - KINDS.keys():
        parser.error(f"--kinds: unknown: {', '.join(unknown)}; legal: {', '.join(KINDS)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        report = campaign(arguments.faults, arguments.processes, arguments.seed, folder, kinds)
    print(*report.losses, sep="\n", file=sys.stderr)
    print(json.dumps(vars(report) | {"losses": len(report.losses)}))
    return 1 if report.losses else 0


if __name__ == "__main__":
    raise SystemExit(main())
