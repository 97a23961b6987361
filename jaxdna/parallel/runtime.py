"""Chooses the backend before jax starts one, and says what was found."""

import importlib.util
import os
from pathlib import Path

import jax
from ml_collections import ConfigDict
from rich.console import Console

from jaxdna.errors import UserError
from jaxdna.parallel.cluster import join, start_of
from jaxdna.parallel.settings import apply_settings


def start_backend(config: ConfigDict, console: Console) -> list[jax.Device]:
    """Starts the backend that `config.runtime` asks for, with the processes of `config.cluster`.

    Args:
      config: a whole configuration.
      console: says whom it waits for.

    Returns:
      All devices of all processes.

    Raises:
      UserError: the platform is not there, or only the CPU is and an accelerator is required.
      PeerError: the other processes did not come.
    """
    apply_settings()
    runtime = config.runtime
    platform, _ = _choose_platform(runtime)
    if platform != "auto":
        jax.config.update("jax_platforms", platform)
    if runtime.cpu_devices:
        _simulate(runtime.cpu_devices)
    _set_compilation_cache(runtime.compilation_cache)
    attached = platform != "cpu" and os.environ.get("JAX_PLATFORMS") != "cpu" and _tpu_attached()
    join(config.cluster, start_of(config.cluster, attached), console)
    try:
        devices = jax.devices()
    except RuntimeError as error:
        cause = str(error).strip().splitlines()[0]
        raise UserError(
            f"--config.runtime.platform={runtime.platform} cannot be started ({cause}); "
            "`jaxdna doctor` shows what is there"
        ) from error
    if runtime.require_accelerator and devices[0].platform == "cpu":
        raise UserError(
            "--config.runtime.require_accelerator=true, and jax finds only the CPU; install "
            "jaxdna[tpu], [cuda12] or [cuda13] for the devices of this machine, or drop the flag"
        )
    return devices


def _simulate(devices: int) -> None:
    try:
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError:  # a notebook in which jax is at work already
        raise UserError(
            f"--config.runtime.cpu_devices={devices} comes too late: jax has started in this "
            f"process; legal: its own {len(jax.devices())} devices (0), or a fresh process"
        ) from None


def why_platform(runtime: ConfigDict) -> str:
    """Returns one sentence that says which platform `start_backend` asks for, and why."""
    platform, reason = _choose_platform(runtime)
    return f"{'left to jax' if platform == 'auto' else platform}, since {reason}"


def _choose_platform(runtime: ConfigDict) -> tuple[str, str]:
    """Resolves `auto` where jax would choose badly; else leaves the choice to jax."""
    if runtime.platform != "auto":
        return runtime.platform, f"--config.runtime.platform={runtime.platform}"
    if runtime.cpu_devices:
        return "cpu", f"--config.runtime.cpu_devices={runtime.cpu_devices} simulates devices"
    if "JAX_PLATFORMS" in os.environ:
        return "auto", f"JAX_PLATFORMS={os.environ['JAX_PLATFORMS']} is set"
    if importlib.util.find_spec("libtpu") and not _tpu_attached() and not _cuda_plugin():
        # `plan` installs libtpu where no TPU is: jax would try it and print errors.
        return "cpu", "libtpu is installed and no TPU is attached"
    return "auto", "nothing asks for another one"


def _tpu_attached() -> bool:
    return any(Path("/dev").glob("accel*")) or any(Path("/dev").glob("vfio/[0-9]*"))


def _cuda_plugin() -> bool:
    return any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13))


def _set_compilation_cache(folder: str) -> None:
    if folder == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if folder == "auto":
        if compilation_cache():  # the user's own JAX_COMPILATION_CACHE_DIR
            return
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = str(Path(root) / "jaxdna" / "xla")
    jax.config.update("jax_compilation_cache_dir", folder)
    # By default programs that compile in under a second are not kept: ours are such.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def compilation_cache() -> str | None:
    """The folder of compiled programs, or None."""
    return jax.config.values["jax_compilation_cache_dir"]


def describe_devices(devices: list[jax.Device]) -> str:
    """Returns one line such as `8 x cpu (simulated) in 2 processes` or `4 x TPU v5e`."""
    kind = devices[0].device_kind
    processes = jax.process_count()
    simulated = kind == "cpu" and len(devices) > processes
    note = " (simulated)" if simulated else ""
    return f"{len(devices)} x {kind}{note}" + (f" in {processes} processes" * (processes > 1))
