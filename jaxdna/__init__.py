"""jaxdna: train DNA-motif classifiers on any mesh of TPUs, GPUs or CPUs.

Importing this package starts no backend and imports neither jax nor numpy: what it offers is
imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxdna.quiet import import_jax_quietly

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ml_collections import ConfigDict

    from jaxdna.api import Run, open_run, train
    from jaxdna.errors import JaxdnaError, UserError

__version__ = "0.2.0"
__all__ = ["JaxdnaError", "Run", "UserError", "__version__", "load_config", "open_run", "train"]

import_jax_quietly()

_HOMES = {
    "JaxdnaError": "errors",
    "Run": "api",
    "UserError": "errors",
    "open_run": "api",
    "train": "api",
}


def load_config(spec: "str | Path", overrides: "Iterable[str]" = ()) -> "ConfigDict":
    """Returns a configuration; see `jaxdna.config.load_config`.

    Args:
      spec: the name of a config, with its variant (`"tal1:report"`), or the path of a file.
      overrides: `section.key=value` texts, in the order given; the last one wins.

    Raises:
      UserError: the file, a key or a value is wrong.
    """
    from jaxdna.config import load_config as load
    from jaxdna.errors import speaking_python

    with speaking_python():
        return load(spec, overrides)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxdna' has no attribute {name!r}")
    return getattr(importlib.import_module(f"jaxdna.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
