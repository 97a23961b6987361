"""Row 2 of the table of faults, and more, for `jaxdna launch`: what it is told, and its own end."""

import os
import re
import signal
import subprocess
import time
from contextlib import contextmanager, suppress

import psutil
import pytest

from jaxdna.parallel.launcher import Ended, supervise
from jaxdna.storage.disk import DiskFolder
from jaxdna.training.positions import positions
from tests.faults.conftest import SHORT, afresh

# Only a stop saves.
LONG = ["--config.train.epochs=100000", "--config.checkpoint.every_epochs=1000000"]


@contextmanager
def launched(runner, workdir, *flags):
    """A launcher of two processes in a process group of its own, as a shell starts it.

    What is left of it is killed in the end.
    """
    launcher = psutil.Popen(
        afresh("launch", "--processes=2", *flags, "--", "train", *SHORT, *LONG,
               f"--workdir={workdir}"),
        stderr=subprocess.PIPE, text=True, process_group=0,
    )  # fmt: skip
    try:
        yield launcher
    finally:
        mark = f"--workdir={workdir}"  # also of processes that nobody is the parent of any more
        for process in psutil.process_iter(["cmdline"]):
            if mark in (process.info["cmdline"] or ()):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        launcher.stderr.close()
        launcher.wait()


def until_epoch_2(launcher):
    for line in launcher.stderr:
        if line.startswith("epoch 2/"):
            return launcher.children()
    raise AssertionError("the launch has ended")


def test_fault_02_one_ctrl_c_in_a_terminal_saves_all_processes(runner, tmp_path, capfd):
    """A terminal sends SIGINT to every process of the foreground group."""
    with launched(runner, tmp_path / "run") as launcher:
        until_epoch_2(launcher)
        os.killpg(launcher.pid, signal.SIGINT)
        errors = launcher.stderr.read()
        assert launcher.wait() == 78, errors
    log = (tmp_path / "run.logs" / "process-0.log").read_text()
    assert "[Gloo] Rank 0 is connected" in log and "[Gloo]" not in capfd.readouterr().out + errors
    assert "interrupted again" not in errors
    assert re.search(r"stopped by SIGINT after step \d+; the state is saved", errors)
    assert positions(DiskFolder(tmp_path / "run" / "checkpoints"))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGHUP, 78)]
)
def test_a_launcher_that_ends_lets_its_processes_save_first(runner, tmp_path, number, code):
    with launched(runner, tmp_path / "run") as launcher:
        children = until_epoch_2(launcher)
        assert len(children) == 2
        launcher.stderr.close()  # as a terminal that is closed
        launcher.send_signal(number)
        assert launcher.wait(60) == code
        assert not psutil.wait_procs(children, timeout=60)[1]
    log = (tmp_path / "run.logs" / "process-0.log").read_text()
    assert re.search(r"stopped by SIGTERM.* the state is saved", log) or number == signal.SIGKILL
    assert positions(DiskFolder(tmp_path / "run" / "checkpoints"))
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_while_the_launcher_starts_leaves_no_process_behind(runner, tmp_path, number):
    with launched(runner, tmp_path / "run") as launcher:
        while not (children := launcher.children()):  # the first of two, not always past its exec
            time.sleep(0.001)
        launcher.send_signal(number)
        errors = launcher.stderr.read()
        assert launcher.wait() != 0
        assert not psutil.wait_procs(children, timeout=60)[1]
    assert "Traceback" not in errors


def test_results_of_a_launch_for_which_there_is_no_room_are_one_sentence(tmp_path):
    command = ["launch", "--processes=1", f"--logs={tmp_path}", "--", "simulate", "--list"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(afresh(*command), stdout=full, stderr=subprocess.PIPE, text=True)
    sentence = "jaxdna: stdout cannot be written (No space left on device)\n"
    assert (done.returncode, done.stderr) == (1, sentence)
    assert "TAL1_known4" in (tmp_path / "process-0.log").read_text()


def test_fault_28_signals_to_the_very_end_leave_a_launch_that_has_saved(runner, tmp_path):
    with launched(runner, tmp_path / "run") as launcher:
        until_epoch_2(launcher)
        while launcher.poll() is None:
            launcher.terminate()
            time.sleep(0.01)
        errors = launcher.stderr.read()
    assert launcher.returncode == 78, errors
    assert re.search(r"stopped by SIGTERM .* after step \d+; the state is saved", errors)


def test_fault_28_a_signal_between_two_starts_ends_the_launch_with_78(runner, tmp_path):
    with launched(runner, tmp_path / "run", "--max-restarts=3") as launcher:
        while len(children := launcher.children()) < 2:
            time.sleep(0.01)
        for child in children:
            child.kill()
        assert any("restart 1 of 3 in 1 s" in line for line in launcher.stderr)
        launcher.terminate()
        errors = launcher.stderr.read()
        assert launcher.wait() == 78, errors


@pytest.fixture
def own_signals():
    """The handlers of this process are after a test as they were before."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


def test_once_it_is_known_how_a_launch_ended_no_signal_changes_that(own_signals):
    assert supervise(lambda: Ended(78, told=True), 9, list) == 78
    for number in own_signals:
        os.kill(os.getpid(), number)
        assert signal.getsignal(number) == signal.SIG_IGN


def test_the_launcher_gives_up_where_there_is_no_progress(own_signals):
    starts = []

    def start():
        starts.append(75)
        return Ended(75, told=False)

    assert supervise(start, 9, lambda: "nothing new") == 75
    assert len(starts) == 2
    assert supervise(lambda: Ended(2, told=False), 9, list) == 2
    assert supervise(lambda: Ended(78, told=True), 9, list) == 78
