"""Row 16 of the table of faults: two jobs in one run folder."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from unittest import mock

import pytest

from jaxdna.console import loud, make_console
from jaxdna.errors import UserError
from jaxdna.runs.run_folder import RunFolder
from jaxdna.storage import run_lock
from jaxdna.storage.run_lock import RunLock


def test_fault_16_the_second_job_refuses_names_the_holder_and_harms_nothing(
    runner, finished, tmp_path
):
    workdir = tmp_path / "run"
    with runner.train(workdir) as first:
        assert first.until(
            lambda _: (workdir / ".lock").exists() and (workdir / ".lock").read_text()
        )
        output = runner.finish(workdir, code=2)
        assert f"--workdir={workdir} is in use by process {first.pid} on " in output
        assert first.end() == 0, first.output
    finished.assert_same(workdir)
    assert not (workdir / ".lock").exists()


def test_fault_16_the_lock_of_a_killed_job_is_taken_over_at_once(runner, finished, tmp_path):
    workdir = tmp_path / "run"
    with runner.train(workdir) as job:
        assert job.until(lambda job: "\nepoch 2/" in job.output)
        job.send(signal.SIGKILL)
        job.end()
    assert json.loads((workdir / ".lock").read_text())["pid"] == job.pid
    output = runner.finish(workdir)
    assert f"taking over the run folder from process {job.pid} on" in output
    finished.assert_same(workdir)


def foreign(path, **changes):
    """Writes the lock of a job on another machine."""
    holder = {"host": "elsewhere", "pid": 7, "started": "2026-01-01 00:00:00", "boot": "other"}
    path.write_text(json.dumps(holder | changes) + "\n")


def test_fault_16_a_lock_of_another_machine_is_watched(tmp_path, monkeypatch):
    """Its holder lives as long as the file changes; the kernel knows nothing of it."""
    monkeypatch.setattr(run_lock, "WATCH_SECONDS", 2.0)
    path, notes = tmp_path / ".lock", []
    foreign(path)
    renewing = threading.Timer(0.2, path.write_bytes, [path.read_bytes() + b" "])
    with pytest.raises(UserError, match="in use by process 7 on elsewhere, started 2026-01-01"):
        RunLock(path).take(lambda note: renewing.start())  # it is watched from here on
    renewing.join()
    start = time.monotonic()
    lock = RunLock(path)
    lock.take(notes.append)
    assert time.monotonic() - start >= 2
    assert "taking over the run folder from process 7 on elsewhere" in notes[-1]
    lock.release()
    assert not path.exists()


@pytest.mark.parametrize("kernel", [True, False])
def test_fault_30_a_holder_that_was_stopped_for_long_has_lost_and_removes_nothing(
    tmp_path, monkeypatch, kernel
):
    """It cannot know while it is stopped; when it comes back it must look before it writes."""
    monkeypatch.setattr(run_lock, "WATCH_SECONDS", 0.6)
    if not kernel:  # a file system without flock
        refused = OSError(errno.ENOLCK, "No locks available")
        monkeypatch.setattr(fcntl, "flock", mock.Mock(side_effect=refused))
    run = RunFolder(tmp_path / "run")
    with run.locked(print) as lock:
        run.files.write("config.json", "mine")
        winner = RunLock(tmp_path / "run" / ".lock")
        if kernel:  # another machine, to which the lock does not travel
            winner = RunLock(tmp_path / "run" / "other")
        winner.take(print)
        if kernel:
            (tmp_path / "run" / "other").rename(tmp_path / "run" / ".lock")
        theirs = (tmp_path / "run" / ".lock").read_bytes()
        lock.renew()
        with pytest.raises(UserError, match=r"has lost the folder's lock to process \d+ on"):
            run.files.write("config.json", "the loser's")
    assert (tmp_path / "run" / ".lock").read_bytes() == theirs
    assert (tmp_path / "run" / "config.json").read_text() == "mine"
    assert run.files.names() == [".lock", "config.json"]


def test_fault_30_of_two_that_take_a_free_lock_without_the_kernel_one_writes(tmp_path, monkeypatch):
    refused = OSError(errno.ENOLCK, "No locks available")
    monkeypatch.setattr(fcntl, "flock", mock.Mock(side_effect=refused))
    (tmp_path / ".lock").touch()  # both have made the file, and neither has written its name
    first, second = RunLock(tmp_path / ".lock"), RunLock(tmp_path / ".lock")
    monkeypatch.setattr(run_lock, "_read", lambda handle: b"")
    first.take(print)
    second.take(print)
    second.check()
    with pytest.raises(UserError, match="lost the folder's lock"):
        first.check()
    first.release()
    second.check()
    second.release()
    assert not (tmp_path / ".lock").exists()


def test_fault_16_a_lock_that_is_released_while_it_is_watched_is_free(tmp_path):
    path = tmp_path / ".lock"
    foreign(path)
    releasing = threading.Timer(0.2, path.unlink)
    lock = RunLock(path)
    lock.take(lambda note: releasing.start())
    assert json.loads(path.read_text())["pid"] == os.getpid()
    lock.release()


@pytest.mark.parametrize("content", [b"\xff\x00", b"[" * 9_000, b'{"pid": "\\u001b[31m"}', b"null"])
def test_fault_16_a_garbled_lock_is_a_dead_one(tmp_path, monkeypatch, capsys, content):
    monkeypatch.setattr(run_lock, "WATCH_SECONDS", 0.5)
    path = tmp_path / ".lock"
    path.write_bytes(content)
    lock = RunLock(path)
    lock.take(loud(make_console()))
    shown = capsys.readouterr().err
    assert "taking over" in shown
    assert "\x1b" not in shown
    before = path.read_bytes()
    lock.renew()
    assert path.read_bytes() != before
    lock.release()


def test_the_holder_s_name_is_cut_and_shown_as_all_text_of_strangers_is(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(run_lock, "WATCH_SECONDS", 0.5)
    foreign(tmp_path / ".lock", host="a\x1b[1m" + "b" * 200)
    lock = RunLock(tmp_path / ".lock")
    lock.take(loud(make_console()))
    assert rf"process 7 on a\x1b[1m{'b' * 75}, started" in " ".join(capsys.readouterr().err.split())
    lock.release()


@pytest.mark.parametrize("back", [True, False])
def test_a_folder_that_was_lost_leaves_its_lock_free(tmp_path, back):
    """Moved away meanwhile, and perhaps moved back; the same process trains there again."""
    run, moved = RunFolder(tmp_path / "run"), tmp_path / "moved"
    with run.locked(print):
        run.files.write("config.json", "{}")
        run.path.rename(moved)
    again = moved.rename(run.path) if back else moved
    with RunFolder(again).locked(print):
        pass


def test_a_lock_whose_file_cannot_be_closed_hides_nothing_that_went_wrong_before(tmp_path):
    run = tmp_path / "run"

    def go_wrong():
        with RunFolder(run).locked(print) as lock:
            os.close(lock._handle)  # closing it again is an error of the system
            raise UserError("the mistake")

    with pytest.raises(UserError, match="the mistake"):
        go_wrong()
    with RunFolder(run).locked(print):
        pass


def test_many_jobs_that_start_at_once_get_the_lock_one_after_the_other(tmp_path):
    """The holder removes the file while the others open it: nobody may lock a file that is gone."""
    script = f"""
import os, time
from pathlib import Path
from jaxdna.errors import UserError
from jaxdna.runs.run_folder import RunFolder
from jaxdna.storage.run_lock import RunLock
taken = 0
deadline = time.monotonic() + 3
while time.monotonic() < deadline:
    lock = RunLock(Path({str(tmp_path)!r}) / ".lock")
    try:
        lock.take(lambda text: None)
    except UserError:
        continue
    inside = os.open({str(tmp_path / "inside")!r}, os.O_CREAT | os.O_EXCL)  # fails if two are in
    os.close(inside)
    os.unlink({str(tmp_path / "inside")!r})
    taken += 1
    lock.release()
print(taken)
"""
    jobs = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    taken = [job.communicate(timeout=60)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0, 0]
    assert sum(map(int, taken)) > 10
    assert not os.path.exists(tmp_path / ".lock")
