import glob
import subprocess
import sys
from pathlib import Path

import pytest

from jaxdna.config import load_config
from jaxdna.errors import UserError
from jaxdna.parallel import runtime
from jaxdna.parallel.start import decide, first_node, share_of_gpus

# As a task of `srun --nodes=2 --ntasks-per-node=2` has it.
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
}
# `salloc --ntasks=2` where the site has LaunchParameters=use_interactive_step, as SLURM 22 sets it.
INTERACTIVE = SLURM | {
    "SLURM_STEP_ID": "4294967290",
    "SLURM_STEP_NUM_TASKS": "1",
    "SLURM_STEP_TASKS_PER_NODE": "1",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
}
ORTE = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"}
JAX = {
    "JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234",
    "JAX_NUM_PROCESSES": "4",
    "JAX_PROCESS_ID": "3",
}


def cluster(*flags):
    return load_config("configs/tal1.py", [f"cluster.{flag}" for flag in flags]).cluster


@pytest.mark.parametrize(
    ("environment", "tpu", "expected"),
    [
        ({}, False, ("single", 1, 0, None)),
        (SLURM, False, ("SLURM", 4, 2, "gpu07:61447")),
        (SLURM | {"JAX_COORDINATOR_PORT": "900"}, False, ("SLURM", 4, 2, "gpu07:900")),
        (SLURM | {"JAX_COORDINATOR_ADDRESS": "a:9"}, False, ("SLURM", 4, 2, "a:9")),
        (INTERACTIVE, False, ("single", 1, 0, None)),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, False, ("single", 1, 0, None)),
        (OPEN_MPI | ORTE, False, ("Open MPI", 2, 1, "10.96.0.1")),
        (INTERACTIVE | OPEN_MPI | ORTE, False, ("Open MPI", 2, 1, "10.96.0.1")),
        (OPEN_MPI | {"JAX_COORDINATOR_ADDRESS": "a:9"}, False, ("Open MPI", 2, 1, "a:9")),
        (JAX, False, ("explicit", 4, 3, "10.0.0.1:1234")),
        (SLURM | JAX, False, ("explicit", 4, 3, "10.0.0.1:1234")),
        (SLURM | {"JAX_NUM_PROCESSES": "1"}, False, ("single", 1, 0, None)),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True, ("Cloud TPU", None, None, None)),
        (
            {"TPU_WORKER_HOSTNAMES": "a,b", "KUBERNETES_SERVICE_HOST": "k"},
            True,
            ("GKE", None, None, None),
        ),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, False, ("single", 1, 0, None)),
        ({}, True, ("Cloud TPU", None, None, None)),
        ({"TPU_SKIP_MDS_QUERY": "1"}, True, ("single", 1, 0, None)),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, True, ("single", 1, 0, None)),
    ],
)
def test_the_environment_decides_how_to_start(environment, tpu, expected):
    start = decide(cluster(), environment, tpu)
    found = (start.how, start.processes, start.process_id, start.coordinator)
    if ORTE.items() <= environment.items():  # its port is a checksum
        found = (*found[:3], start.coordinator.rpartition(":")[0])
    assert found == expected


def test_processes_of_open_mpi_5_name_the_same_coordinator():
    """It has no address of mpirun: on one host loopback, inside SLURM the first node."""
    one_host = {"OMPI_COMM_WORLD_LOCAL_SIZE": "2", "PMIX_NAMESPACE": "prterun-gpu07-4711@1"}
    found = {
        decide(cluster(), OPEN_MPI | one_host | {"OMPI_COMM_WORLD_RANK": rank}, False).coordinator
        for rank in "01"
    }
    assert len(found) == 1
    host, port = found.pop().split(":")
    assert host == "127.0.0.1" and 61440 <= int(port) < 65536
    inside = INTERACTIVE | OPEN_MPI | {"SLURM_JOB_NODELIST": "gpu[07-08]"}
    assert decide(cluster(), inside, False).coordinator.startswith("gpu07:")


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node001", "node001"),
        ("node001,host2", "node001"),
        ("node[001-015],host2", "node001"),
        ("n[007,009-015]-ib,host2", "n007-ib"),
        ("rack[2-3]n[08-11]", "rack2n08"),
    ],
)
def test_the_first_node_of_a_list_coordinates(nodes, first):
    assert first_node(nodes) == first


PER_TASK = {"SLURM_GPUS_PER_TASK": "1"}


@pytest.mark.parametrize(
    ("environment", "here", "local", "expected"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, 1, 0, None),  # one task a node: all of them
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, 8, 5, (5,)),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, 4, 1, (2, 3)),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, 3, 2, (4, 5)),
        ({}, 4, 3, (6, 7)),  # no variable: the 8 of the host
        ({"CUDA_VISIBLE_DEVICES": "5"} | PER_TASK, 8, 5, None),
        ({"CUDA_VISIBLE_DEVICES": "0"}, 8, 5, None),  # bound, in a cgroup of its own
        ({"CUDA_VISIBLE_DEVICES": "4,5,6,7", "SLURM_GPUS_PER_TASK": "a100:4"}, 2, 1, None),
        ({"CUDA_VISIBLE_DEVICES": "4,5,6,7", "SLURM_GPUS_ON_NODE": "8"}, 2, 1, None),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "SLURM_GPUS_ON_NODE": "4"}, 2, 1, (2, 3)),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"} | PER_TASK, 4, 3, (3,)),  # --gpu-bind=none
        (
            {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_TRES_PER_TASK": "cpu=4,gres/gpu:a100=2"},
            4,
            3,
            None,
        ),
        ({"CUDA_VISIBLE_DEVICES": ""}, 4, 3, None),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "JAX_LOCAL_DEVICE_IDS": "2"}, 4, 3, None),
    ],
)
def test_each_process_of_a_host_takes_its_own_gpus(environment, here, local, expected):
    assert share_of_gpus(environment, 8, here, local) == expected


def test_a_task_of_slurm_takes_its_share_and_more_tasks_than_gpus_are_one_sentence():
    visible = SLURM | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}
    found = decide(cluster(), visible, False, gpus=4)
    assert found.gpus == (0, 1)
    assert found.reason == "SLURM_STEP_NUM_TASKS=4, GPUs 0, 1 of those that it sees"
    alone = visible | {"SLURM_STEP_TASKS_PER_NODE": "3,1"}
    assert decide(cluster(), alone, False, gpus=4).reason.endswith(", all GPUs that it sees")
    assert decide(cluster(), visible | {"SLURM_LOCALID": "1"}, False, gpus=4).gpus == (2, 3)
    assert decide(cluster(), visible, False).gpus is None  # trains on the CPU
    crowded = visible | {"SLURM_STEP_TASKS_PER_NODE": "2,8"}
    with pytest.raises(UserError, match=r"8 processes on this host see the same GPUs \(4\); legal"):
        decide(cluster(), crowded, False, gpus=4)


def test_the_one_gpu_of_a_host_is_not_shared_by_its_processes():
    with pytest.raises(UserError, match=r"2 processes on this host see the same GPUs \(1\)"):
        share_of_gpus({}, 1, 2, 0)
    # Of several of the host, SLURM has given each process one.
    assert share_of_gpus({"SLURM_GPUS_ON_NODE": "2"}, 1, 2, 1) is None


def test_flags_come_before_the_environment():
    flags = ("coordinator=10.0.0.1:1234", "processes=8", "process_id=3")
    start = decide(cluster(*flags), SLURM | JAX, True)
    assert (start.how, start.processes, start.process_id) == ("explicit", 8, 3)
    assert start.coordinator == "10.0.0.1:1234"


@pytest.mark.parametrize(
    ("flags", "environment", "words"),
    [
        (("coordinator=host",), {}, "must be HOST:PORT"),
        (("coordinator=host:99999",), {}, "must be HOST:PORT"),
        (("coordinator=::1:45992", "processes=2"), {}, r"in brackets, as in \[::1\]:45992"),
        (("coordinator=host:1", "processes=2", "process_id=2"), {}, "must be 0 to 1"),
        (("processes=2",), {}, "needs --config.cluster.coordinator"),
        ((), JAX | {"JAX_PROCESS_ID": "4"}, "JAX_PROCESS_ID=4 of JAX_NUM_PROCESSES=4 is not legal"),
        ((), JAX | {"JAX_COORDINATOR_ADDRESS": "fd00::2:9"}, "an IPv6 address must be in brackets"),
        ((), {"JAX_NUM_PROCESSES": "4"}, "JAX_NUM_PROCESSES=4: .* go together; set all three"),
        ((), {"JAX_COORDINATOR_ADDRESS": "a:9"}, "ADDRESS=a:9: .* go together; set all three"),
        ((), OPEN_MPI, "does not say where process 0 is; give mpirun -x JAX_COORDINATOR_ADDRESS"),
    ],
)
def test_what_contradicts_itself_or_is_left_out_is_refused(flags, environment, words):
    with pytest.raises(UserError, match=words):
        decide(cluster(*flags), environment, False)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (
            {"MASTER_ADDR": "a", "WORLD_SIZE": "4", "RANK": "1", "LOCAL_RANK": "1"},
            "RANK of torchrun is not read, so this is a single process; to join the others set "
            "JAX_COORDINATOR_ADDRESS=$MASTER_ADDR:PORT JAX_NUM_PROCESSES=$WORLD_SIZE "
            "JAX_PROCESS_ID=$RANK",
        ),
        ({"JOB_COMPLETION_INDEX": "1"}, "JAX_PROCESS_ID=$JOB_COMPLETION_INDEX"),
        ({"PMI_SIZE": "2", "PMI_RANK": "0"}, "JAX_PROCESS_ID=$PMI_RANK"),
        (INTERACTIVE, "SLURM_NTASKS=2, but this is a single process; `srun jaxdna` starts"),
        ({"WORLD_SIZE": "1", "RANK": "0"}, ""),
        ({}, ""),
    ],
)
def test_variables_of_other_launchers_are_named_with_what_to_set_instead(environment, words):
    start = decide(cluster(), environment, False)
    assert start.how == "single"
    assert words in start.note and bool(words) == bool(start.note)


@pytest.mark.parametrize(
    ("vendor", "device", "is_tpu"),
    [
        ("0x1ae0", "0x0063", True),  # a v5e chip
        ("0x1ae0", "0x0042", False),  # Google's network card, in every one of its machines
        ("0x8086", "0x7d1d", False),  # an NPU, which is /dev/accel0 as well
        ("0x10de", "0x2684", False),  # a GPU that is bound to vfio
    ],
)
def test_only_googles_own_chips_are_tpus(vendor, device, is_tpu, monkeypatch, tmp_path):
    (tmp_path / "vendor").write_text(f"{vendor}\n")
    (tmp_path / "device").write_text(f"{device}\n")
    monkeypatch.setattr(glob, "glob", lambda pattern: [str(tmp_path / "vendor")])
    assert runtime._tpu_attached() is is_tpu


@pytest.mark.parametrize(
    ("platform", "words"),
    [
        ("tpu", "the metadata server, which knows the TPU's hosts, does not answer ("),
        ("cuda", "cannot be started ("),  # and nobody is waited for
    ],
)
def test_a_tpu_without_its_metadata_server_is_one_sentence_where_it_is_used(platform, words):
    code = (
        "import os; os.environ |= {'GCE_METADATA_IP': '127.0.0.1:9', 'CUDA_VISIBLE_DEVICES': ''}\n"
        "from jax._src import hardware_utils\n"
        "hardware_utils.num_available_tpu_chips_and_device_id = lambda: (4, None)\n"
        "from jax._src.clusters import cloud_tpu_cluster\n"
        "cloud_tpu_cluster.running_in_cloud_tpu_vm = True\n"
        "os.environ.pop('TPU_SKIP_MDS_QUERY', None)\n"
        "from jaxdna.cli.main import main\n"
        f"raise SystemExit(main(['doctor', '--config.runtime.platform={platform}']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert words in " ".join(done.stdout.split())
    assert ("cluster  Cloud TPU" in done.stderr) is (platform == "tpu")


def test_a_platform_without_a_device_is_one_sentence(jaxdna, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = jaxdna(
        "train", "--config=tal1", "--workdir=no-such-folder/x", "--config.runtime.platform=cuda"
    )
    assert done.returncode == 2
    assert "--config.runtime.platform=cuda cannot be started (" in done.stderr
    assert "Traceback" not in done.stderr and not Path("no-such-folder").exists()
