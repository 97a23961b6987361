"""Runs N local processes of a verb as one program, and ends them together.

jaxdna launch --processes=2 -- train --config=tal1 --workdir=runs/two
"""

import argparse
import os
import sys
from pathlib import Path

from jaxdna.cli.common import add_config, add_own_sequences, own_sequences
from jaxdna.cli.main import split_overrides
from jaxdna.config import load_config
from jaxdna.config_files import run_name
from jaxdna.errors import UserError
from jaxdna.storage.files import Folder, folder_at
from jaxdna.storage.places import Place, beside, place_of
from jaxdna.storage.trial import check_store

# Once jax has compiled a small network a process has 370 MB to itself (Linux, a CPU).
_PROCESS_BYTES = 256 * 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's flags."""
    parser.add_argument("--processes", type=int, required=True, metavar="N", help="how many")
    parser.add_argument("--port", type=int, default=0, help="where process 0 coordinates (0: any)")
    parser.add_argument(
        "--logs", type=Path, metavar="DIR", help="one log per process (default: WORKDIR.logs)"
    )
    parser.add_argument(
        "--one-gpu-each",
        action="store_true",
        help="process i sees only the i-th GPU (of CUDA_VISIBLE_DEVICES, where that is set)",
    )
    parser.add_argument(
        "--grace-seconds",
        type=float,
        default=10.0,
        metavar="S",
        help="how long the others may take to end after one has failed (default: 10)",
    )
    parser.add_argument(
        "--max-restarts",
        type=int,
        default=0,
        metavar="N",
        help="starts again after a lost process, a hang or a preemption, while there is progress "
        "(default: 0)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Launches; returns the exit code of the process that failed first, or 0."""
    most = _most_processes()
    if not 1 <= arguments.processes <= most:
        raise UserError(
            f"--processes={arguments.processes} is not legal: it must be 1 to {most}, since each "
            f"takes {_PROCESS_BYTES >> 20} MiB of this machine's memory or more"
        )
    if not 0 <= arguments.port < 65536:
        raise UserError(f"--port={arguments.port} is not legal: it must be 0 to 65535")
    if not arguments.command or arguments.overrides:
        raise UserError(
            "the command and all its flags come after `--`: "
            "jaxdna launch --processes=2 -- train --config=configs/tal1.py"
        )
    if not 0 <= arguments.max_restarts <= 10**6:
        raise UserError(
            f"--max-restarts={arguments.max_restarts} is not legal: it must be 0 to {10**6}"
        )
    gpus = _gpus(arguments.processes) if arguments.one_gpu_each else []
    workdir, command = _with_workdir(arguments.command)
    if command[0] == "train":
        check_store(workdir)  # else each process would, after it has imported jax and joined

    from jaxdna.parallel.cluster import free_port
    from jaxdna.parallel.launcher import launch, supervise

    return supervise(
        lambda: launch(
            command,
            arguments.processes,
            arguments.port or free_port(),
            arguments.logs or beside(workdir, ".logs"),
            arguments.grace_seconds,
            gpus,
        ),
        arguments.max_restarts,
        lambda: _saved(folder_at(workdir / "checkpoints")),
    )


def _saved(checkpoints: Folder) -> set[str]:
    try:
        return set(checkpoints.finished())
    except OSError:  # not there yet; if it can never be, the processes say so
        return set()


def _most_processes() -> int:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, memory // _PROCESS_BYTES)


def _gpus(processes: int) -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = visible.split(",") if visible else [str(i) for i in range(processes)]
    if len(gpus) < processes:
        raise UserError(
            f"--processes={processes} is not legal with --one-gpu-each: CUDA_VISIBLE_DEVICES="
            f"{visible} names {len(gpus)}; it must be 1 to {len(gpus)}"
        )
    return gpus


def _with_workdir(command: list[str]) -> tuple[Place, list[str]]:
    """Returns the run folder of a command, and the command naming it: all take the same one."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_config(flags, required=False)
    add_own_sequences(flags)
    flags.add_argument("--workdir", type=place_of)
    overrides, others = split_overrides(command)
    known, _ = flags.parse_known_args(others)
    if known.workdir or command[0] != "train":
        return known.workdir or Path("runs") / run_name(known.config or "launch"), command
    from jaxdna.runs.own_folder import own_folder

    known.overrides = overrides
    spec, overrides = own_sequences(known)
    workdir, note = own_folder(Path("runs") / run_name(spec), load_config(spec, overrides))
    if note:
        print(f"note     {note}", file=sys.stderr)
    return workdir, [*command, f"--workdir={workdir}"]
