"""Config files: a path or URL of the user's, or the name of one that travels with the package."""

import ast
import importlib.util
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxdna.errors import UserError, nearest
from jaxdna.storage.places import Url, input_place, name_and_choice

# Inside the package where a wheel was installed, beside it in a checkout.
_FOLDERS = (Path(__file__).parent / "configs", Path(__file__).parent.parent / "configs")

_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


def shipped_configs() -> dict[str, Path]:
    """Returns the configs that travel with the package: name -> file."""
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.py"))} if folder else {}


def run_config_file(spec: str) -> ConfigDict:
    """Returns what the config file's `get_config` returns; nothing is checked yet.

    Args:
      spec: `FILE.py`, `FILE.py:VARIANT`, or the same with a URL or the name of a shipped config
        (`tal1`). Without a variant `get_config` is given an empty text, or nothing if it takes
        nothing.

    Raises:
      UserError: there is no such file, or it fails.
    """
    name, variant = name_and_choice(spec)
    path = _path_of(spec)
    try:
        module_spec = importlib.util.spec_from_file_location(f"_jaxdna_config_{path.stem}", path)
        if module_spec is None or module_spec.loader is None:
            raise UserError(f"--config={spec} is not a Python file")
        module = importlib.util.module_from_spec(module_spec)
        module_spec.loader.exec_module(module)
        get_config = getattr(module, "get_config", None)
        if get_config is None:
            raise UserError(f"--config={spec} has no function get_config(variant)")
        if _takes_variant(get_config):
            config = get_config(variant)
        elif variant:
            raise UserError(f"--config={spec}: get_config takes no variant; give --config={name}")
        else:
            config = get_config()
    except UserError:
        raise
    # The user's own file: whatever it raises is for the user to mend.
    except (Exception, SystemExit) as error:
        cause = " ".join(str(error).split())
        raise UserError(f"--config={spec} fails: {type(error).__name__}: {cause}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"--config={spec}: get_config returns {type(config).__name__}, "
            "and must return an ml_collections.ConfigDict"
        )
    return config


def describe_config(spec: str) -> str:
    """Returns what the config file says of itself: its docstring, or ''.

    Raises:
      UserError: there is no such file.
    """
    return ast.get_docstring(ast.parse(_path_of(spec).read_bytes())) or ""


def _path_of(spec: str) -> Path:
    name, _ = name_and_choice(spec)
    if isinstance(url := input_place(name), Url):
        return _fetched(url, spec)
    path = Path(name)
    if os.path.isfile(path):  # Path's own raises where a name is too long
        return path
    shipped = shipped_configs()
    if name not in shipped:
        raise UserError(
            f"--config={spec} is neither a file nor one of jaxdna's configs; "
            f"{nearest(path.stem, shipped)}"
        )
    return shipped[name]


def _fetched(url: Url, spec: str) -> Path:
    from jaxdna.storage.fetched import local_path

    try:
        return local_path(url)
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise UserError(f"--config={spec} cannot be read ({cause})") from error


def _takes_variant(get_config: Callable[..., Any]) -> bool:
    """Whether it can be called with an argument: ml_collections' own form is `get_config()`."""
    kinds = {parameter.kind for parameter in inspect.signature(get_config).parameters.values()}
    return not kinds.isdisjoint(_POSITIONAL)


def run_name(spec: str) -> str:
    """Returns the name that a config gives its run folder: `tal1`, or `tal1-report`."""
    path, variant = name_and_choice(spec)
    return Path(path).stem + (f"-{variant}" if variant else "")
