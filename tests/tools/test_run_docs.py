"""tools/run_docs.py leaves nothing behind."""

import os
import subprocess
import time

import psutil
import pytest

from tools.run_docs import run


def test_commands_that_hang_are_ended_with_all_that_they_have_started(tmp_path):
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        run("sleep 60 & echo $! > pid; wait", tmp_path, os.environ, timeout=1)
    assert time.monotonic() - began < 30
    pid = int((tmp_path / "pid").read_text())

    def ended():
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    deadline = time.monotonic() + 20  # a signal is delivered when the machine has a moment
    while not ended() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ended()
