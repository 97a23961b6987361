"""Keeps off stderr what jax's compiler for GPUs says where there is no GPU.

Its libraries write to the file descriptor as they are loaded, before they read any setting, and
jax loads them whatever platform it is told to start. Nothing else is kept back. Imports no jax.
"""

import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_CHATTER = (b"cudart_stub.cc", b"All log messages before absl::InitializeLog() is called")


_stderr = 2  # the descriptor that people read; another one while theirs is caught


def write_stderr(text: bytes) -> None:
    """Writes to stderr itself, also while what others write there is caught."""
    os.write(_stderr, text)


@contextmanager
def no_chatter() -> Iterator[None]:
    """Passes on what is written to stderr meanwhile, without the lines about a missing driver."""
    global _stderr
    import tempfile  # not for everybody who imports jaxdna

    try:
        kept, caught = os.dup(2), tempfile.TemporaryFile()  # noqa: SIM115 (closed below)
    except OSError:  # there is no stderr, or no room for a file
        yield
        return
    try:
        sys.stderr.flush()
        _stderr = kept
        os.dup2(caught.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        _stderr = 2
        os.close(kept)
        with caught:
            caught.seek(0)
            rest = [line for line in caught if not any(part in line for part in _CHATTER)]
        if rest:
            os.write(2, b"".join(rest))


class _QuietLoader(Loader):
    """Loads a module as its own loader does, without chatter."""

    def __init__(self, spec: ModuleSpec):
        assert spec.loader is not None
        self._spec, self._loader = spec, spec.loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._spec.loader = module.__loader__ = self._loader  # for whoever asks the module later
        with no_chatter():
            self._loader.exec_module(module)


class _QuietImport(MetaPathFinder):
    """Finds jax, once, with a loader that keeps the chatter of its import back."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        if name != "jax":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _QuietLoader(spec)
        return spec


def import_jax_quietly() -> None:
    """Prepares the import of jax, whenever it comes; does nothing where no such library is."""
    there = any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13))
    if there and "jax" not in sys.modules:
        sys.meta_path.insert(0, _QuietImport())
