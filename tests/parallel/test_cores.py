"""Where a network convolves images a CPU is a device for each core; for all others it is one."""

import json
import os
import subprocess
import sys

import jax
import jaxlib
import pytest

from jaxdna.config import load_config
from jaxdna.parallel.cores import cores, devices_for_cores
from jaxdna.parallel.mesh import make_mesh
from jaxdna.tasks.kinds import of_classes
from jaxdna.training.program import Program
from tests.conftest import REPOSITORY

SMALL = [
    "data.synthetic=true", "data.train_examples=64", "data.test_examples=16", "train.epochs=1",
    "model.filters=4,4", "model.dense=8", "train.batch_size=32",
]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "settings", "cores", "devices"),
    [
        ("cifar10", [], 2, 2),
        ("cifar10", [], 6, 4),  # a divisor of the batch of 256
        ("cifar10", ["train.batch_size=40"], 8, 2),  # at least 16 rows for each
        ("cifar10", ["train.batch_size=33"], 8, 1),
        ("cifar10", ["train.batch_size=64", "train.accumulate=2"], 8, 2),
        ("cifar10", ["mesh.data=1"], 2, 1),
        ("cifar10", ["mesh.model=2"], 2, 1),
        ("cifar10", ["strategy=pipeline"], 2, 1),
        ("mnist", [], 2, 2),
        ("mnist_mlp", [], 8, 1),
        ("tal1", [], 8, 1),
    ],
)
def test_an_image_network_gets_as_many_devices_as_suit_its_batch(config, settings, cores, devices):
    assert devices_for_cores(load_config(f"configs/{config}.py", settings), cores) == devices


@pytest.mark.skipif(cores() < 2, reason="needs two cores")
def test_the_cores_sum_to_the_numbers_of_one_device(jaxdna, tmp_path):
    rows = {}
    for devices in (0, 1):
        flags = [f"--config.{setting}" for setting in SMALL]
        done = jaxdna(
            "train", "--config=configs/cifar10.py:report", *flags, "--config.optimizer.name=sgd",
            f"--config.runtime.cpu_devices={devices}", f"--workdir={tmp_path}/{devices}", "--json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout.splitlines()[-1])
        rows[devices] = json.loads((tmp_path / str(devices) / "metrics.jsonl").read_text())
        if devices == 0:
            assert summary["devices"] == devices_for_cores(
                load_config("configs/cifar10.py", SMALL), cores()
            )
            assert f"{summary['devices']} x cpu (" in done.stderr
    assert rows[0]["train_loss"] == pytest.approx(rows[1]["train_loss"], rel=2e-6)
    assert rows[0]["val_loss"] == pytest.approx(rows[1]["val_loss"], rel=2e-6)


@pytest.mark.skipif(cores() < 2, reason="needs two cores")
def test_devices_with_a_core_each_convolve_by_onednn_where_jaxlib_has_it():
    config = load_config("configs/cifar10.py", SMALL)
    option = "xla_cpu_experimental_onednn_custom_call"
    for devices, wanted in ((1, False), (2, True)):
        mesh = make_mesh(config, jax.devices()[:devices])
        program = Program(config, mesh, (32, 32, 3), of_classes(10), 64)
        assert (option in program.compiler_options) == wanted
        has_it = tuple(map(int, jaxlib.__version__.split(".")[:2])) >= (0, 12)
        assert ("__onednn" in program.compiled(1).as_text()) == (wanted and has_it)


@pytest.mark.skipif(cores() < 2, reason="needs two cores")
def test_another_network_of_the_same_process_keeps_its_single_device(tmp_path):
    script = """
import sys, jaxdna
small = sys.argv[1].split()
images = jaxdna.train(jaxdna.load_config("cifar10", small), "images", quiet=True)
odd = ["data.length=60", "data.train_examples=165", "data.validation_examples=16"]
odd += ["data.test_examples=16", "train.epochs=1", "train.batch_size=33"]
motif = jaxdna.train(jaxdna.load_config("tal1", odd), "motif", quiet=True)
print(images.summary["devices"] > 1, motif.summary["devices"])
"""
    command = [sys.executable, "-c", script, " ".join(SMALL)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "1"], done.stderr
