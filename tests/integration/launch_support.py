"""What the tests of real launches share: a short run, and a `jaxdna` command on the PATH."""

import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent

SHORT = [
    "--config=tal1",
    "--config.data.length=120",
    "--config.data.train_examples=640",
    "--config.data.validation_examples=100",
    "--config.data.test_examples=100",
    "--config.checkpoint.every_epochs=2",
]


def environment(folder: Path) -> dict[str, str]:
    """Puts the command into `folder`; returns variables with which a shell there finds it."""
    command = folder / "jaxdna"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m jaxdna "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}",
    }


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Looks ten times a second; returns whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def holds(path: Path, words: str) -> Callable[[], bool]:
    """Returns a condition: the file has `words`."""
    return lambda: path.exists() and words in path.read_text(errors="replace")
