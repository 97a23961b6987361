"""Rows 2, 10, 13 and 19 of the table of faults: signals, hangs, a loss that is no number."""

import os
import pty
import re
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from jaxdna.runs.guard import Guard
from jaxdna.storage.disk import DiskFolder
from jaxdna.training.positions import positions
from tests.faults.conftest import NO_CACHE, SHORT, a_moment_after_compiling, afresh, rows, sha


def epoch(number):
    return lambda job: f"\nepoch {number}/" in job.output


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_fault_02_a_signal_while_training_saves_between_two_calls(runner, finished, tmp_path, name):
    workdir = tmp_path / "run"
    with runner.train(workdir) as job:
        assert job.until(epoch(3))
        job.send(signal.Signals[name])
        sent = time.monotonic()
        assert job.end() == 78, job.output
        assert time.monotonic() - sent < 20
    assert f"stopped by {name} after step" in job.output
    assert "Traceback" not in job.output
    assert not (workdir / ".lock").exists()
    output = runner.finish(workdir)
    assert "resuming after epoch" in output
    finished.assert_same(workdir)


def test_fault_02_a_terminal_that_is_closed_lets_the_run_save(runner, tmp_path):
    """It sends SIGHUP, and fails whoever writes to it from then on."""
    workdir = tmp_path / "run"
    ours, theirs = pty.openpty()
    command = ["train", *SHORT, "--config.train.epochs=100000", f"--workdir={workdir}"]
    with subprocess.Popen(
        afresh(*command), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        try:
            os.close(theirs)
            shown = b""
            while b"  best" not in shown:
                shown += os.read(ours, 4096)
            os.close(ours)
            assert process.wait(60) == 78
        finally:
            process.kill()
    assert positions(DiskFolder(workdir / "checkpoints"))
    assert not (workdir / ".lock").exists()


def test_a_run_whose_output_nobody_reads_any_more_goes_on(runner, finished, tmp_path):
    command = ["train", *SHORT, f"--workdir={tmp_path / 'run'}", "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "jaxdna", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert any(b"epoch 1/" in line for line in process.stdout)
        process.stdout.close()
        assert process.wait(60) == 0
    finished.assert_same(tmp_path / "run")


def assert_a_stop_saves(job, workdir):
    assert job.until(epoch(2))
    job.send(signal.SIGTERM)
    assert job.end() == 78, job.output
    (stopped,) = re.findall(r"stopped by SIGTERM after step (\d+); the state is saved", job.output)
    epochs, steps = positions(DiskFolder(workdir / "checkpoints"))[-1]
    assert int(stopped) == 40 * epochs + steps


def test_fault_02_sigterm_to_a_parameter_server_run_saves_too(runner, tmp_path):
    """Ray, when it starts, puts a handler of its own in the place of ours."""
    pytest.importorskip("ray")
    workdir, servers = tmp_path / "run", "--config.strategy=parameter_server"
    with runner.train(workdir, servers, "--config.train.epochs=100000") as job:
        assert_a_stop_saves(job, workdir)


def test_fault_02_a_signal_to_a_pipeline_saves_what_lies_on_each_stage(runner, tmp_path):
    workdir = tmp_path / "run"
    settings = ["strategy=pipeline", "mesh.stage=2", "runtime.cpu_devices=2", "train.epochs=100000"]
    with runner.train(workdir, *(f"--config.{setting}" for setting in settings)) as job:
        assert_a_stop_saves(job, workdir)


def test_fault_02_an_epoch_in_many_parts_has_the_bits_of_one_in_one(runner, tmp_path):
    """Three epochs of 100 calls, stopped after fractions of an epoch."""
    long = ["--config.data.train_examples=12800", "--config.train.epochs=3"]
    reference, workdir = tmp_path / "reference", tmp_path / "run"
    runner.finish(reference, *long)
    inside = set()
    for part in range(1, 5):
        with runner.train(workdir, *long) as job:
            # TensorBoard's files are opened between compiling and the first call.
            before = set(workdir.glob("tensorboard/*/*"))
            assert job.until(lambda _, before=before: set(workdir.glob("tensorboard/*/*")) > before)
            time.sleep(0.05 * part)
            job.send(signal.SIGTERM)
            code = job.end()
        assert code in (0, 78), job.output
        inside |= {place for place in positions(DiskFolder(workdir / "checkpoints")) if place[1]}
        if code == 0:  # a fast machine is done before the last stop
            break
    assert inside, "no stop fell inside an epoch"
    runner.finish(workdir, *long)
    assert sha(workdir) == sha(reference)
    assert rows(workdir) == rows(reference)


def insisted(workdir, number, begins, settings=SHORT):
    """Returns how a real process ends that is sent a signal again and again until it is gone.

    Args:
      workdir: of the run.
      number: the signal.
      begins: a condition on the process; from then on.
      settings: of the run.
    """
    with subprocess.Popen(
        afresh("train", *settings, f"--workdir={workdir}"), stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            while not begins(process):
                assert process.poll() is None
                time.sleep(0.002)
            while process.poll() is None:
                process.send_signal(number)
                time.sleep(0.002)
            return process.returncode, process.stderr.read()
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_fault_28_signals_to_the_very_end_do_not_change_the_code_of_a_stop(tmp_path, number):
    workdir = tmp_path / "run"
    code, said = insisted(workdir, number, lambda _: positions(DiskFolder(workdir / "checkpoints")))
    assert (code, "the state is saved" in said) == (78, True), said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_fault_28_signals_while_the_report_is_drawn_leave_a_finished_run(
    finished, tmp_path, number
):
    workdir = tmp_path / "run"
    code, said = insisted(workdir, number, lambda _: (workdir / "summary.json").exists())
    assert code == 0, said
    assert "everything is saved, and this process is ending" in said
    finished.assert_same(workdir)
    assert (
        workdir / "report.html"
    ).exists() or number == signal.SIGINT  # whose second one is heard


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_fault_28_signals_after_the_first_fold_stop_before_the_next(tmp_path, number):
    """While its report is drawn that fold is finished, and no other."""
    letters = np.array(list("ACGT"))[np.random.default_rng(0).integers(0, 4, (60, 40))]
    rows = [f"{''.join(row)}\t{i % 2}\n" for i, row in enumerate(letters)]
    (tmp_path / "table.tsv").write_text("".join(rows))
    workdir = tmp_path / "run"
    settings = [
        "--config=configs/fasta.py:small", f"--config.data.table={tmp_path / 'table.tsv'}",
        "--config.data.folds=3", "--config.train.epochs=1", "--config.train.batch_size=8",
        "--config.optimizer.warmup_epochs=0", "--config.runtime.platform=cpu",
        f"--config.runtime.data_cache={tmp_path / 'cache'}",
    ]  # fmt: skip
    drawing = workdir / "fold0" / "curves.png"
    code, said = insisted(workdir, number, lambda _: drawing.exists(), settings)
    assert code == 78, said
    assert number == signal.SIGINT or "stopped by SIGTERM before fold1" in said
    assert (workdir / "fold0" / "summary.json").exists()
    assert not (workdir / "fold1" / "summary.json").exists()
    assert not (workdir / "summary.json").exists()
    assert (workdir / "checkpoints" / "epoch-1").is_dir()  # of all folds, which the rerun needs


@pytest.mark.parametrize("phase", ["start", "compile"])
def test_fault_02_before_training_there_is_nothing_to_save_and_the_end_is_at_once(
    runner, finished, tmp_path, phase
):
    workdir = tmp_path / "run"
    many = ["--config.data.train_examples=200000"] if phase == "start" else []
    # metrics.jsonl is the last thing that is written before compiling, which takes a second.
    sign = {"start": ".lock", "compile": "metrics.jsonl"}[phase]
    with runner.train(workdir, *many, NO_CACHE) as job:
        assert job.until(lambda _: (workdir / sign).exists())
        time.sleep(0.1)
        job.send(signal.SIGTERM)
        sent = time.time()
        assert job.end() == 78, job.output
    assert f"SIGTERM in phase {phase}: there is nothing new to save" in job.output
    assert job.last_wrote - sent < 3  # its last words, after which it does nothing more
    if phase == "compile":
        runner.finish(workdir)
        finished.assert_same(workdir)


# A validation split that takes seconds, and epochs of one call that takes milliseconds.
LONG_EVALUATION = ["--config.data.validation_examples=400000", "--config.data.train_examples=128"]


def test_fault_02_a_signal_in_the_evaluation_abandons_it_and_saves(runner, tmp_path):
    """The state before it is what the rerun goes on from."""
    for attempt in range(3):  # a machine that sleeps meanwhile may be done with the evaluation
        workdir = tmp_path / f"run{attempt}"
        with runner.train(workdir, *LONG_EVALUATION, "--config.train.epochs=2") as job:
            assert job.until(a_moment_after_compiling(workdir))
            job.send(signal.SIGTERM)
            assert job.end() == 78, job.output
        (stopped,) = re.findall(r"stopped by SIGTERM after step (\d+)", job.output)
        epochs, steps = positions(DiskFolder(workdir / "checkpoints"))[-1]
        assert int(stopped) == 4 * epochs + steps
        assert job.output.count("\nepoch ") == epochs
        if steps == 4:  # all steps of an epoch, and not its evaluation
            return
    pytest.fail("no evaluation was abandoned")


def test_fault_02_a_second_interrupt_ends_at_once(runner, tmp_path):
    """The first one waits for an epoch of a single call, which takes seconds."""
    workdir = tmp_path / "run"
    one_call = ["--config.data.train_examples=300000", "--config.train.steps_per_call=10000"]
    with runner.train(workdir, *one_call) as job:
        assert job.until(a_moment_after_compiling(workdir))
        job.send(signal.SIGINT)
        assert job.until(lambda job: "SIGINT: finishing the steps under way" in job.output)
        job.send(signal.SIGINT)
        assert job.end() == 130, job.output
    assert "interrupted again: ending at once" in job.output
    assert not positions(DiskFolder(workdir / "checkpoints"))


def test_fault_10_a_process_that_hangs_dumps_its_stacks_and_ends_with_75(runner, tmp_path):
    """Compiling cannot be interrupted from inside: a limit far below its time is a real hang."""
    with runner.train(
        tmp_path / "run", "--config.watchdog.compile=0.2", "--config.data.length=333"
    ) as job:
        assert job.end() == 75, job.output
    assert re.search(
        r"no progress for \d+ s in phase compile \(--config.watchdog.compile", job.output
    )
    assert "Current thread" in job.output
    assert "loop.py" in job.output


def test_fault_10_a_stopped_parameter_server_is_noticed_by_the_watchdog(runner, tmp_path):
    """Its process lives, so that Ray starts no other; it ends with the run all the same."""
    pytest.importorskip("ray")
    servers = "--config.strategy=parameter_server"
    endless = "--config.train.epochs=100000"
    with runner.train(tmp_path / "run", servers, endless, "--config.watchdog.step=10") as job:
        assert job.until(epoch(2))
        started = psutil.Process(job.pid).children(recursive=True)
        actors = [p for p in started if p.name().startswith(("ray::Server", "ray::Worker"))]
        assert len(actors) >= 2
        next(actor for actor in actors if "Server" in actor.name()).suspend()
        assert job.end() == 75, job.output
    assert "(--config.watchdog.step=10); the stacks of all threads follow" in job.output
    assert "parameter_server.py" in job.output
    assert not psutil.wait_procs(actors, timeout=60)[1]


def test_fault_13_a_loss_that_is_not_finite_ends_with_76_and_keeps_the_checkpoint(
    runner, finished, tmp_path
):
    workdir = finished.copy(tmp_path / "run")
    explode = ["--config.train.epochs=12", "--config.optimizer.learning_rate=1e30"]
    output = runner.finish(workdir, *explode, code=76)
    assert re.search(r"the loss is (nan|inf) at step \d+", output)
    assert positions(DiskFolder(workdir / "checkpoints"))[-1] == (8, 0)
    runner.finish(workdir)
    finished.assert_same(workdir)


# All examples in one step, whose loss is that of the parameters before it.
ONE_STEP = ["--config.train.batch_size=1280"]
EXPLODE = ["--config.optimizer.learning_rate=1e30", "--config.train.epochs=1"]


def test_fault_13_parameters_that_only_the_validation_finds_broken_are_not_saved(runner, tmp_path):
    workdir = tmp_path / "run"
    output = runner.finish(workdir, *ONE_STEP, *EXPLODE, code=76)
    assert re.search("the validation loss is (nan|inf) at step 1; the last checkpoint", output)
    assert not (workdir / "summary.json").exists()
    assert "NaN" not in (workdir / "metrics.jsonl").read_text()
    assert not positions(DiskFolder(workdir / "checkpoints"))
    runner.finish(workdir, *ONE_STEP, "--config.train.epochs=2")
    reference = tmp_path / "reference"
    runner.finish(reference, *ONE_STEP, "--config.train.epochs=2")
    assert sha(workdir) == sha(reference)


def test_fault_13_a_stop_saves_no_parameters_that_the_last_step_has_broken(runner, tmp_path):
    """The only step of an epoch breaks them, and the stop comes in the evaluation after it."""
    workdir = tmp_path / "run"
    one_step = [
        "--config.data.train_examples=128",
        "--config.train.batch_size=128",
        "--config.data.validation_examples=200000",
    ]
    runner.finish(workdir, *one_step, "--config.train.epochs=1")
    explode = ["--config.train.epochs=2", "--config.optimizer.learning_rate=1e39"]
    for moment in (0.1, 0.2, 0.05, 0.3, 0.5, 0.8):  # when evaluation runs depends on the machine
        with runner.train(workdir, *one_step, *explode) as job:
            if job.until(a_moment_after_compiling(workdir, moment)):
                job.send(signal.SIGTERM)
            assert job.end() == 76, job.output
        assert positions(DiskFolder(workdir / "checkpoints")) == [(1, 0)]
        if "a parameter is not finite after step 2; the last checkpoint is intact" in job.output:
            return
    pytest.fail("no stop came before the evaluation was done")


def test_fault_19_the_same_seed_and_mesh_give_the_same_bits_twice(runner, finished, tmp_path):
    again = tmp_path / "again"
    runner.finish(again, environment={"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"})
    finished.assert_same(again)


@pytest.mark.parametrize("owns_process", [True, False])
def test_the_guard_brings_the_earlier_handlers_back(owns_process):
    """Of a process that is done the notebook's only: the command's ends."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with Guard({"start": 0.0, "save": 0.0}, owns_process) as guard:
        guard.enter("start") if owns_process else guard.done(0)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
