"""The members of a run: what each of them changes in the configuration. Never imports jax.

A member is the run of its own configuration, that of the run with its changes: what `jaxdna train`
trains alone when it is given the same keys.
"""

from typing import Any

from ml_collections import ConfigDict


def member_settings(config: ConfigDict) -> list[dict[str, Any]]:
    """Returns the dotted keys that each member changes, in order; empty for one network alone."""
    seeds = config.members.seeds
    if seeds == 1:
        return []
    first = config.seed if config.train.seed == -1 else config.train.seed
    return [{"train.seed": first + i} for i in range(seeds)]
