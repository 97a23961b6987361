"""jax's plugins for NVIDIA GPUs, which jax loads whatever platform it is told to start."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_MODULES = {n: f"jax_plugins.xla_cuda{n}" for n in (12, 13)}


def installed() -> list[str]:
    """The modules of the plugins that are installed here."""
    return [name for n, name in _MODULES.items() if importlib.util.find_spec(f"jax_cuda{n}_plugin")]


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
