"""A configuration: read from a file, changed by flags, checked against the schema, compared.

A configuration is an `ml_collections.ConfigDict` that a file's `get_config(variant)` returns and
that flags of the form `--config.section.key=value` change. `jaxdna.schema` has the keys. This
module never imports jax, so that `--help` and a bad flag answer in milliseconds.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxdna.config_files import run_config_file
from jaxdna.errors import UserError, nearest
from jaxdna.fields import parsed
from jaxdna.member_settings import ONE_NETWORK, PER_MEMBER, grid_settings
from jaxdna.recipe import recipe
from jaxdna.schema import IMAGE_MODELS, IMAGE_SETS, MODELS, Field, schema


def default_config(data: str, model: str) -> ConfigDict:
    """Returns the configuration of a data set and a model with every key at its default.

    Args:
      data: a key of `DATA_SETS`.
      model: a key of `MODELS`.
    """
    return _nested({key: field.default for key, field in schema(data, model).items()})


def flat(config: ConfigDict | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns `config` as one level of dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict | Mapping):
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _nested(leaves: Mapping[str, Any]) -> ConfigDict:
    tree: dict[str, Any] = {}
    for dotted, value in leaves.items():
        *sections, key = dotted.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[key] = value
    return ConfigDict(tree)


def choose_variant(
    variant: str, variants: Mapping[str, Mapping[str, Any]], base: ConfigDict
) -> ConfigDict:
    """Returns `base` changed by the variant that the user named after the colon.

    Args:
      variant: the text after the colon of `--config=FILE:VARIANT`; empty for the recommended one.
      variants: dotted keys and values of each variant; `""` may be among them.
      base: the configuration that the variants change.

    Raises:
      UserError: there is no such variant.
    """
    if variant and variant not in variants:
        raise UserError(f"--config=...:{variant} is not a variant; {nearest(variant, variants)}")
    return _nested(flat(base) | dict(variants.get(variant, {})))


def load_config(
    spec: str | Path, overrides: Iterable[str] = (), measure: bool = True
) -> ConfigDict:
    """Reads a config file, applies the flags and validates the result.

    With `recipe=sized` the sequences that the flags name are read, and what they suggest
    (`jaxdna.recipe`) takes the place of what the file says, but not of what the flags say.

    Args:
      spec: `FILE.py`, `FILE.py:VARIANT`, or the same with the name of a shipped config (`tal1`);
        the file's `get_config(variant)` makes the config.
      overrides: `section.key=value` texts, in the order given; the last one wins.
      measure: False leaves the sequences alone, and checks the rest in milliseconds.

    Returns:
      A configuration whose keys, types and ranges are all legal.

    Raises:
      UserError: the file, a key or a value is wrong; or the sequences are.
    """
    leaves = override(flat(run_config_file(str(spec))), overrides)
    config = validate(leaves)
    named = any(leaves.get(f"data.{key}") for key in ("positives", "bed", "table"))
    if not (measure and leaves.get("recipe") == "sized" and named):
        return config
    from jaxdna.data.measure import measured  # reads sequences, and config.py imports no reader

    suggested = recipe(**measured(config))
    if leaves["model.name"] != suggested["model.name"]:  # another network has its own sizes
        suggested = {k: v for k, v in suggested.items() if not k.startswith("model.")}
    return validate(override(leaves | suggested, overrides))


def override(leaves: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Returns dotted `leaves` changed by `section.key=value` texts, parsed by the key's type.

    Where `data.name` or `model.name` is changed, that section begins with its defaults.

    Raises:
      UserError: there is no such key, or the text is no value of its type.
    """
    # One text is itself an iterable of texts, its letters: in a notebook an easy mistake.
    if isinstance(overrides, str) or not isinstance(overrides, Iterable):
        raise UserError(f"overrides={overrides!r} must be a list, such as ['train.epochs=5']")
    overrides = [str(text) for text in overrides]
    changed = dict(leaves)
    for section in ("data", "model"):
        named = [text for text in overrides if text.startswith(f"{section}.name=")]
        if named and named[-1] != f"{section}.name={changed.get(f'{section}.name')}":
            changed = {k: v for k, v in changed.items() if not k.startswith(f"{section}.")}
            changed[f"{section}.name"] = named[-1].partition("=")[2]
    fields = _fields_of(changed)
    for text in overrides:
        key, sign, value = text.partition("=")
        if key not in fields:
            raise UserError(f"--config.{text} is an unknown key; {nearest(key, fields)}")
        if not sign:
            raise UserError(f"--config.{key} needs a value: {fields[key].legal}")
        changed[key] = parsed(key, value, fields[key])
    return changed


def validate(leaves: Mapping[str, Any]) -> ConfigDict:
    """Returns the nested configuration of dotted `leaves` after checking every one.

    Raises:
      UserError: a key is unknown or missing, or a value has the wrong type or range.
    """
    fields = _fields_of(leaves)
    for key in leaves:
        if key not in fields:
            raise UserError(f"--config.{key} is an unknown key; {nearest(key, fields)}")
    checked = {}
    for key, field in fields.items():
        value, kind = leaves.get(key, field.default), type(field.default)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind or not field.accepts(value):
            raise UserError(f"--config.{key}={value} is not legal: it must be {field.legal}")
        checked[key] = value
    _check_together(checked)
    return _nested(checked)


def start_seed(config: ConfigDict) -> int:
    """Returns the seed of initial parameters, batches and random draws, not that of the data."""
    return config.seed if config.train.seed == -1 else config.train.seed


def keys_since(begun: Mapping[str, Any]) -> dict[str, Field]:
    """Returns the keys, with a value for earlier runs, that dotted leaves of a run do not have."""
    fields = _fields_of(begun)
    return {k: f for k, f in fields.items() if f.before is not None and k not in begun}


_MOST_MEMBERS = 10**4

# What the other strategies do not offer, with the value that they need.
_SPMD_ONLY = {
    "gradient_sync.method": "auto",
    "train.accumulate": 1,
    "train.precision": "float32",
    **ONE_NETWORK,
}


def _check_together(leaves: Mapping[str, Any]) -> None:
    """Refuses combinations that no device count could make right."""
    images = leaves["data.name"] in IMAGE_SETS
    if images != (leaves["model.name"] in IMAGE_MODELS):
        fitting = IMAGE_MODELS if images else sorted(set(MODELS) - set(IMAGE_MODELS))
        raise UserError(
            f"--config.model.name={leaves['model.name']} cannot read data.name="
            f"{leaves['data.name']}; legal with it: {', '.join(fitting)}"
        )
    if leaves["recipe"] == "sized" and leaves["data.name"] != "fasta":
        raise UserError(
            f"--config.recipe=sized does not go with --config.data.name={leaves['data.name']}; "
            "legal: data.name=fasta, or recipe=fixed"
        )
    # Other data say what they ask once they are read.
    if images and leaves["train.early_stopping.metric"] == "val_pearson":
        raise UserError(
            "--config.train.early_stopping.metric=val_pearson is for numbers, but "
            f"{leaves['data.name']} has classes; legal with it: val_loss, val_accuracy, val_auroc"
        )
    for key, legal in _SPMD_ONLY.items():
        if leaves["strategy"] != "spmd" and leaves[key] != legal:
            raise UserError(
                f"--config.{key}={leaves[key]} needs --config.strategy=spmd; with strategy="
                f"{leaves['strategy']} the only legal value is {legal if legal != '' else 'none'}"
            )
    if leaves["strategy"] == "parameter_server" and leaves["runtime.profile"]:
        raise UserError(
            f"--config.runtime.profile={leaves['runtime.profile']} cannot trace strategy="
            "parameter_server, whose workers are other processes; legal: spmd, pipeline"
        )
    if leaves["strategy"] == "pipeline":
        _check_pipeline(leaves)
    elif leaves["mesh.stage"] != 1:
        raise UserError(
            f"--config.mesh.stage={leaves['mesh.stage']} needs --config.strategy=pipeline; "
            f"with strategy={leaves['strategy']} the only legal value is 1"
        )
    _check_members(leaves)
    length, width = leaves.get("data.length"), leaves.get("model.width")
    if length and width is not None and width > length:
        raise UserError(
            f"--config.model.width={width} is longer than the sequences: "
            f"it must be 1 to {length} (--config.data.length)"
        )


def _check_members(leaves: Mapping[str, Any]) -> None:
    folds, fold = leaves["members.folds"], leaves["members.fold"]
    if fold >= folds and fold != -1:
        legal = f"-1 to {folds - 1} (--config.members.folds={folds})"
        legal = legal if folds else "-1 without --config.members.folds"
        raise UserError(f"--config.members.fold={fold} is not legal: it must be {legal}")
    named = (leaves[key] for key in ("members.grid", "data.name", "model.name"))
    grid, seeds = grid_settings(*named), leaves["members.seeds"]
    if leaves["members.grid"] and len(grid) == 1:
        raise UserError(
            f"--config.members.grid={leaves['members.grid']} has one setting and nothing to "
            "compare; give a key two values or more"
        )
    if len(grid) > 1:
        alone = {"members.grid": "", "members.distil": False, "mesh.member": 1}
        for settings in grid:  # each is trained as if it were alone
            _check_together({**leaves, **settings, **alone})
    count = len(grid) * seeds * (folds if folds and fold == -1 else 1)
    if count == 1 and leaves["mesh.member"] != 1:
        raise UserError(
            f"--config.mesh.member={leaves['mesh.member']} splits networks that are trained at "
            "once, and there is one; give 1, or --config.members.seeds=2 or more"
        )
    if count == 1 and leaves["members.distil"]:
        raise UserError(
            "--config.members.distil=true teaches one network what several say, and there is one; "
            "give --config.members.seeds=2 or more"
        )
    sizes = [key for key in grid[0] if key not in PER_MEMBER]
    if sizes and leaves["members.distil"]:
        raise UserError(
            "--config.members.distil=true needs networks of one size, and --config.members.grid="
            f"{leaves['members.grid']} goes over {sizes[0]}; legal with it: {', '.join(PER_MEMBER)}"
        )
    if count > 1 and leaves["gradient_sync.method"] != "auto":
        raise UserError(
            f"--config.gradient_sync.method={leaves['gradient_sync.method']} is for one network, "
            f"and --config.members trains {count}; legal with it: auto"
        )
    if count > _MOST_MEMBERS:
        raise UserError(
            f"--config.members asks for {count:,} networks (settings of the grid x seeds x folds); "
            f"legal: up to {_MOST_MEMBERS:,}"
        )
    first = leaves["seed"] if leaves["train.seed"] == -1 else leaves["train.seed"]
    if first + seeds > 2**31:
        raise UserError(
            f"--config.members.seeds={seeds} counts from the seed {first} beyond the largest, "
            f"{2**31 - 1}; give a smaller seed"
        )


def _check_pipeline(leaves: Mapping[str, Any]) -> None:
    batch, pieces = leaves["train.batch_size"], leaves["pipeline.microbatches"]
    if batch % pieces:
        divisors = [n for n in range(1, batch + 1) if batch % n == 0]
        below = max(n for n in divisors if n < pieces)
        above = [n for n in divisors if n > pieces][:1]
        raise UserError(
            f"--config.pipeline.microbatches={pieces} does not divide the batch of {batch}; "
            f"nearest legal: {' or '.join(map(str, [below, *above]))}"
        )
    if leaves["pipeline.schedule"] == "spectrain" and leaves["optimizer.name"] == "sgd":
        raise UserError(
            "--config.pipeline.schedule=spectrain predicts weights from momentum, but "
            "--config.optimizer.name=sgd has none; legal: adam, momentum"
        )


def _fields_of(leaves: Mapping[str, Any]) -> dict[str, Field]:
    """The schema of the data set and the model that `leaves` name."""
    return schema(str(leaves.get("data.name", "")), str(leaves.get("model.name", "")))


def to_json(config: ConfigDict) -> str:
    """Returns the configuration as indented JSON text; which process this is stays out of it."""
    leaves = {key: value for key, value in flat(config).items() if not key.startswith("cluster.")}
    return json.dumps(_nested(leaves).to_dict(), indent=2, sort_keys=True) + "\n"


def differences(old: ConfigDict, new: ConfigDict) -> tuple[list[str], list[str]]:
    """Compares the configuration of a run folder with the one that is to resume it.

    Args:
      old: what the run folder was begun with.
      new: what is asked for now.

    Returns:
      Two lists of `key: old -> new`: changes that make it another run, and harmless ones.
    """
    before, after = (
        {key: value for key, value in flat(config).items() if not key.startswith("cluster.")}
        for config in (old, new)
    )
    fields = schema(after["data.name"], after["model.name"])
    breaking: list[str] = []
    harmless: list[str] = []
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            line = f"{key}: {before.get(key)} -> {after.get(key)}"
            identity = key not in fields or fields[key].identity
            (breaking if identity else harmless).append(line)
    return breaking, harmless
