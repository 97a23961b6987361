"""The faults of the campaign: what each does to the processes of a run, or to its folder."""

import errno
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tools.jobs import Job
from tools.lossy_disk import LossyDisk

CALLS = ("write", "fsync", "rename", "close", "open", "unlink")
_FINISHED = "summary.json"


@dataclass
class Scene:
    """One start of a run, and what it may be hurt with.

    Attributes:
      run: the run folder.
      moment: seconds after the start at which it is hurt.
      chance: decides the rest.
      disk: what the run folder lies on, if its power can be cut.
      another: starts another job in the same folder.
      jobs: the processes of the run, and others that the fault has started.
      saved: the checkpoints that were to be seen when the power was cut.
      done: whether the fault has come in time.
      fallen: processes that were killed, whose words nobody has to answer for.
    """

    run: Path
    moment: float
    chance: random.Random
    disk: LossyDisk | None
    another: Callable[[], Job]
    jobs: list[Job] = field(default_factory=list)
    saved: list[tuple[int, ...]] = field(default_factory=list)
    done: bool = False
    fallen: bool = False

    def one(self) -> Job:
        """Returns any of the processes."""
        return self.chance.choice(self.jobs)


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
      legal: exit codes that it explains.
      hurt: does it; None where the environment does it.
      environment: of the processes of the run.
      changes: flags that the second process is given.
      after: puts in order what a person would, and returns what is wrong, if something is.
    """

    legal: frozenset[int]
    hurt: Callable[[Scene], None] | None = None
    environment: Callable[[Scene], Mapping[str, str]] = lambda scene: {}
    changes: tuple[str, ...] = ()
    after: Callable[[Scene], str | None] = lambda scene: None


def _signals(*numbers: int) -> Callable[[Scene], None]:
    """One signal to one of the processes, then the others to any, each a little later."""

    def hurt(scene: Scene) -> None:
        time.sleep(scene.moment)
        for number in numbers:
            scene.one().send(number)
            scene.done, scene.fallen = True, number == signal.SIGKILL
            time.sleep(scene.chance.uniform(0, 1.5) if len(numbers) > 1 else 0)

    return hurt


def _cut_the_power(scene: Scene) -> None:
    time.sleep(scene.moment)
    _fail(scene)


def _cut_the_power_after_the_end(scene: Scene) -> None:
    for job in scene.jobs:
        job.end(300)
    time.sleep(scene.chance.uniform(0, 0.5))
    _fail(scene)


def _fail(scene: Scene) -> None:
    assert scene.disk
    scene.saved = _saved(scene.run)
    scene.disk.fail()
    for job in scene.jobs:
        job.send(signal.SIGKILL)
    scene.done = scene.fallen = True


def _restore_power(scene: Scene) -> str | None:
    """Of two checkpoints that are to be seen, the save of the older one had returned."""
    assert scene.disk
    scene.disk.start_again()
    before, after = scene.saved, _saved(scene.run)
    if len(before) > 1 and (not after or after[-1] < before[-2]):
        return f"of the checkpoints {before} the power cut left {after}"
    return None


def _saved(run: Path) -> list[tuple[int, ...]]:
    """The positions of the checkpoints, in order."""
    folder = run / "checkpoints"
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted(tuple(map(int, re.findall("[0-9]+", n))) for n in names if "." not in n)


def _wait_for_the_folder(scene: Scene) -> None:
    """Until the folder is this start's own, and for a random part of the rest."""

    def owned(job: Job) -> bool:
        with suppress(OSError):
            owner = f'"pid": {job.pid},'
            return owner in (scene.run / ".lock").read_text(errors="replace")
        return False

    if scene.jobs[0].until(owned):
        time.sleep(scene.chance.uniform(0, 0.5) * scene.moment)


def _move(scene: Scene) -> None:
    _wait_for_the_folder(scene)
    away = scene.run.with_name(scene.run.name + ".away")
    if (scene.run / "config.json").exists() and not (scene.run / _FINISHED).exists():
        scene.run.rename(away)
        scene.done = True


def _move_back(scene: Scene) -> str | None:
    away = scene.run.with_name(scene.run.name + ".away")
    if not scene.done:
        return None
    left = sorted(path.relative_to(scene.run) for path in scene.run.rglob("*"))
    if left and (away / "config.json").exists():
        return f"made anew where the folder was: {', '.join(map(str, left))}"
    shutil.rmtree(scene.run, ignore_errors=True)
    away.rename(scene.run)
    return None


def _stop_the_holder(scene: Scene) -> None:
    """Where there is no flock: another job takes over, and the first one comes back."""
    _wait_for_the_folder(scene)
    (holder,) = scene.jobs
    if not (scene.run / ".lock").exists() or (scene.run / _FINISHED).exists():
        return
    holder.send(signal.SIGSTOP)
    scene.done = True
    winner = scene.another()
    scene.jobs.append(winner)
    if winner.until(lambda job: "taking over the run folder" in job.output):
        time.sleep(scene.chance.uniform(0, 1) * scene.moment)
    holder.send(signal.SIGCONT)


def _failing(call: str, scene: Scene) -> Mapping[str, str]:
    """Few calls are as likely as many: the first ones are of other files than the later ones."""
    codes = {"write": (errno.EIO, errno.ENOSPC), "open": (errno.EIO, errno.EMFILE)}
    settings = {
        "FAIL_CALL": call,
        "FAIL_AT": str(int(10 ** scene.chance.uniform(0, 2.3))),
        "FAIL_ERRNO": str(scene.chance.choice(codes.get(call, (errno.EIO,)))),
        "FAIL_BELOW": str(scene.run),
    }
    return settings | ({"FAIL_LAST": "1"} if scene.chance.random() < 0.5 else {})


def _failed(scene: Scene) -> str | None:
    scene.done = any("FAILING: " in job.output for job in scene.jobs)
    return None


def _refused(scene: Scene) -> str | None:
    scene.done = True
    said = any("seed" in job.output for job in scene.jobs)
    return None if said else "nothing said of the seed"


# A killed process leaves 70 or SIGABRT to the other one of two; a stop comes too late for 78 once
# the last parameters are saved. One of two that finds out by itself that its settings are not those
# of the folder ends before it has joined, and is waited for.
_PEERS = {70, -signal.SIGABRT}
KINDS: dict[str, Kind] = {
    "kill": Kind(frozenset({-signal.SIGKILL, 0} | _PEERS), _signals(signal.SIGKILL)),
    "stop": Kind(frozenset({78, 0}), _signals(signal.SIGTERM)),
    "interrupt": Kind(frozenset({78, 0}), _signals(signal.SIGINT)),
    "second signal": Kind(frozenset({78, 0}), _signals(signal.SIGTERM, signal.SIGTERM)),
    "moved folder": Kind(frozenset({0, 1, 2} | _PEERS), _move, after=_move_back),
    "power cut": Kind(
        frozenset({-signal.SIGKILL, 0, 1} | _PEERS), _cut_the_power, after=_restore_power
    ),
    "power cut after the end": Kind(
        frozenset({0}), _cut_the_power_after_the_end, after=_restore_power
    ),
    "stopped lock holder": Kind(
        frozenset({0, 2}), _stop_the_holder, environment=lambda scene: {"FAIL_FLOCK": "1"}
    ),
    "disagreeing processes": Kind(frozenset({2, 70}), changes=("--config.seed=1",), after=_refused),
} | {
    # Where nothing can be read any more there is no checkpoint to go on from.
    f"failing {call}": Kind(
        frozenset({0, 1, 2, 77} if call in ("open", "close") else {0, 1, 2}) | _PEERS,
        environment=lambda scene, call=call: _failing(call, scene),  # type: ignore[misc]
        after=_failed,
    )
    for call in CALLS
}


def damage(run: Path, chance: random.Random) -> str | None:
    """Damages one file of the newest of several checkpoints, or one that is no checkpoint's."""
    checkpoints = (run / "checkpoints").glob("epoch-*")
    whole = sorted(
        (path for path in checkpoints if not path.suffix),
        key=lambda path: [int(number) for number in re.findall("[0-9]+", path.name)],
    )
    # A finished run writes its files no more: what becomes of them is no fault of training.
    others = ["metrics.jsonl", "data.json"] * (not (run / _FINISHED).exists())
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
