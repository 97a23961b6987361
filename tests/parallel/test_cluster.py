import socket

import pytest
from rich.console import Console

from jaxdna.config import load_config
from jaxdna.errors import UserError
from jaxdna.parallel.cluster import decide, join

SLURM = {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": "7"}


def cluster(*flags):
    return load_config("configs/tal1.py", [f"cluster.{flag}" for flag in flags]).cluster


@pytest.mark.parametrize(
    ("environment", "tpu", "expected"),
    [
        ({}, False, ("single", 1, 0)),
        (SLURM, False, ("SLURM", 4, 2)),
        (SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, False, ("single", 1, 0)),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, False, ("single", 1, 0)),  # salloc's shell
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, False, ("Open MPI", 2, 1)),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True, ("Cloud TPU", None, None)),
        (
            {"TPU_WORKER_HOSTNAMES": "a,b", "KUBERNETES_SERVICE_HOST": "k"},
            True,
            ("GKE", None, None),
        ),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, False, ("single", 1, 0)),
        ({}, True, ("Cloud TPU", None, None)),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, True, ("single", 1, 0)),
    ],
)
def test_the_environment_decides_how_to_start(environment, tpu, expected):
    start = decide(cluster(), environment, tpu)
    assert (start.how, start.processes, start.process_id) == expected


def test_flags_come_before_the_environment():
    flags = ("coordinator=10.0.0.1:1234", "processes=8", "process_id=3")
    start = decide(cluster(*flags), SLURM, True)
    assert (start.how, start.processes, start.process_id) == ("explicit", 8, 3)
    assert start.coordinator == "10.0.0.1:1234"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("coordinator=host",), "must be HOST:PORT"),
        (("coordinator=host:99999",), "must be HOST:PORT"),
        (("coordinator=host:1", "processes=2", "process_id=2"), "must be 0 to processes - 1"),
        (("processes=2",), "needs --config.cluster.coordinator"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(flags, words):
    with pytest.raises(UserError, match=words):
        decide(cluster(*flags), {}, False)


def test_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = cluster(f"coordinator=127.0.0.1:{port}", "processes=2")
        with pytest.raises(UserError, match=rf"port {port} cannot be used"):
            join(settings, decide(settings, {}, False), Console(quiet=True))
