"""jaxdna: train DNA-motif classifiers on any mesh of TPUs, GPUs or CPUs.

Importing this package starts no backend and imports neither jax nor numpy: what it offers is
imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxdna.quiet import import_jax_quietly

if TYPE_CHECKING:
    from jaxdna.api import Run, open_run, train
    from jaxdna.config import load_config
    from jaxdna.errors import JaxdnaError, UserError

__version__ = "0.2.0"
__all__ = ["JaxdnaError", "Run", "UserError", "__version__", "load_config", "open_run", "train"]

import_jax_quietly()

_HOMES = {
    "JaxdnaError": "errors",
    "Run": "api",
    "UserError": "errors",
    "load_config": "config",
    "open_run": "api",
    "train": "api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxdna' has no attribute {name!r}")
    return getattr(importlib.import_module(f"jaxdna.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
