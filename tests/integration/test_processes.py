"""Several real processes find each other and have one end."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from jaxdna.parallel.cluster import free_port

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


def test_jaxs_own_variables_are_taken_and_no_proxy_is_asked_for_the_others():
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy"), "http://127.0.0.1:9")
    variables = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "jaxdna", "doctor", "--json"],
            env={**os.environ, **proxies, **variables, "JAX_PROCESS_ID": rank}
            | {"JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    for rank, process in enumerate(started):
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert json.loads(output)["processes"] == 2
        assert f"explicit (JAX_COORDINATOR_ADDRESS): process {rank} of 2" in errors
        assert "proxy variable" not in errors


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
        (
            ["--processes=2", "--logs=/proc/y", "--", "train", "--config=tal1"],
            "--logs=/proc/y cannot be written",
        ),
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
