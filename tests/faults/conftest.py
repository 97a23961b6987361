"""Short runs in real processes, one finished one that many tests copy, and where they are hurt."""

import ipaddress
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from jaxdna.parallel.cluster import free_port
from tools.jobs import Job

# 8 epochs of 40 steps in calls of 4; about a second once everything is compiled.
SHORT = [
    "--config=configs/tal1.py",
    "--config.data.length=60",
    "--config.data.train_examples=1280",
    "--config.data.validation_examples=64",
    "--config.data.test_examples=64",
    "--config.train.epochs=8",
    "--config.train.steps_per_call=4",
    "--config.runtime.platform=cpu",
]
# Compiling takes a second or more then.
NO_CACHE = "--config.runtime.compilation_cache=off"


# libtpu, in tests that ran before, lets this process and all that it starts ignore SIGHUP; so does
# nohup. A terminal that the process is given becomes its own.
_AFRESH = """
import contextlib, fcntl, os, signal, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)
with contextlib.suppress(OSError):
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def afresh(*arguments: str) -> list[str]:
    """The command line of `jaxdna ARGUMENTS` as a shell in a terminal starts it."""
    return [sys.executable, "-c", _AFRESH, sys.executable, "-m", "jaxdna", *arguments]


@dataclass
class Runner:
    """Starts commands.

    Attributes:
      folder: of their logs.
      jobs: ends those that are still running when it is closed.
    """

    folder: Path
    jobs: ExitStack = field(default_factory=ExitStack)

    def start(
        self,
        *arguments: object,
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
    ) -> Job:
        """Starts `jaxdna ARGUMENTS` in the background."""
        self.folder.mkdir(exist_ok=True)
        log = self.folder / f"log-{len(list(self.folder.iterdir()))}.txt"
        job = Job([*map(str, arguments)], log, environment or {}, folder)
        return self.jobs.enter_context(job)

    def train(
        self, workdir: Path, *changes: object, environment: dict[str, str] | None = None
    ) -> Job:
        """Starts the short run in `workdir`."""
        return self.start(
            "train", *SHORT, *changes, f"--workdir={workdir}", environment=environment
        )

    def finish(
        self,
        workdir: Path,
        *changes: object,
        code: int = 0,
        environment: dict[str, str] | None = None,
    ) -> str:
        """Runs the short run to its end; returns its output."""
        with self.train(workdir, *changes, environment=environment) as job:
            assert job.end() == code, job.output
            return job.output


@dataclass
class Finished:
    """A run that nobody disturbed.

    Attributes:
      path: its folder; copy it before you change it.
      sha: of its parameters.
      modules: what its process had imported at the end.
    """

    path: Path
    sha: str
    modules: Sequence[str] = ()

    def copy(self, to: Path) -> Path:
        """Copies it without its summary, as a run that was killed just before the end."""
        shutil.copytree(self.path, to)
        (to / "summary.json").unlink()
        return to

    def assert_same(self, workdir: Path) -> None:
        """Holds that the run in `workdir` ended with the bits of this one."""
        assert sha(workdir) == self.sha
        assert rows(workdir) == rows(self.path)


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(tmp_path_factory.mktemp("faults") / "logs")


@pytest.fixture(autouse=True)
def _leaves_no_process_behind(runner: Runner) -> Iterator[None]:
    """Whether the test passes or fails."""
    yield
    runner.jobs.close()


@pytest.fixture(scope="session")
def finished(runner: Runner) -> Finished:
    path = runner.folder.parent / "finished"
    modules = runner.folder.parent / "modules"
    runner.finish(path, environment={"MODULES": str(modules)})
    return Finished(path, sha(path), modules.read_text().split())


def pair(
    runner: Runner,
    workdir: Path,
    *changes: object,
    only: Iterable[int] = (0, 1),
    heartbeat: int = 60,
    environment: dict[str, str] | None = None,
    **of_one: list[str],
) -> list[Job]:
    """Starts the short run as two processes, by hand, so that each can get flags of its own."""
    port = free_port()
    return [
        runner.train(
            workdir,
            *changes,
            f"--config.cluster.coordinator=127.0.0.1:{port}",
            "--config.cluster.processes=2",
            f"--config.cluster.process_id={i}",
            f"--config.cluster.heartbeat_seconds={heartbeat}",
            *of_one.get(f"process_{i}", ()),
            environment=environment,
        )
        for i in only
    ]


def assert_listen_on_loopback_only(processes: Iterable[psutil.Process]) -> None:
    """Holds it of all ports of the processes, and that there are some."""
    connections = [c for process in processes for c in process.net_connections("inet")]
    listening = [c.laddr for c in connections if c.status == psutil.CONN_LISTEN]
    assert listening
    for local in listening:
        address = ipaddress.ip_address(local.ip)
        assert (getattr(address, "ipv4_mapped", None) or address).is_loopback, listening


def a_moment_after_compiling(workdir: Path, seconds: float = 0.5) -> Callable[[Job], bool]:
    """Returns a condition: the first call of training steps was made `seconds` ago.

    TensorBoard's files are opened between compiling and that call; those that are there already
    are an earlier start's.
    """
    before, opened = set(workdir.glob("tensorboard/*/*")), []

    def holds(job: Job) -> bool:
        if not opened and set(workdir.glob("tensorboard/*/*")) > before:
            opened.append(time.monotonic())
        return bool(opened) and time.monotonic() - opened[0] > seconds

    return holds


def sha(workdir: Path) -> str:
    """The digest of the parameters of a finished run."""
    return json.loads((workdir / "summary.json").read_text())["params_sha256"]


def rows(workdir: Path) -> list[dict[str, float]]:
    """The metrics of a run without the seconds, which are nobody's promise."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]
