"""Rows 2, 9 to 12, 15, 21, 22 and 29 of the table of faults: several processes of one run."""

import json
import os
import re
import signal
import socket
import time

import psutil
import pytest

from jaxdna.storage.disk import DiskFolder
from jaxdna.storage.run_lock import RunLock
from jaxdna.training.positions import positions
from tests.faults.conftest import (
    NO_CACHE,
    SHORT,
    Finished,
    a_moment_after_compiling,
    assert_listen_on_loopback_only,
    pair,
    sha,
)
from tools.object_store import GoogleStore

LONG = ["--config.train.epochs=100000"]


def trains(workdir):
    return lambda job: "\nepoch 2/" in job.output


def seconds_until_all_end(jobs):
    start = time.monotonic()
    codes = [job.end(240) for job in jobs]
    return codes, time.monotonic() - start


TWELVE = ["--config.train.epochs=12"]


@pytest.fixture(scope="module")
def undisturbed(runner, tmp_path_factory):
    """Twelve epochs of two processes that nobody touches."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    jobs = pair(runner, workdir, *TWELVE)
    codes, _ = seconds_until_all_end(jobs)
    assert codes == [0, 0], [job.output for job in jobs]
    return Finished(workdir, sha(workdir))


def test_fault_01_two_processes_on_a_bucket_are_killed_and_the_rerun_has_the_same_bits(
    runner, undisturbed
):
    workdir = "gs://bkt/runs/pair"
    with GoogleStore() as store:

        def saved(_):
            time.sleep(0.05)  # each look is a request, for which the store needs the processor too
            found = store.names("runs/pair/checkpoints/")
            return [name for name in found if name.endswith("/manifest.json")]

        environment = store.environment | {"WATCH_SECONDS": "4"}  # of the dead job's lock
        rarely = [*TWELVE, "--config.checkpoint.every_epochs=3"]  # a save makes many requests
        jobs = pair(runner, workdir, *rarely, environment=environment)
        assert jobs[0].until(saved)
        for job in jobs:
            job.send(signal.SIGKILL)
        codes, _ = seconds_until_all_end(jobs)
        assert codes == [-signal.SIGKILL] * 2
        jobs = pair(runner, workdir, *rarely, environment=environment)
        codes = [job.end(300) for job in jobs]
        assert codes == [0, 0], [job.output for job in jobs]
        assert "watching whether it still runs" in jobs[0].output
        assert "resuming after epoch" in jobs[1].output
        summary = json.loads(store.objects("runs/pair/summary.json")["runs/pair/summary.json"])
        assert summary["params_sha256"] == undisturbed.sha


def stopped_at(jobs):
    """Waits until all have stopped, saved, and returns the one step after which they did."""
    codes, _ = seconds_until_all_end(jobs)
    assert codes == [78, 78], [job.output for job in jobs]
    (step,) = {re.search(r"stopped by .* after step (\d+)", job.output)[1] for job in jobs}
    return int(step)


def test_fault_02_all_processes_stop_at_the_same_step_and_the_rerun_has_the_same_bits(
    runner, undisturbed, tmp_path
):
    workdir = tmp_path / "run"
    more = [*TWELVE, "--config.checkpoint.every_epochs=5"]
    jobs = pair(runner, workdir, *more)
    assert jobs[0].until(trains(workdir))
    jobs[1].send(signal.SIGTERM)  # to one of them only
    stopped_at(jobs)
    jobs = pair(runner, workdir, *more)
    codes, _ = seconds_until_all_end(jobs)
    assert codes == [0, 0], [job.output for job in jobs]
    assert "resuming after epoch" in jobs[1].output
    undisturbed.assert_same(workdir)


def test_fault_02_a_stop_while_several_processes_compile_or_evaluate_is_saved(runner, tmp_path):
    """They end what they are doing, and stop before one of the next calls of training steps."""
    workdir = tmp_path / "run"
    # A call of four steps is an epoch, and its evaluation takes longer than all else.
    more = [*LONG, "--config.data.train_examples=128", "--config.data.validation_examples=200000"]

    def evaluated(job):
        return job.output.count("\nepoch ")

    jobs = pair(runner, workdir, *more, NO_CACHE)
    # metrics.jsonl is the last thing written before compiling, TensorBoard's files the first after.
    assert jobs[0].until(lambda _: (workdir / "metrics.jsonl").exists())
    jobs[1].send(signal.SIGTERM)
    assert not any(workdir.glob("tensorboard/*/*"))
    compiling = stopped_at(jobs)
    assert compiling == 4 * evaluated(jobs[0]) <= 8

    jobs = pair(runner, workdir, *more)
    assert jobs[0].until(a_moment_after_compiling(workdir))
    jobs[0].send(signal.SIGTERM)
    evaluating = stopped_at(jobs)
    # All steps of an epoch without its evaluation would be the state where that was abandoned.
    assert evaluating == compiling + 4 * evaluated(jobs[0]) > compiling
    assert positions(DiskFolder(workdir / "checkpoints"))[-1] == (evaluating // 4, 0)


def test_fault_29_process_0_waits_for_the_other_to_leave(runner, tmp_path):
    """One that the machine has no time for when both are done."""
    jobs = pair(runner, tmp_path / "run", *LONG)
    assert jobs[0].until(trains(tmp_path / "run"))
    jobs[0].send(signal.SIGTERM)
    assert jobs[0].until(lambda job: "the state is saved" in job.output)
    jobs[1].send(signal.SIGSTOP)
    time.sleep(1)
    jobs[1].send(signal.SIGCONT)
    stopped_at(jobs)


@pytest.mark.parametrize("victim", [0, 1])
def test_fault_09_a_killed_process_ends_the_others_within_the_heartbeat(runner, tmp_path, victim):
    jobs = pair(runner, tmp_path / "run", *LONG, heartbeat=5)
    assert jobs[0].until(trains(tmp_path / "run"))
    jobs[victim].send(signal.SIGKILL)
    codes, seconds = seconds_until_all_end(jobs)
    assert codes[victim] == -signal.SIGKILL
    # 70 where the survivor could say so, SIGABRT where jax ends it with the coordinator.
    assert codes[1 - victim] in (70, -signal.SIGABRT), jobs[1 - victim].output
    assert seconds < 5 + 5


def test_fault_10_a_stuck_peer_is_noticed_by_the_watchdog(runner, tmp_path):
    limits = [f"--config.watchdog.{phase}=10" for phase in ("step", "evaluation", "save")]
    jobs = pair(runner, tmp_path / "run", *LONG, *limits)
    assert jobs[0].until(trains(tmp_path / "run"))
    jobs[1].send(signal.SIGSTOP)
    assert jobs[0].end(60) == 75, jobs[0].output
    assert "no progress for" in jobs[0].output
    assert "(most recent call first)" in jobs[0].output


@pytest.mark.parametrize("victim", [0, 1])
def test_fault_11_an_error_on_one_process_ends_the_others_with_its_cause(runner, tmp_path, victim):
    """An accelerator that only one of the machines is to have."""
    of_one = {f"process_{victim}": ["--config.runtime.require_accelerator=true"]}
    jobs = pair(runner, tmp_path / "run", *LONG, **of_one)
    assert jobs[victim].end() == 2
    assert jobs[1 - victim].end() == 70, jobs[1 - victim].output
    # From its sentence to the other's, which each writes when it ends.
    assert jobs[1 - victim].last_wrote - jobs[victim].last_wrote < 2
    assert (
        f"another process failed first: process {victim}: "
        "--config.runtime.require_accelerator=true, but jax finds only the CPU"
        in jobs[1 - victim].output
    )
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_fault_16_the_launcher_names_the_process_that_found_the_lock_and_does_not_restart(
    runner, tmp_path
):
    """Process 0 stays a moment after it has told the others, so that they end before it."""
    workdir = tmp_path / "run"
    workdir.mkdir()
    lock = RunLock(workdir / ".lock")
    lock.take(print)
    with runner.start(
        "launch", "--processes=2", "--max-restarts=3", "--", "train", *SHORT,
        f"--workdir={workdir}",
    ) as launcher:  # fmt: skip
        assert launcher.end() == 2, launcher.output
    lock.release()
    assert f"--workdir={workdir} is in use by process {os.getpid()} on" in launcher.output
    assert "process 0 of 2 failed first, with exit code 2;" in launcher.output
    assert "restart" not in launcher.output


def test_fault_12_a_process_that_never_starts_is_waited_for_and_named(runner, tmp_path):
    (job,) = pair(runner, tmp_path / "run", "--config.cluster.start_seconds=2", only=(0,))
    assert job.end(60) == 70, job.output
    assert re.search(
        r"process 0 of 2, waited 2 s for the other processes at 127.0.0.1:\d+", job.output
    )


def test_fault_15_processes_with_unequal_devices_are_refused_before_any_work(runner, tmp_path):
    of_one = {f"process_{i}": [f"--config.runtime.cpu_devices={1 + 2 * i}"] for i in (0, 1)}
    jobs = pair(runner, tmp_path / "run", **of_one)
    codes, _ = seconds_until_all_end(jobs)
    assert 2 in codes and set(codes) <= {2, 70}  # the other one may be told before it has seen it
    for job in jobs:
        assert "the processes have different numbers of devices (process 0: 1, process 1: 3)" in (
            job.output
        )
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_fault_21_the_coordinator_listens_on_loopback_only(runner, tmp_path):
    jobs = pair(runner, tmp_path / "run", *LONG)
    assert jobs[0].until(trains(tmp_path / "run"))
    assert_listen_on_loopback_only(psutil.Process(job.pid) for job in jobs)
    assert positions(DiskFolder(tmp_path / "run" / "checkpoints"))


def test_fault_22_a_port_in_use_is_named(runner, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        output = runner.finish(
            tmp_path / "run", f"--config.cluster.coordinator=127.0.0.1:{port}",
            "--config.cluster.processes=2", code=2,
        )  # fmt: skip
    assert f"port {port} cannot be used (Address already in use)" in output


def test_fault_09_the_launcher_starts_again_after_a_kill_and_ends_with_the_same_bits(
    runner, undisturbed, tmp_path
):
    workdir = tmp_path / "run"
    with runner.start(
        "launch", "--processes=2", "--max-restarts=3", "--grace-seconds=2", "--", "train", *SHORT,
        *TWELVE, f"--workdir={workdir}",
    ) as launcher:  # fmt: skip
        assert launcher.until(lambda job: "\nepoch 3/" in job.output)
        for child in psutil.Process(launcher.pid).children():
            if "--config.cluster.process_id=0" in child.cmdline():  # the coordinator
                child.kill()
        assert launcher.end(200) == 0, launcher.output
    assert "process 0 of 2 failed first, with exit code 137" in launcher.output
    assert "restart 1 of 3" in launcher.output
    assert "restart 2 of 3" not in launcher.output
    undisturbed.assert_same(workdir)
