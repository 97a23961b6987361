"""The folder of a run that nobody has named one for."""

from itertools import count
from pathlib import Path

from ml_collections import ConfigDict

from jaxdna.errors import AnotherRun
from jaxdna.runs.run_folder import RunFolder

# A run that goes on may change them, a finished one says nothing of what they would do.
_OTHER_WAYS = ("strategy:", "pipeline.", "parameter_server.", "optimizer.")


def own_folder(named: Path, config: ConfigDict) -> tuple[Path, str]:
    """Returns the first of NAME, NAME-2, NAME-3, ... that is free or holds this very run.

    A stopped run goes on with another strategy or step size; to a finished one these are another.

    Args:
      named: the folder of the first try.
      config: what is to be trained.

    Returns:
      The folder, and a sentence for people where it is not `named`.

    Raises:
      UserError: a folder holds other things than a run, or cannot be read.
    """
    for number in count(1):
        path = named if number == 1 else named.with_name(f"{named.name}-{number}")
        folder = RunFolder(path)
        try:
            changes = folder.check(folder.settle(config))
        except AnotherRun:
            continue
        if any(line.startswith(_OTHER_WAYS) for line in changes) and folder.read_summary():
            continue
        other = f"{named} holds a run with other settings, so this one is in {path}"
        return path, other if number > 1 else ""
    raise AssertionError("the numbers have ended")
