"""How a process joins the others: read from the flags and the environment, joining nothing."""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from ml_collections import ConfigDict

from jaxdna.errors import UserError


@dataclass(frozen=True)
class Start:
    """How this process joins the others.

    Attributes:
      how: what decided it: `explicit`, `SLURM`, `Open MPI`, `Cloud TPU`, `GKE` or `single`.
      reason: the flags or variables that it was read from, and which GPUs follow from them.
      processes: how many there are; None where jax finds out.
      process_id: which of them this is, from 0; None where jax finds out.
      coordinator: `host:port` of process 0; None where jax finds out.
      gpus: this process's own among the GPUs that it sees, counted from 0; None for all of them.
      note: what is not read though it may have been meant, with what to set instead; else empty.
    """

    how: str
    reason: str
    processes: int | None = 1
    process_id: int | None = 0
    coordinator: str | None = None
    gpus: tuple[int, ...] | None = None
    note: str = ""


def decide(
    cluster: ConfigDict, environment: Mapping[str, str], tpu_attached: bool, gpus: int = 0
) -> Start:
    """Decides how to start, from the flags first and the environment second.

    Args:
      cluster: `config.cluster`.
      environment: usually `os.environ`.
      tpu_attached: whether this process uses TPU chips of this host.
      gpus: how many GPUs the host has, where this process uses them.

    Raises:
      UserError: the flags, or the variables, contradict each other or leave something out.
    """
    if cluster.coordinator:
        flags = "--config.cluster."
        check_address(f"{flags}coordinator", cluster.coordinator)
        _check_id(f"{flags}process_id", cluster.process_id, f"{flags}processes", cluster.processes)
        given = (cluster.processes, cluster.process_id, cluster.coordinator)
        return Start("explicit", f"{flags}*", *given)
    if cluster.processes > 1:
        raise UserError(
            f"--config.cluster.processes={cluster.processes} needs "
            "--config.cluster.coordinator=HOST:PORT of process 0"
        )
    address = environment.get("JAX_COORDINATOR_ADDRESS", "")
    if address:
        check_address("JAX_COORDINATOR_ADDRESS", address)
    for found in (
        _jax_variables(environment, address, tpu_attached),
        _open_mpi(environment, address, gpus),
        _slurm(environment, address, gpus),
    ):
        if found:
            return found
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    slices = _number(environment, "MEGASCALE_NUM_SLICES") or 0
    if tpu_attached and (len(hosts) > 1 or slices > 1):
        how = "GKE" if "KUBERNETES_SERVICE_HOST" in environment else "Cloud TPU"
        return Start(how, "TPU_WORKER_HOSTNAMES or MEGASCALE_NUM_SLICES", None, None)
    if tpu_attached and not {"TPU_WORKER_HOSTNAMES", "TPU_SKIP_MDS_QUERY"} & environment.keys():
        # A TPU VM: only its metadata server knows how many hosts the slice has, and jax asks it.
        return Start("Cloud TPU", "TPU chips are attached", None, None)
    note = "" if tpu_attached else _not_read(environment)
    return Start("single", "nothing names other processes", note=note)


def check_address(name: str, address: str) -> None:
    """Raises UserError where `address`, the value of `name`, is not HOST:PORT."""
    host, colon, port = address.rpartition(":")
    if ":" in host and not re.fullmatch(r"\[[^\[\]]+\]", host):
        raise UserError(
            f"{name}={address} is not legal: an IPv6 address must be in brackets, as in [::1]:45992"
        )
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(f"{name}={address} is not legal: it must be HOST:PORT")


def _check_id(id_name: str, process_id: int, count_name: str, processes: int) -> None:
    if not 0 <= process_id < processes:
        raise UserError(
            f"{id_name}={process_id} of {count_name}={processes} is not legal: the id must be 0 to "
            f"{processes - 1}"
        )


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    return int(text) if text.isdecimal() else None


def _jax_variables(
    environment: Mapping[str, str], address: str, tpu_attached: bool
) -> Start | None:
    """Jax's own variables, all three; the address alone is for a launcher that has the rest."""
    names = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    processes, process_id = (_number(environment, name) for name in names)
    counted = tpu_attached or bool({"OMPI_COMM_WORLD_RANK", "SLURM_STEP_ID"} & environment.keys())
    given = [f"{name}={environment[name]}" for name in names if name in environment]
    if not given and (counted or not address):
        return None
    if processes == 1:
        return Start("single", "JAX_NUM_PROCESSES=1")
    if processes is None or process_id is None or not address:
        given += [f"JAX_COORDINATOR_ADDRESS={address}"] * bool(address)
        raise UserError(
            f"{' '.join(given)}: JAX_COORDINATOR_ADDRESS (HOST:PORT of process 0), "
            "JAX_NUM_PROCESSES and JAX_PROCESS_ID go together; set all three, or none"
        )
    _check_id(names[1], process_id, names[0], processes)
    return Start("explicit", "JAX_COORDINATOR_ADDRESS", processes, process_id, address)


def _open_mpi(environment: Mapping[str, str], address: str, gpus: int) -> Start | None:
    """Mpirun of Open MPI, inside SLURM too; where process 0 is it does not say itself."""
    size, rank, here, local = (
        _number(environment, f"OMPI_COMM_WORLD_{name}")
        for name in ("SIZE", "RANK", "LOCAL_SIZE", "LOCAL_RANK")
    )
    if size is None or size == 1 or rank is None:
        return None
    mother = re.search(
        r"tcp://([^,:]+)|tcp6://(\[[^,\]]+)", environment.get("OMPI_MCA_orte_hnp_uri", "")
    )
    if here == size:
        host = "127.0.0.1"
    elif "SLURM_JOB_NODELIST" in environment:
        host = first_node(environment["SLURM_JOB_NODELIST"])
    elif mother:  # until Open MPI 4: the host of mpirun
        host = mother[1] or f"{mother[2]}]"
    elif not address:
        raise UserError(
            f"OMPI_COMM_WORLD_SIZE={size}: Open MPI started processes on several hosts, but does "
            "not say where process 0 is; give mpirun -x JAX_COORDINATOR_ADDRESS=HOST:PORT, with "
            "the first host and a free port on it"
        )
    job = environment.get("PMIX_NAMESPACE") or environment.get("OMPI_MCA_orte_hnp_uri", "")
    address = address or f"{host}:{_port(environment, zlib.crc32(job.encode()))}"
    share = share_of_gpus(environment, gpus, here or 1, local or 0)
    reason = f"OMPI_COMM_WORLD_SIZE={size}{_words(share, gpus)}"
    return Start("Open MPI", reason, size, rank, address, share)


def _slurm(environment: Mapping[str, str], address: str, gpus: int) -> Start | None:
    """The tasks of one srun; a shell of salloc is a step of one task, or of none."""
    name = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
    size, rank = _number(environment, name), _number(environment, "SLURM_PROCID")
    nodes, job = environment.get("SLURM_STEP_NODELIST"), _number(environment, "SLURM_JOB_ID")
    if size is None or size == 1 or rank is None or "SLURM_STEP_ID" not in environment:
        return None
    if not address and (not nodes or job is None):
        return None
    address = address or f"{first_node(nodes or '')}:{_port(environment, job or 0)}"
    here = _tasks_here(environment)
    share = share_of_gpus(environment, gpus, here, _number(environment, "SLURM_LOCALID") or 0)
    return Start("SLURM", f"{name}={size}{_words(share, gpus)}", size, rank, address, share)


def _port(environment: Mapping[str, str], job: int) -> int:
    """The port that jax itself would take: one of the last 4096, by the number of the job."""
    return _number(environment, "JAX_COORDINATOR_PORT") or 61440 + job % 4096


def first_node(nodes: str) -> str:
    """Returns the first host of a SLURM node list such as `gpu[07-09,12],login1`."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^,\-\]]*)[^\]]*\]", r"\1", first[0] if first else "")


def _tasks_here(environment: Mapping[str, str]) -> int:
    """How many tasks of the step are on this node, from a text such as `8(x3),4`."""
    counts: list[int] = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        if found := re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip()):
            counts += [int(found[1])] * int(found[2] or 1)
    node = _number(environment, "SLURM_NODEID") or 0
    return counts[node] if node < len(counts) else 1


def share_of_gpus(
    environment: Mapping[str, str], gpus: int, here: int, local: int
) -> tuple[int, ...] | None:
    """Chooses this process's GPUs among those that it sees.

    Where SLURM has given each task its own, a task sees no others, and takes all of them; where all
    see the same, each takes an equal run of them.

    Args:
      environment: usually `os.environ`.
      gpus: how many GPUs the host has; 0 where this process does not use them.
      here: how many processes of the run are on this host.
      local: which of these this is, from 0.

    Returns:
      Numbers among the visible ones, from 0; None for all.

    Raises:
      UserError: there are more processes than GPUs, and all see the same GPUs.
    """
    names = environment.get("CUDA_VISIBLE_DEVICES")
    visible = gpus if names is None else len([name for name in names.split(",") if name.strip()])
    on_node = _number(environment, "SLURM_GPUS_ON_NODE")
    # A single one is this process's own where it was chosen for it, or the host has more.
    own = visible < 2 and (names is not None or max(gpus, on_node or 0) >= here)
    if not gpus or here == 1 or own or "JAX_LOCAL_DEVICE_IDS" in environment:
        return None
    each = _gpus_per_task(environment)
    if each is None and on_node and visible < on_node:
        return None  # bound in another way, such as --gpu-bind
    each = each or visible // here
    if each == visible:
        return None
    if not each or (local + 1) * each > visible:
        raise UserError(
            f"{here} processes on this host see the same GPUs ({visible}); "
            f"legal: at most {visible} per host (--ntasks-per-node), or --gpus-per-task=1"
        )
    return tuple(range(local * each, (local + 1) * each))


def _words(share: tuple[int, ...] | None, gpus: int) -> str:
    if not gpus:
        return ""
    if share is None:
        return ", all GPUs that it sees"
    return f", GPUs {', '.join(map(str, share))} of those that it sees"


def _gpus_per_task(environment: Mapping[str, str]) -> int | None:
    """What --gpus-per-task or --tres-per-task asked for: `1`, `a100:2`, `cpu=4,gres/gpu:a100=2`."""
    plain = re.search(r"(\d+)$", environment.get("SLURM_GPUS_PER_TASK", ""))
    tres = re.search(r"gpu(?:[:=][a-z]\w*)?[:=](\d+)", environment.get("SLURM_TRES_PER_TASK", ""))
    found = plain or tres
    return int(found[1]) if found else None


# Launchers whose variables give no address that jax could use: whose they are, how many processes
# there are, which of them this is, and what is known of process 0.
_OTHERS = (
    ("torchrun", "WORLD_SIZE", "RANK", "$MASTER_ADDR:PORT"),
    ("an Indexed Job", None, "JOB_COMPLETION_INDEX", "HOST-OF-INDEX-0:PORT"),
    ("MPICH or Intel MPI", "PMI_SIZE", "PMI_RANK", "HOST-OF-RANK-0:PORT"),
)


def _not_read(environment: Mapping[str, str]) -> str:
    tasks = _number(environment, "SLURM_NTASKS") or 1
    if tasks > 1:
        return f"SLURM_NTASKS={tasks}, but this is a single process; `srun jaxdna` starts them all"
    for whose, count, rank, address in _OTHERS:
        several = count is None or (_number(environment, count) or 1) > 1
        if several and _number(environment, rank) is not None:
            return (
                f"{rank} of {whose} is not read, so this is a single process; to join the others "
                f"set JAX_COORDINATOR_ADDRESS={address} "
                f"JAX_NUM_PROCESSES={f'${count}' if count else 'COMPLETIONS'} "
                f"JAX_PROCESS_ID=${rank}"
            )
    return ""
