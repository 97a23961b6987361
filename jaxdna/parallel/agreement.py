"""What all processes of a run must have alike: versions of packages, the configuration, the data.

Each would train happily with its own: the gradients of all are summed, whatever they are of. So
process 0 shows what it has before anything is computed, and the others compare.
"""

import json
from collections.abc import Callable, Mapping

import numpy as np
import xxhash
from ml_collections import ConfigDict

from jaxdna.config import flat
from jaxdna.data.dataset import Dataset
from jaxdna.parallel.cluster import client, own_id
from jaxdna.parallel.peers import all_accept
from jaxdna.versions import versions

# Whom a process joins, its own devices and caches, and its patience: of no other's concern.
_OWN = ("cluster.", "runtime.", "watchdog.")
_DIGITS = 16  # of a SHA-256, in a sentence


def agree_on_settings(config: ConfigDict) -> None:
    """Ends all processes where the versions of packages or the configurations are not the same.

    Raises:
      Disagreement: names the package or the key, and both values.
    """

    def settings() -> dict[str, str]:
        packages = versions()
        del packages["python"]
        keys = {key: value for key, value in flat(config).items() if not key.startswith(_OWN)}
        return packages | {f"--config.{key}": str(value) for key, value in keys.items()}

    _agree(settings)


def agree_on_data(dataset: Dataset) -> None:
    """Ends all processes where the data are not the same.

    Raises:
      Disagreement: names the file, or where no file differs the split, and both digests.
    """

    def digests() -> dict[str, str]:
        found = {source.path: f"SHA-256 {source.sha256[:_DIGITS]}" for source in dataset.inputs}
        for name, split in dataset.splits.items():
            digest = xxhash.xxh3_128(np.ascontiguousarray(split.y).data)
            if isinstance(split.x, np.ndarray):  # else it is on disk, and its files say all
                digest.update(np.ascontiguousarray(split.x).data)
            found[f"the {name} split"] = f"{len(split)} examples of digest {digest.hexdigest()}"
        return found

    _agree(digests)


def _agree(make: Callable[[], Mapping[str, str]]) -> None:
    if client() is None:
        return
    mine = make()

    def objection(offer: str) -> str | None:
        theirs = json.loads(offer)
        for name in dict.fromkeys([*theirs, *mine]):
            first, own = theirs.get(name, "not there"), mine.get(name, "not there")
            if first != own:
                return (
                    f"the processes disagree: {name} is {first} in process 0 and {own} in process "
                    f"{own_id()}; start all of them with the same settings, files and versions"
                )
        return None

    all_accept(json.dumps(mine), objection)
