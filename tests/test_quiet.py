"""What libraries for GPUs say where there is no GPU reaches nobody; all else does."""

import importlib.util
import os
import subprocess
import sys

import pytest

from jaxdna.quiet import no_chatter


def test_only_the_lines_about_a_missing_driver_are_kept_back(capfd):
    with no_chatter():
        os.write(2, b"I0000 cudart_stub.cc:31] Could not find cuda drivers on your machine\nkept\n")
    assert capfd.readouterr().err == "kept\n"


def test_what_is_raised_meanwhile_is_raised_and_stderr_is_back(capfd):
    with pytest.raises(ValueError, match="odd"), no_chatter():
        raise ValueError("odd")
    os.write(2, b"cudart_stub.cc afterwards\n")
    assert capfd.readouterr().err == "cudart_stub.cc afterwards\n"


@pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None, reason="needs the extra [plan-gpu]"
)
def test_with_the_compiler_for_gpus_installed_a_run_on_the_cpu_says_nothing_new():
    program = """
import jaxdna
import jax
from jaxdna.parallel.plugins import held_back
from jaxdna.study.topology import topology
with held_back():
    assert jax.devices()[0].platform == "cpu"
assert jax.__spec__.loader.get_source("jax")
print(len(topology("h100:8").devices))  # and is there when it is asked for after all
"""
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "8\n", "")
