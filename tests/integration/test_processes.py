"""Several real processes: the same numbers as one, and one end for all."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import psutil
import pytest

from jaxdna.config import flat, validate
from jaxdna.parallel.mesh import make_mesh
from jaxdna.training.checkpoint import load_best
from jaxdna.training.program import Program
from jaxdna.training.run_folder import RunFolder

SMALL = [
    "--config=configs/tal1.py",
    "--config.data.length=120",
    "--config.data.train_examples=640",
    "--config.data.validation_examples=100",
    "--config.data.test_examples=100",
    "--config.optimizer.name=sgd",
    "--config.optimizer.schedule=constant",
    "--config.optimizer.learning_rate=0.2",
]


def parameters(folder):
    config = validate(flat(RunFolder(folder).read_config()) | {"mesh.data": 1})
    for axis in ("fsdp", "model", "seq"):
        config.mesh[axis] = 1
    mesh = make_mesh(config, jax.devices()[:1])
    program = Program(config, mesh, (120,), 1, 640)
    return load_best(folder / "checkpoints", program.abstract_state.params)


def largest_difference(first, second):
    apart = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), first, second)
    return max(jax.tree.leaves(apart))


@pytest.fixture(scope="module")
def one_process(jaxdna, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "run"
    done = jaxdna(
        "train", *SMALL, "--config.train.epochs=2", "--config.runtime.cpu_devices=4",
        f"--workdir={folder}", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_two_processes_train_as_one_and_another_layout_takes_over(jaxdna, one_process, tmp_path):
    """First epoch on two processes of two devices, the second on one process of eight, sharded."""
    folder = tmp_path / "run"
    done = jaxdna(
        "launch", "--processes=2", "--", "train", *SMALL, "--config.train.epochs=1",
        "--config.runtime.cpu_devices=2", f"--workdir={folder}", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["processes"], summary["devices"]) == (2, 4)
    assert "process 0 of 2, waiting up to" in done.stderr
    log = (tmp_path / "run.logs" / "process-1.log").read_text()
    assert "process 1 of 2" in log and summary["params_sha256"] in log
    first = RunFolder(one_process).read_metrics()[0]
    again = RunFolder(folder).read_metrics()[0]
    for key in ("train_loss", "val_loss"):
        assert abs(first[key] - again[key]) < 2e-5

    done = jaxdna(
        "train", *SMALL, "--config.train.epochs=2", "--config.runtime.cpu_devices=8",
        "--config.mesh.data=2", "--config.mesh.fsdp=2", "--config.mesh.model=2",
        f"--workdir={folder}", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "resuming after epoch 1" in done.stderr
    assert largest_difference(parameters(one_process), parameters(folder)) < 2e-5
    second, again = (RunFolder(path).read_metrics()[1] for path in (one_process, folder))
    assert abs(second["val_loss"] - again["val_loss"]) < 2e-5


def test_a_mistake_ends_all_processes_with_its_sentence(jaxdna, tmp_path):
    done = jaxdna(
        "launch", "--processes=2", "--", "train", *SMALL, "--config.mesh.data=3",
        f"--workdir={tmp_path}/run",
    )  # fmt: skip
    assert done.returncode == 2
    assert "does not fit 2 devices" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_killed_process_ends_the_launch_with_its_name(tmp_path):
    command = [
        sys.executable, "-m", "jaxdna", "launch", "--processes=2", "--grace-seconds=2", "--",
        "train", *SMALL, "--config.train.epochs=100000", f"--workdir={tmp_path}/run",
    ]  # fmt: skip
    with psutil.Popen(command, stderr=subprocess.PIPE, text=True) as launcher:
        try:
            for line in launcher.stderr:
                if line.startswith("epoch 1/"):
                    break
            victim = next(
                child
                for child in launcher.children()
                if "--config.cluster.process_id=1" in child.cmdline()
            )
            victim.kill()
            killed = time.monotonic()
            _, errors = launcher.communicate(timeout=60)
        except BaseException:
            for process in (*launcher.children(), launcher):
                process.kill()
            raise
    assert launcher.returncode == 128 + signal.SIGKILL
    assert "process 1 of 2 failed first, with exit code 137" in errors
    assert time.monotonic() - killed < 15
    assert not psutil.pid_exists(victim.pid)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--processes=0", "--", "train"], "--processes=0 is not legal"),
        (["--processes=100000", "--", "train"], "--processes=100000 is not legal: it must be 1 to"),
        (["--processes=2", "--logs=/proc/y", "--", "train"], "--logs=/proc/y cannot be written"),
        (["--processes=2"], "come after `--`"),
        (["--processes=2", "--port=70000", "--", "train"], "--port=70000 is not legal"),
        (["--", "train"], "--processes"),
    ],
)
def test_a_wrong_launch_is_one_sentence(jaxdna, arguments, words):
    done = jaxdna("launch", *arguments)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
    assert os.linesep not in done.stderr.strip()
