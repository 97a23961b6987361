"""Networks, data sets, tasks and strategies that other installed packages add to the tables."""

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from jaxdna.errors import UserError

GROUP = "jaxdna.extensions"  # of entry points, in a package's pyproject.toml

_loaded: set[str] = set()


@cache
def _named() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))


def load_extensions() -> None:
    """Imports each module that an installed package names as an extension, once per process.

    Such a module adds entries to `BUILDERS`, `MODELS`, `LOADERS` and so on as it is imported.

    Raises:
      UserError: one cannot be imported.
    """
    for entry in _named():
        if entry.value in _loaded:
            continue
        _loaded.add(entry.value)  # before, since the module may ask for the schema itself
        try:
            entry.load()
        # It is somebody's own code: whatever it raises is for them to mend.
        except (Exception, SystemExit) as error:
            _loaded.discard(entry.value)
            package = entry.dist.name if entry.dist else entry.name
            cause = " ".join(str(error).split())
            raise UserError(
                f"the extension {entry.value} of the package {package} cannot be imported "
                f"({type(error).__name__}: {cause}); mend it, or run pip uninstall {package}"
            ) from error


def extensions() -> dict[str, str]:
    """Returns the modules of installed extensions, with the package and version of each."""
    found = {}
    for entry in _named():
        found[entry.value] = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.name
    return found
