"""Names of TPU slices and GPUs become devices, and wrong names one helpful sentence."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from jaxdna.config import load_config
from jaxdna.errors import UserError
from jaxdna.parallel.mesh import AXES, describe_mesh, make_mesh
from jaxdna.study import topology, tpus

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs the extra [plan]"
)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("v5e:3x3", "v5e:2x4"),  # 9 chips
        ("v5e:0x1", "v5e:1x1"),  # libtpu itself ends the process on this one
        ("v5e:2x2x1", "v5e:2x2"),
        ("v5e:", "2x4"),
        ("v5e", "2x4"),
        ("v5p:3x3x3", "v5p:2x4x4"),
        ("v4:64x64x64", "v4:16x16x16"),
        ("v6:2x4", "v6e"),
        ("v7x:2x2x1", "tpu7x"),
        ("h10:8", "h100"),
        ("h100", "h100:8"),
        ("h100:3", "h100:1, h100:2, h100:4, h100:8"),
        ("h100:16", "h100:HOSTSx8"),
        ("a6000:8", "a6000:4"),
        ("h100:2x3", "h100:4"),
        ("h100:0x8", "h100:8"),
        ("b200:8x", "b200:8"),
        ("rtx4090:1", "a6000:4"),
        ("v5e:-2x4", "2x4"),
    ],
)
def test_a_wrong_name_gets_one_sentence_with_the_known_ones(name, wanted):
    with pytest.raises(UserError) as caught:
        topology.topology(name)
    message = str(caught.value)
    assert f"--topology={name}" in message
    assert wanted in message
    assert "\n" not in message


def test_slices_are_positive():
    with pytest.raises(UserError, match="--slices=0"):
        topology.topology("v5e:2x4", slices=0)


def test_hosts_of_gpus_are_no_slices():
    with pytest.raises(UserError, match="--topology=h100:2x8"):
        topology.topology("h100:8", slices=2)


def test_missing_compiler_for_gpus_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'jaxdna\[plan-gpu\]'"):
        topology.topology("h100:8")


def test_missing_libtpu_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)  # what importing a missing module leaves
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'jaxdna\[plan\]'"):
        topology.topology("v5e:2x4")


@needs_libtpu
@pytest.mark.parametrize("generation", tpus.GENERATIONS)
def test_every_listed_shape_is_one_that_libtpu_knows(generation):
    for shape in tpus.GENERATIONS[generation].shapes:
        name = f"{generation}:{'x'.join(map(str, shape))}"
        devices = topology.topology(name).devices
        assert len(devices) == topology.device_count(name)
        assert devices[0].platform == "tpu"


@needs_libtpu
def test_slices_multiply_the_devices():
    devices = topology.topology("v5e:2x4", slices=2).devices
    assert len(devices) == topology.device_count("v5e:2x4", slices=2) == 16
    assert {device.slice_index for device in devices} == {0, 1}


@needs_libtpu
def test_loading_libtpu_prints_nothing_and_leaves_backend_and_environment_alone():
    program = """
import os
from jaxdna.parallel.plugins import held_back
from jaxdna.study.topology import topology
first = topology("v5e:2x2")
import jax
ours = {"TPU_ACCELERATOR_TYPE", "TPU_WORKER_HOSTNAMES", "ALLOW_MULTIPLE_LIBTPU_LOAD"}
assert not ours & set(os.environ)
with held_back():
    assert jax.default_backend() == "cpu"
print(len(first.devices))
"""
    # Two at once: libtpu's lock lets one process in unless told otherwise.
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TPU_", "ALLOW_MULTIPLE"))}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(2)
    ]
    for run in runs:
        out, err = run.communicate(timeout=120)
        assert (run.returncode, out, err) == (0, "4\n", "")


@needs_libtpu
@pytest.mark.parametrize(
    ("flags", "crossing"),
    [
        ([], {"data": 2}),
        (["mesh.data=1", "mesh.fsdp=-1"], {"fsdp": 2}),
        (["mesh.model=8"], {"data": 2}),
        (["mesh.fsdp=4", "mesh.dcn.fsdp=2"], {"fsdp": 2}),
    ],
)
def test_several_slices_need_no_flags(flags, crossing):
    config = load_config("tal1", flags)
    made = make_mesh(config, topology.topology("v5e:2x4", slices=2).devices)
    slices = np.vectorize(lambda device: device.slice_index)(made.devices)
    for axis, name in enumerate(AXES):
        met = {tuple(row) for row in np.moveaxis(slices, axis, -1).reshape(-1, made.shape[name])}
        assert {len(set(row)) for row in met} == {crossing.get(name, 1)}, name
    said = describe_mesh(config, made)
    assert said.endswith(f"(over 2 slices: dcn.{next(iter(crossing))}=2)"), said


@needs_libtpu
def test_what_cannot_be_divided_over_the_slices_is_one_sentence():
    devices = topology.topology("v5e:2x4", slices=2).devices
    with pytest.raises(
        UserError, match=r"lie in 2 slices, and only data, fsdp and stage may .*=1 "
    ):
        make_mesh(load_config("tal1", ["mesh.data=1", "mesh.model=16"]), devices)
    with pytest.raises(UserError, match=r"dcn\.data=4 multiplies to 4, and .* 2 slices; legal"):
        make_mesh(load_config("tal1", ["mesh.dcn.data=4"]), devices)
