"""Disturbs runs in an emulated bucket again and again, and compares what they end with.

    python -m tools.bucket_campaign --faults=100 --seed=1 --folder=runs/buckets \\
      [--processes=2] [--store=s3]

Each run is started until it ends with 0. Every start meets some faults of the store (429 or 503,
answers cut off, slow answers, permission denied once), most are killed or stopped, at a random
moment or while an object of a checkpoint is on its way, and between two starts an object of the
newest checkpoint may be damaged. Parameters and metrics are compared with those of a run that
nobody touched. A traceback counts as a loss. What has hurt nobody is not counted. A dead job's lock
is watched for 6 s instead of 20.
"""

import argparse
import json
import random
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from jaxdna.parallel.cluster import free_port
from tools.jobs import Job
from tools.object_store import STORES, Fault, ObjectStore

SETTINGS = [
    "--config=configs/tal1.py", "--config.data.length=60", "--config.data.train_examples=1280",
    "--config.data.validation_examples=64", "--config.data.test_examples=64",
    "--config.train.epochs=8", "--config.train.steps_per_call=4", "--config.runtime.platform=cpu",
]  # fmt: skip
STORE_FAULTS = {
    "429": lambda store, chance: Fault(store.writes, status=429, times=chance.randint(1, 2)),
    "503": lambda store, chance: Fault("", status=503, times=chance.randint(1, 3)),
    "cut upload": lambda store, chance: Fault(store.writes, status=0, times=1),
    "cut download": lambda store, chance: Fault(store.reads, status=0, times=1),
    "slow": lambda store, chance: Fault("", seconds=chance.uniform(0.1, 1), times=5),
    "denied": lambda store, chance: Fault(store.writes, status=403, times=1),
}
LEGAL = {0, 1, 2, 70, 77, 78, 134, -signal.SIGKILL, -signal.SIGABRT}


def begin(store: ObjectStore, name: str, processes: int, logs: Path) -> list[Job]:
    """Starts the processes of a run."""
    port, cache = free_port(), f"--config.runtime.compilation_cache={logs / 'compiled'}"
    several = [
        f"--config.cluster.coordinator=127.0.0.1:{port}",
        f"--config.cluster.processes={processes}",
        "--config.cluster.start_seconds=60",
    ]
    return [
        Job(
            ["train", *SETTINGS, cache, f"--workdir={store.scheme}://bkt/{name}"]
            + ([*several, f"--config.cluster.process_id={i}"] if processes > 1 else []),
            logs / f"{name}-{i}.txt",
            store.environment | {"WATCH_SECONDS": "6"},
        )
        for i in range(processes)
    ]


def result(store: ObjectStore, name: str) -> tuple[str, list[dict[str, float]]]:
    """The digest of the parameters of a finished run, and its metrics."""
    files = store.objects(f"{name}/")
    rows = [json.loads(line) for line in files[f"{name}/metrics.jsonl"].splitlines()]
    summary = json.loads(files[f"{name}/summary.json"])
    metrics = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    return summary["params_sha256"], metrics


def damage(store: ObjectStore, name: str, chance: random.Random) -> bool:
    """Flips a bit of an object of the newest of several checkpoints."""
    saved: dict[int, list[str]] = {}
    found = store.objects(f"{name}/checkpoints/")
    for one in found:
        saved.setdefault(int(re.search(r"/epoch-(\d+)", one)[1]), []).append(one)  # type: ignore[index]
    whole = [e for e, names in saved.items() if any("manifest.json" in one for one in names)]
    if len(whole) < 2:
        return False
    one = chance.choice([one for one in saved[max(whole)] if found[one]])
    content = bytearray(found[one])
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    store.put(one, bytes(content))
    return True


def kill_in_mid_upload(store: ObjectStore, jobs: list[Job], epoch: int) -> bool:
    """Kills all while one of them writes to the checkpoint of an epoch; returns whether one did."""
    held = Fault(rf"(?=.*/epoch-{epoch}/){store.arrays}", seconds=2, times=1)
    store.faults.insert(0, held)
    jobs[0].until(lambda job: held.hits > 0, 600)
    for job in jobs:
        job.send(signal.SIGKILL)
    store.faults.remove(held)
    return held.hits > 0


def main() -> None:
    """Runs until there were enough faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--store", choices=STORES, default="gs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True, help="for logs")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    chance, made, starts, runs, lost = random.Random(given.seed), Counter[str](), 0, 0, 0
    with STORES[given.store]() as store:
        for job in begin(store, "untouched", given.processes, given.folder):
            assert job.end(600) == 0, job.output
        wanted = result(store, "untouched")
        while made.total() < given.faults:
            runs, name = runs + 1, f"run{runs}"
            for start in range(6):
                starts, last = starts + 1, start == 5
                kinds = [] if last else chance.choices(list(STORE_FAULTS), k=chance.randint(1, 4))
                faults = [STORE_FAULTS[kind](store, chance) for kind in kinds]
                store.faults[:] = faults
                jobs = begin(store, name, given.processes, given.folder)
                how = (
                    ""
                    if last
                    else chance.choice(["SIGKILL", "SIGTERM", "SIGKILL in mid-upload", ""])
                )
                if "upload" in how:
                    made[how] += kill_in_mid_upload(store, jobs, chance.randint(1, 7))
                elif how:
                    if chance.random() < 0.5:  # while it trains; else while it may still start
                        jobs[0].until(lambda job: "\nepoch " in job.output, 600)
                    time.sleep(chance.uniform(0, 6))
                    for job in jobs:
                        job.send(signal.Signals[how])
                    made[how] += 1
                codes = [job.end(900) for job in jobs]
                made.update(k for k, fault in zip(kinds, faults, strict=True) if fault.hits)
                store.faults.clear()
                said = "".join(job.output for job in jobs)
                if "Traceback" in said or not set(codes) <= LEGAL:
                    lost += 1
                    print(f"LOST {name}, start {start}: {codes}\n{said}", flush=True)
                if set(codes) == {0}:
                    break
                if chance.random() < 0.6 and damage(store, name, chance):
                    made["bit flip"] += 1
            if set(codes) != {0} or result(store, name) != wanted:
                lost += 1
                print(f"LOST {name}: {codes}, or other numbers\n{said}", flush=True)
            print(f"{runs} runs, {starts} starts, {made.total()} faults {dict(made)}, {lost} lost",
                  file=sys.stderr, flush=True)  # fmt: skip
    kinds_text = ", ".join(f"{count} {kind}" for kind, count in sorted(made.items()))
    print(
        f"{runs} runs, {starts} starts, {made.total()} faults ({kinds_text}), {lost} lost or wrong"
    )
    sys.exit(lost > 0)


if __name__ == "__main__":
    main()
