"""Runs N local processes of one command as one program, and ends them together."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple

from jaxdna.errors import EXIT_PEER, EXIT_PREEMPTED, EXIT_WATCHDOG

_POLL_SECONDS = 0.1
_TAIL_LINES = 15
# How a process ends that another one has left: told so by it, or aborted by jax.
_AFTER_ANOTHER = (EXIT_PEER, -signal.SIGABRT)


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
      The exit code of the last start.
    """
    idle, saved, pause = 0, progress(), _FIRST_PAUSE
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
        time.sleep(pause)
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

    Args:
      command: a verb and its flags.
      processes: how many processes.
      port: where process 0 coordinates them.
      logs: folder for `process-0.log` and so on.
      grace_seconds: how long the survivors of a failure may take.
      gpus: the one GPU that each process sees, as CUDA names them; all see all if empty.

    Returns:
      How it ended. Logs that are there already are continued.
    """
    logs.mkdir(parents=True, exist_ok=True)
    paths = [logs / f"process-{i}.log" for i in range(processes)]
    children = []
    relays = []
    for i, path in enumerate(paths):
        flags = {"coordinator": f"127.0.0.1:{port}", "processes": processes, "process_id": i}
        child = subprocess.Popen(
            [
                *(sys.executable, "-m", "jaxdna", *command),
                *(f"--config.cluster.{key}={value}" for key, value in flags.items()),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": gpus[i]} if gpus else None,
        )
        children.append(child)
        log = path.open("ab")
        for source, shown in ((child.stdout, sys.stdout), (child.stderr, sys.stderr)):
            assert source is not None
            relay = threading.Thread(
                target=_relay, args=(source, log, shown.buffer if i == 0 else None), daemon=True
            )
            relay.start()
            relays.append(relay)
    told, restore = _forward_signals(children)
    try:
        first = _wait(children, grace_seconds)
    finally:
        for child in children:
            child.kill()
            child.wait()
        restore()
        for relay in relays:
            relay.join(timeout=5)
    if first is None:
        return Ended(0, told.is_set())
    code = children[first].returncode
    code = 128 - code if code < 0 else code
    tail = paths[first].read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    print(
        f"jaxdna: process {first} of {processes} failed first, with exit code {code}; "
        f"its log {paths[first]} ends:",
        *(f"  {line}" for line in tail),
        sep="\n",
        file=sys.stderr,
    )
    return Ended(code, told.is_set())


def _relay(source: IO[bytes], log: IO[bytes], shown: IO[bytes] | None) -> None:
    for line in source:
        for sink in (log, shown):
            if sink:
                sink.write(line)
                sink.flush()


def _forward_signals(
    children: Sequence[subprocess.Popen[bytes]],
) -> tuple[threading.Event, Callable[[], None]]:
    """Hands SIGTERM and SIGINT on to all children.

    Returns:
      An event that says whether one came, and what puts the old handlers back.
    """
    told = threading.Event()

    def forward(number: int, frame: FrameType | None) -> None:
        told.set()
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    previous = {n: signal.signal(n, forward) for n in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    return told, restore


def _wait(children: Sequence[subprocess.Popen[bytes]], grace_seconds: float) -> int | None:
    """Waits for all; returns which child failed first, or None."""
    first, deadline, terminated = None, float("inf"), False
    running = [True]
    while any(running):
        running = [child.poll() is None for child in children]
        if first is None:
            # Of two that ended between two looks, one that only noticed the other is not the cause.
            failed = [i for i, child in enumerate(children) if child.returncode]
            failed.sort(key=lambda i: children[i].returncode in _AFTER_ANOTHER)
            if failed:
                first, deadline = failed[0], time.monotonic() + grace_seconds
        elif time.monotonic() > deadline:
            for child in children:
                if child.poll() is None:
                    child.kill() if terminated else child.terminate()
            terminated, deadline = True, time.monotonic() + grace_seconds
        time.sleep(_POLL_SECONDS)
    return first
