"""The members of a run: what each of them changes in the configuration. Never imports jax.

A member is the run of its own configuration, that of the run with its changes: what `jaxdna train`
trains alone when it is given the same keys.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

from ml_collections import ConfigDict

from jaxdna.errors import UserError, nearest
from jaxdna.fields import parsed
from jaxdna.schema import schema

# Which part of the examples a member holds out: of those of training and validation, or of all.
HELD_OUT = ("members.fold", "data.fold")
# What members of one setting differ in: they repeat it, and answer together.
REPEATS = ("train.seed", *HELD_OUT)
# The settings with which one network is trained.
ONE_NETWORK: Mapping[str, Any] = {
    "members.seeds": 1,
    "members.folds": 0,
    "members.fold": -1,
    "members.grid": "",
    "members.distil": False,
    "mesh.member": 1,
}
# Settings that may differ between the members of one program: arrays there. Networks that differ in
# another one have programs of their own.
PER_MEMBER = tuple(
    f"optimizer.{key}" for key in ("learning_rate", "weight_decay", "momentum", "b1", "b2", "eps")
)


def member_settings(config: ConfigDict) -> list[dict[str, Any]]:
    """Returns the dotted keys that each member changes, in order; empty for one network alone."""
    seeds, folds = config.members.seeds, config.members.folds
    first = config.seed if config.train.seed == -1 else config.train.seed
    held_out = range(folds) if config.members.fold == -1 else ()
    each = [
        grid_settings(config.members.grid, config.data.name, config.model.name),
        [{"train.seed": first + i} for i in range(seeds)],
        [{"members.fold": i} for i in held_out] or [{}],
    ]
    members = [
        {key: value for part in parts for key, value in part.items()} for parts in product(*each)
    ]
    return members if len(members) > 1 else []


def grid_settings(grid: str, data: str, model: str) -> list[dict[str, Any]]:
    """Returns every combination of the values of a grid; of none the one that changes nothing.

    Arguments and errors are those of `grid_axes`.
    """
    return combinations(grid_axes(grid, data, model))


def combinations(axes: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Returns each choice of one value for every key; of no keys the one that changes nothing."""
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def grid_axes(grid: str, data: str, model: str) -> dict[str, list[Any]]:
    """Returns the keys of a grid with their values.

    Args:
      grid: KEY=VALUE,VALUE joined by semicolons; the keys are numbers of the update or the network.
      data: a key of `schema.DATA_SETS`.
      model: a key of `schema.MODELS`.

    Raises:
      UserError: it names another key, one twice, or a value that is not legal.
    """
    every = schema(data, model)
    legal = {
        key: field
        for key, field in every.items()
        if key.startswith(("optimizer.", "model.")) and type(field.default) in (int, float)
    }
    axes: dict[str, list[Any]] = {}
    for part in filter(None, grid.split(";")):
        key, sign, values = part.partition("=")
        where = f"--config.members.grid={grid}"
        if key not in legal:
            if key in every:  # nothing else is what was meant
                raise UserError(
                    f"{where}: a grid cannot go over {key}; legal: {', '.join(sorted(legal))}"
                )
            raise UserError(f"{where}: {key} is an unknown key; {nearest(key, legal)}")
        if not sign or key in axes:
            fault = f"names {key} twice" if sign else f"gives no value of {key}"
            raise UserError(f"{where} {fault}; legal: KEY=VALUE,VALUE joined by semicolons")
        found = [parsed(key, value, legal[key], f"{where}: {key}") for value in values.split(",")]
        if len(set(found)) < len(found):
            raise UserError(f"{where} gives a value of {key} twice; legal: each once")
        axes[key] = found
    return axes
