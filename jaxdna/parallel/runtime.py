"""Chooses the backend before jax starts one, and says what was found."""

import importlib.util
import os
import threading
from contextlib import nullcontext, suppress
from pathlib import Path

import jax
from jax._src import hardware_utils
from ml_collections import ConfigDict
from rich.console import Console

from jaxdna.errors import UserError
from jaxdna.parallel import plugins
from jaxdna.parallel.agreement import agree_on_settings
from jaxdna.parallel.cluster import join
from jaxdna.parallel.cores import cores, devices_for_cores
from jaxdna.parallel.settings import apply_settings
from jaxdna.parallel.start import decide
from jaxdna.storage.home import user_cache

_LEFT_TO_JAX = -1
_split = threading.Event()  # the CPU is several devices because we chose so


def start_backend(config: ConfigDict, console: Console) -> list[jax.Device]:
    """Starts the backend that `config.runtime` asks for, with the processes of `config.cluster`.

    Args:
      config: a whole configuration.
      console: says whom it waits for.

    Returns:
      All devices of all processes; of a CPU that was split for its cores those that the network
      wants.

    Raises:
      UserError: the platform is not there, or only the CPU is and an accelerator is required.
      PeerError: the other processes did not come.
      Disagreement: they have come with other settings, or other versions of packages.
    """
    runtime = config.runtime
    platform = join_others(config, console)
    try:
        with nullcontext() if platform != "cpu" and _cuda() else plugins.held_back():
            devices = jax.devices()
    except (RuntimeError, AssertionError) as error:  # jax asserts where a plugin finds no device
        cause = (str(error).strip() or "jax finds no such device").splitlines()[0]
        if platform == "auto" and "JAX_PLATFORMS" in os.environ:
            cause = f"JAX_PLATFORMS={os.environ['JAX_PLATFORMS']}: {cause}"
        raise UserError(
            f"--config.runtime.platform={runtime.platform} cannot be started ({cause}); "
            "`jaxdna doctor` shows what is there"
        ) from error
    if runtime.require_accelerator and devices[0].platform == "cpu":
        raise UserError(
            "--config.runtime.require_accelerator=true, but jax finds only the CPU; install "
            "jaxdna[tpu], [cuda12] or [cuda13] for the devices of this machine, or drop the flag"
        )
    if _split.is_set() and devices[0].platform == "cpu" and not runtime.cpu_devices:
        # Another network of this process may want fewer of them than the first one.
        return devices[: devices_for_cores(config, len(devices))]
    return devices


def join_others(config: ConfigDict, console: Console) -> str:
    """Chooses the platform, and joins the processes of `config.cluster`; starts no backend.

    Args:
      config: a whole configuration.
      console: says whom it waits for.

    Returns:
      The platform that jax is asked for, or `auto`.

    Raises:
      UserError: what is asked for contradicts itself, or comes too late.
      PeerError: the other processes did not come.
      Disagreement: they have come with other settings, or other versions of packages.
    """
    apply_settings()
    runtime = config.runtime
    platform, _ = _choose_platform(runtime)
    if platform != "auto":
        jax.config.update("jax_platforms", platform)
    _set_compilation_cache(runtime.compilation_cache)
    asked = (jax.config.values["jax_platforms"] or "tpu,cuda").split(",")
    tpu = "tpu" in asked and plugins.libtpu() and _tpu_attached()
    gpus = _gpus() if {"cuda", "gpu"} & set(asked) and plugins.installed() and not tpu else 0
    start = decide(config.cluster, os.environ, tpu, gpus)
    if runtime.cpu_devices:
        _simulate(runtime.cpu_devices)
    elif start.how == "single":
        with suppress(RuntimeError):  # a notebook in which jax is at work already
            _a_device_for_each_core(config)
    join(config.cluster, start, console)
    agree_on_settings(config)
    return platform


def _simulate(devices: int) -> None:
    try:
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError:  # a notebook in which jax is at work already
        raise UserError(
            f"--config.runtime.cpu_devices={devices} comes too late: jax has already started in "
            f"this process; legal: its own {len(jax.devices())} devices (0), or a new process"
        ) from None


def _a_device_for_each_core(config: ConfigDict) -> None:
    """Lets the CPU, where it is what runs, be as many devices as suit the network.

    Raises:
      RuntimeError: jax has started.
    """
    devices, flags = devices_for_cores(config, cores()), os.environ.get("XLA_FLAGS", "")
    said = "xla_force_host_platform_device_count" in flags
    if devices > 1 and not said and jax.config.values["jax_num_cpu_devices"] == _LEFT_TO_JAX:
        jax.config.update("jax_num_cpu_devices", devices)
        _split.set()


def why_platform(runtime: ConfigDict) -> str:
    """Returns one sentence that says which platform `start_backend` asks for, and why."""
    platform, reason = _choose_platform(runtime)
    chosen = "jax's own choice" if platform == "auto" else platform
    return f"{chosen}, since {reason}"


def _choose_platform(runtime: ConfigDict) -> tuple[str, str]:
    """Resolves `auto` where jax would choose badly; else leaves the choice to jax."""
    if runtime.platform != "auto":
        return runtime.platform, f"--config.runtime.platform={runtime.platform}"
    if runtime.cpu_devices:
        return "cpu", f"--config.runtime.cpu_devices={runtime.cpu_devices} simulates devices"
    if "JAX_PLATFORMS" in os.environ:
        return "auto", f"JAX_PLATFORMS={os.environ['JAX_PLATFORMS']} is set"
    if (plugins.libtpu() or plugins.installed()) and not _tpu_attached() and not _cuda():
        # `plan` installs compilers where no such device is: jax would try them and print errors.
        return "cpu", "the compilers for `plan` are installed, but there is neither a TPU nor CUDA"
    return "auto", "nothing asks for another one"


def _tpu_attached() -> bool:
    """As jax itself looks for chips: other accelerators have files in /dev of the same names."""
    return hardware_utils.num_available_tpu_chips_and_device_id()[0] > 0


def _gpus() -> int:
    return len([path for path in Path("/dev").glob("nvidia*") if path.name[6:].isdecimal()])


def _cuda() -> bool:
    """Whether jax may find GPUs, or should say why it does not: a device (or WSL's), or CUDA."""
    there = _gpus() or Path("/dev/dxg").exists() or importlib.util.find_spec("nvidia")
    return bool(plugins.installed() and there)


def _set_compilation_cache(folder: str) -> None:
    if folder == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if folder == "auto":
        if compilation_cache():  # the user's own JAX_COMPILATION_CACHE_DIR
            return
        own = user_cache()
        if own is None:
            return
        folder = str(own / "xla")
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
    if simulated and processes == 1 and len(devices) <= cores():
        note = (
            f" ({len(devices)} of {cores()} cores)" if len(devices) < cores() else " (one per core)"
        )
    return f"{len(devices)} x {kind}{note}" + (f" in {processes} processes" * (processes > 1))
