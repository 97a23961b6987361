"""Runs N local processes of one command as one program, and ends them together."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from jaxdna.errors import (
    EXIT_PEER,
    EXIT_PREEMPTED,
    EXIT_WATCHDOG,
    JaxdnaError,
    StorageError,
    UserError,
    unheard,
)

_POLL_SECONDS = 0.1
_CHATTER = "[Gloo] "  # who is connected: for the log, and no result
_TAIL_LINES = 15
# How a process ends that another one has left: told so by it, or aborted by jax.
_AFTER_ANOTHER = (EXIT_PEER, -signal.SIGABRT)
# What a terminal or a supervisor says to a program; here it is meant for all processes of it.
_FOR_ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
# A process that has loaded libtpu ignores SIGHUP from then on.
_HANDED_ON_AS = {signal.SIGHUP: signal.SIGTERM}
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

# What another start can mend: a lost peer, a hang, a preemption, a signal (128 + n).
_WORTH_A_RESTART = (EXIT_PEER, EXIT_WATCHDOG, EXIT_PREEMPTED, *range(129, 160))
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds, doubled from restart to restart
_STARTS_WITHOUT_PROGRESS = 2


class Ended(NamedTuple):
    """How a launch ended.

    Attributes:
      code: 0, or the exit code of the process that failed first (128 + n for signal n).
      told: whether this process was asked to stop.
    """

    code: int
    told: bool


def supervise(start: Callable[[], Ended], restarts: int, progress: Callable[[], object]) -> int:
    """Starts a run again where that can help: after a lost peer, a hang, a preemption or a kill.

    Args:
      start: runs to the end of the run, whatever that is.
      restarts: how often it may be started again.
      progress: a value that changes whenever something new was saved; where two starts in a row
        leave it as it was, another one would end as they did.

    Returns:
      The exit code of the last start; 78 where a signal comes between two of them.
    """
    idle, saved, pause = 0, progress(), _FIRST_PAUSE
    with _hearing(to_the_end=True) as heard:  # while no start does
        for restart in range(1, restarts + 1):
            ended = start()
            if ended.told or ended.code not in _WORTH_A_RESTART:
                return ended.code
            before, saved = saved, progress()
            if saved != before:
                idle, pause = 0, _FIRST_PAUSE
            else:
                idle += 1
            if idle == _STARTS_WITHOUT_PROGRESS:
                _say(f"exit code {ended.code} and no progress in {idle} starts: giving up")
                return ended.code
            _say(f"exit code {ended.code}: restart {restart} of {restarts} in {pause:g} s")
            over = time.monotonic() + pause
            while not heard and time.monotonic() < over:
                time.sleep(_POLL_SECONDS)
            if heard:
                _say(f"{heard[0].name}: stopping before that restart; the same command resumes")
                return EXIT_PREEMPTED
            pause = min(2 * pause, _LONGEST_PAUSE)
        return start().code


def _say(text: str) -> None:
    print(f"jaxdna: {text}", file=sys.stderr, flush=True)


def launch(
    command: Sequence[str],
    processes: int,
    port: int,
    logs: Path,
    grace_seconds: float,
    gpus: Sequence[str] = (),
) -> Ended:
    """Runs `jaxdna COMMAND` in several processes that find each other over the loopback interface.

    Process 0's output is shown as it comes; each process has a log of its own. When one fails, the
    others get `grace_seconds` to end by themselves; then they are terminated, and killed.

    Each process has a process group of its own: a terminal's Ctrl-C reaches this one, which hands
    it on, so that each of them hears it once.

    Args:
      command: a verb and its flags.
      processes: how many processes.
      port: where process 0 coordinates them.
      logs: folder for `process-0.log` and so on.
      grace_seconds: how long the survivors of a failure may take.
      gpus: the one GPU that each process sees, as CUDA names them; all see all if empty.

    Returns:
      How it ended. Logs that are there already are continued.

    Raises:
      UserError: the logs cannot be written.
      StorageError: all processes ended well, and stdout could not take what process 0 wrote.
      JaxdnaError: the system starts no more processes.
    """
    paths = [logs / f"process-{i}.log" for i in range(processes)]
    files = _open_logs(logs, paths)
    children: list[subprocess.Popen[bytes]] = []
    relays: list[threading.Thread] = []
    full: list[StorageError] = []
    with _hearing() as heard:  # from before the first one on: none is left to itself by a signal
        try:
            for i, log in enumerate(files):
                flags = {
                    "coordinator": f"127.0.0.1:{port}",
                    "processes": processes,
                    "process_id": i,
                }
                cluster = [f"--config.cluster.{key}={value}" for key, value in flags.items()]
                children.append(_start([*command, *cluster], gpus[i] if gpus else None))
                relays += _relays(children[i], log, full, shown=i == 0)
            first = _wait(children, grace_seconds, heard)
        except OSError as error:
            raise JaxdnaError(
                f"process {len(children)} of {processes} cannot be started ({error.strerror})"
            ) from error
        finally:
            for child in children:
                child.kill()
                child.wait()
            for relay in relays:
                relay.join(timeout=5)
    if first is None:
        if full:
            raise full[0]
        return Ended(0, bool(heard))
    code = children[first].returncode
    code = 128 - code if code < 0 else code
    lines = paths[first].read_text(errors="replace").splitlines()
    tail = [line for line in lines if not line.startswith(_CHATTER)][-_TAIL_LINES:]
    print(
        f"jaxdna: process {first} of {processes} failed first, with exit code {code}; "
        f"its log {paths[first]} ends:",
        *(f"  {line}" for line in tail),
        sep="\n",
        file=sys.stderr,
    )
    return Ended(code, bool(heard))


def _open_logs(folder: Path, paths: Sequence[Path]) -> list[IO[bytes]]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [path.open("ab", buffering=0) for path in paths]
    except OSError as error:
        raise UserError(
            f"--logs={folder} cannot be written ({error.strerror}); give another folder"
        ) from error


def _start(arguments: Sequence[str], gpu: str | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "jaxdna", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=None if gpu is None else {**os.environ, "CUDA_VISIBLE_DEVICES": gpu},
        process_group=0,
        preexec_fn=partial(_end_with, os.getpid()) if sys.platform == "linux" else None,
    )


def _end_with(launcher: int) -> None:
    """Asks the kernel for a SIGTERM when the launcher dies; runs in the process, before its own."""
    if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the launcher's handler would swallow it
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != launcher:  # it has died already: the kernel tells nobody
        os._exit(EXIT_PEER)


def _relays(
    child: subprocess.Popen[bytes], log: IO[bytes], full: list[StorageError], shown: bool
) -> Iterator[threading.Thread]:
    """Starts the two threads that copy what a process writes; see `_relay`."""
    for source, ours in ((child.stdout, sys.stdout), (child.stderr, sys.stderr)):
        relay = threading.Thread(
            target=_relay, args=(source, log, ours.buffer if shown else None, full), daemon=True
        )
        relay.start()
        yield relay


def _relay(
    source: IO[bytes], log: IO[bytes], ours: IO[bytes] | None, full: list[StorageError]
) -> None:
    """Copies to a log and, but for chatter, to one of our streams.

    What keeps results from stdout is added to `full`.
    """
    sinks = [sink for sink in (log, ours) if sink]
    for line in source:
        for sink in tuple(sinks):
            if sink is ours and line.startswith(_CHATTER.encode()):
                continue
            try:
                sink.write(line)
                sink.flush()
            except (OSError, StorageError) as error:
                # Full, or nobody reads it any more: the process must not wait for it.
                sinks.remove(sink)
                unheard(sink)
                if isinstance(error, StorageError):
                    full.append(error)


@contextmanager
def _hearing(to_the_end: bool = False) -> Iterator[list[signal.Signals]]:
    """Gives a list to which the signals that are meant for all are added as they come.

    Args:
      to_the_end: whether signals change nothing afterwards either, since the process ends.
    """
    heard: list[signal.Signals] = []
    # What is ignored (nohup) stays ignored, here and in the processes, which inherit that.
    numbers = [n for n in _FOR_ALL if signal.getsignal(n) != signal.SIG_IGN]
    previous = {
        n: signal.signal(n, lambda number, _: heard.append(signal.Signals(number))) for n in numbers
    }
    try:
        yield heard
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_IGN if to_the_end else handler)


def _wait(
    children: Sequence[subprocess.Popen[bytes]],
    grace_seconds: float,
    heard: Sequence[signal.Signals],
) -> int | None:
    """Waits for all and hands on what is heard; returns which child failed first, or None.

    One that only followed another is the first cause only where no other kind of failure is found:
    process 0 stays a moment longer than those that it tells of its own.
    """
    failed: list[int] = []  # in the order in which they were seen, until we end them ourselves
    handed, deadline, terminated = 0, float("inf"), False
    running = list(children)
    while running:
        time.sleep(_POLL_SECONDS)
        while handed < len(heard):
            for child in running:
                child.send_signal(_HANDED_ON_AS.get(heard[handed], heard[handed]))
            handed += 1
        running = [child for child in children if child.poll() is None]
        if not terminated:
            seen = [i for i, child in enumerate(children) if child.returncode]
            failed += [i for i in seen if i not in failed]
        if failed and deadline == float("inf"):
            deadline = time.monotonic() + grace_seconds
        elif time.monotonic() > deadline:
            for child in running:
                child.kill() if terminated else child.terminate()
            terminated, deadline = True, time.monotonic() + grace_seconds
    return min(failed, key=lambda i: children[i].returncode in _AFTER_ANOTHER, default=None)
