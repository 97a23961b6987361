"""Prints what a bug report needs: versions, devices, and what would be started and why.

With --check it also computes on the devices, for a minute or two: are their numbers right, and how
fast are they? It exits with 1 where something is not as it must be.

With --workdir it tries whether a run could be in that folder, or bucket.

  jaxdna doctor
  jaxdna doctor --check
  jaxdna doctor --workdir=gs://bucket/runs/a
"""

import argparse
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from jaxdna.errors import EXIT_FAULT, EXIT_OK, UserError, nearest
from jaxdna.storage.places import Place, place_of

# What is asked for beside `versions.PACKAGES`; what is not installed is left out.
_MORE = (
    "ml-collections",
    "tensorboardX",
    "libtpu",  # [tpu], [plan]
    "jax-cuda12-plugin",  # [cuda12]
    "jax-cuda13-plugin",  # [cuda13]
    "ray",  # [ray]
    "tensorflow-datasets",  # [images]
)


CHECKS = ("operations", "sums", "repeat", "checkpoint", "layouts", "rates", "speed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's flags."""
    parser.add_argument(
        "--check", nargs="?", const=",".join(CHECKS), metavar="NAMES",
        help="check the devices; =NAMES: only some of " + ", ".join(CHECKS),
    )  # fmt: skip
    parser.add_argument(
        "--workdir",
        type=place_of,
        metavar="DIR",
        help="a folder to read and write, also in gs:// or s3://",
    )


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Looks around, and checks; returns what it saw, also where no device can be started."""
    names = arguments.check.split(",") if arguments.check is not None else []
    for name in names:
        if name not in CHECKS:
            raise UserError(
                f"--check={arguments.check}: '{name}' is not a check; {nearest(name, CHECKS)}"
            )

    import jax

    from jaxdna.config import default_config, flat, override, validate
    from jaxdna.console import listing, make_console, results_console
    from jaxdna.data.code_store import cache_folder
    from jaxdna.extensions import extensions
    from jaxdna.parallel.runtime import (
        compilation_cache,
        describe_devices,
        start_backend,
        why_platform,
    )
    from jaxdna.storage.home import home, user_cache
    from jaxdna.storage.permissions import who_can_write
    from jaxdna.versions import PACKAGES, versions

    config = validate(override(flat(default_config("tal1", "motif_cnn")), arguments.overrides))
    reason, error = why_platform(config.runtime), None
    try:
        devices = start_backend(config, make_console())
    except UserError as wrong:
        devices, error = [], str(wrong)
    ours = ("JAX_", "XLA_", "TPU_", "CUDA_", "NCCL_", "MEGASCALE_", "SLURM_NTASKS", "SLURM_PROCID")
    settings = {name: value for name, value in os.environ.items() if name.startswith(ours)}
    seen: dict[str, Any] = {
        "versions": versions((*PACKAGES, *_MORE)),
        "extensions": extensions(),
        "installed": _installed(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "platform": jax.default_backend() if devices else None,
        "reason": reason,
        "error": error,
        "devices": [str(device) for device in devices],
        "processes": jax.process_count() if devices else 1,
        "compilation_cache": compilation_cache(),
        "environment": settings,
    }
    if arguments.workdir:
        seen["workdir"] = _tried(arguments.workdir)
    kept, own = config.runtime.data_cache, home()
    believed = {
        "compiled programs": compilation_cache() or "",
        "converted sequences": str(cache_folder(kept)) if user_cache() or kept != "auto" else "",
        "Ray's token": str(own / ".ray") if own else "",
    }
    open_to = {what: who_can_write(Path(path)) for what, path in believed.items() if path}
    seen["others_can_write"] = {what: how for what, how in open_to.items() if how}
    if not arguments.json:
        console = results_console()
        rows = [
            *seen["versions"].items(),
            *((f"with {k}", v) for k, v in seen["extensions"].items()),
        ]
        rows += [(key, seen[key]) for key in ("installed", "system", "cores")]
        rows.append(("memory", f"{seen['memory_gib']} GiB"))
        console.print(listing("Versions and system", rows))
        console.print()
        started = seen["platform"] or "none"
        rows = [
            ("platform", reason if reason.startswith(started) else f"{started}: {reason}"),
            ("devices", describe_devices(devices) if devices else error),
            ("processes", seen["processes"]),
            ("cache", seen["compilation_cache"] or "off"),
        ]
        if arguments.workdir:
            tried = seen["workdir"]
            said = tried["error"] or f"can be read, written and locked ({tried['seconds']:.2f} s)"
            rows.append(("workdir", f"{tried['path']} {said}"))
        for what, how in seen["others_can_write"].items():
            rows.append(("warning", f"other users can write to the folder of {what}: {how}"))
        rows += [("variable", f"{name}={value}") for name, value in settings.items()]
        console.print(listing("What would be started", rows))
    usable = not seen.get("workdir", {}).get("error")
    if not names:
        return seen, EXIT_OK if usable else EXIT_FAULT
    rows = _check(names, devices, arguments.json) if devices else []
    seen["check"] = {"ok": bool(rows) and all(row["ok"] for row in rows), "rows": rows}
    return seen, EXIT_OK if seen["check"]["ok"] and usable else EXIT_FAULT


def _tried(place: Place) -> dict[str, Any]:
    from jaxdna.storage.files import folder_at
    from jaxdna.storage.trial import trial

    begun = time.perf_counter()
    error = trial(folder_at(place))
    return {"path": str(place), "error": error, "seconds": time.perf_counter() - begun}


def _check(names: list[str], devices: list[Any], json: bool) -> list[dict[str, Any]]:
    from jaxdna.console import loud, make_console, results_console, table
    from jaxdna.parallel.peers import one_fate
    from jaxdna.parallel.runtime import describe_devices
    from jaxdna.study.check import check

    notes, rows = make_console(), []
    with one_fate():
        for row in check(names, devices):
            rows.append(row)
            notes.print(f"{row.name}: {_verdict(row)}, {row.seconds:.1f} s")
    shown = [
        (row.name, _verdict(row), _number(row.value, row.unit), _number(row.limit), row.note)
        for row in rows
    ]
    columns = ("check", "", "found", "at most", "")
    made = table(f"Checks of {describe_devices(devices)}", columns, shown)
    made.columns[-1].justify = "left"
    results_console(json).print(made)
    wrong = [row.name for row in rows if not row.ok]
    if wrong:
        loud(notes)(f"{len(wrong)} of {len(rows)} checks are not ok: {', '.join(wrong)}")
    return [vars(row) for row in rows]


def _verdict(row: Any) -> str:
    return "ok" if row.ok else "NOT OK"


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "-"
    return f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}"


def _installed() -> str:
    """How this jaxdna came here: a checkout with its commit, or a wheel."""
    package = Path(__file__).parent.parent
    if not (package.parent / "pyproject.toml").exists():
        return f"wheel in {package.parent}"
    asked = ["git", "-C", str(package.parent), "describe", "--always", "--dirty"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    return f"checkout {said or 'without git'} in {package.parent}"
