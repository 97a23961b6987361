"""Versions of everything that a bug report needs, read without importing any of it."""

import platform
from importlib.metadata import PackageNotFoundError, version

import jaxdna

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Returns the versions of jaxdna, Python and `packages`; those not installed are left out."""
    found = {"jaxdna": jaxdna.__version__, "python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
