"""Prints what a bug report needs: versions, devices, and what would be started and why."""

import argparse
import os
import platform
from typing import Any

EXTRAS = {
    "libtpu": "tpu, plan",
    "jax-cuda12-plugin": "cuda12",
    "jax-cuda13-plugin": "cuda13",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb has no flags of its own."""


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Looks around; returns what it saw."""
    import jax
    from rich.console import Console

    from jaxdna.config import override, schema, validate
    from jaxdna.parallel.runtime import (
        compilation_cache,
        describe_devices,
        start_backend,
        why_platform,
    )
    from jaxdna.training.display import make_console, table
    from jaxdna.versions import PACKAGES, versions

    leaves = {key: field.default for key, field in schema("tal1", "motif_cnn").items()}
    config = validate(override(leaves, arguments.overrides))
    reason = why_platform(config.runtime)
    devices = start_backend(config, make_console())
    ours = ("JAX_", "XLA_", "TPU_", "CUDA_")
    settings = {name: value for name, value in os.environ.items() if name.startswith(ours)}
    seen = {
        "versions": versions((*PACKAGES, "ml-collections", "tensorboardX", *EXTRAS)),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "platform": jax.default_backend(),
        "reason": reason,
        "devices": [str(device) for device in devices],
        "processes": jax.process_count(),
        "compilation_cache": compilation_cache(),
        "environment": settings,
    }
    if not arguments.json:
        console = Console(highlight=False)
        rows = [*seen["versions"].items(), ("system", seen["system"]), ("cores", seen["cores"])]
        console.print(table("Versions and system", ("", ""), rows))
        console.print(f"platform  {seen['platform']}: {reason}")
        console.print(f"devices   {describe_devices(devices)}")
        console.print(f"processes {seen['processes']}")
        console.print(f"cache     {seen['compilation_cache'] or 'off'}")
        for name, value in settings.items():
            console.print(f"variable  {name}={value}")
    return seen
