"""What compiles for accelerators here; its GPU plugins jax loads whatever it is to start."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

_MODULES = {n: f"jax_plugins.xla_cuda{n}" for n in (12, 13)}


def installed() -> list[str]:
    """The modules of the plugins that are installed here."""
    return [name for n, name in _MODULES.items() if importlib.util.find_spec(f"jax_cuda{n}_plugin")]


def libtpu() -> bool:
    """Whether the compiler and driver for TPUs are there."""
    return bool(os.environ.get("TPU_LIBRARY_PATH") or importlib.util.find_spec("libtpu"))


def chips_seen() -> bool:
    """Whether TPU chips may be attached; jax knows, but takes long to import."""
    devices = Path("/dev")
    return libtpu() and any((*devices.glob("accel*"), *devices.glob("vfio/*")))


@contextmanager
def held_back() -> Iterator[None]:
    """Keeps jax from loading them while it starts another platform.

    They are large, and say on stderr that there is no driver. jax calls `initialize` of each (see
    docs.jax.dev, Developing a new PJRT plugin); here it finds one that does nothing.
    """
    held = [name for name in installed() if name not in sys.modules]
    for name in held:
        idle = ModuleType(name)
        idle.initialize = lambda: None  # type: ignore[attr-defined]
        sys.modules[name] = idle
    try:
        yield
    finally:
        for name in held:
            del sys.modules[name]


def load() -> None:
    """Loads them after all, in a process in which they were held back."""
    for name in installed():
        importlib.import_module(name).initialize()
