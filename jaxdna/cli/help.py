"""What `--help` shows: a verb with its flags, and the keys of a configuration with their values."""

import argparse
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from textwrap import dedent, indent, wrap
from typing import Any

from jaxdna.cli.common import add_own_sequences, named_config
from jaxdna.config import default_config, flat, load_config
from jaxdna.config_files import describe_config, shipped_configs
from jaxdna.schema import COMMON, Field, schema

_WIDEST, _TERM = 100, 31  # columns of a page, and of what stands left of its explanation

# What people change first: the first ten of these that a configuration has.
_FIRST = (
    "train.epochs",
    "train.batch_size",
    "train.early_stopping.patience",
    "optimizer.learning_rate",
    "optimizer.weight_decay",
    "model.filters",
    "model.width",
    "model.dense",
    "model.dropout",
    "seed",
    "runtime.platform",
    "mesh.data",
)

# Section -> what its keys are about, in the order shown; "" has the keys outside any section.
_SECTIONS = {
    "data": "what it learns from",
    "model": "the network",
    "train": "how long, and in which batches",
    "optimizer": "how parameters are updated",
    "": "the run as a whole",
    "members": "several networks trained at once",
    "mesh": "how the devices share the arrays",
    "runtime": "devices and caches",
    "checkpoint": "what is kept for a restart",
    "gradient_sync": "how gradients are summed over devices",
    "pipeline": "with strategy=pipeline",
    "parameter_server": "with strategy=parameter_server",
    "cluster": "several processes, where nothing else says who is among them",
    "watchdog": "when a run counts as stuck",
}


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Fills paragraphs to the width of the terminal; breaks neither words nor commands."""

    def __init__(self, prog: str):
        """Takes the width of the terminal."""
        super().__init__(prog, max_help_position=_TERM, width=_width())

    def _split_lines(self, text: str, width: int) -> list[str]:
        return _wrapped(text, width)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        shown = super()._format_action_invocation(action)
        return shown if action.nargs == 0 else shown.replace(" ", "=", 1)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return f"{action.help} (required)" if action.required else action.help


def asked_config(arguments: Sequence[str]) -> str:
    """Returns the config that a command line names, or that its files stand for; or ''."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--config", nargs="?")
    add_own_sequences(flags)
    return named_config(flags.parse_known_args(arguments)[0])


def config_help(spec: str = "", overrides: Iterable[str] = ()) -> str:
    """Returns the keys of a configuration, each with its value, meaning and what is legal.

    Args:
      spec: the config; without one the keys that all have, with the values that they have where a
        config says nothing.
      overrides: `section.key=value` texts that change it.

    Raises:
      UserError: there is no such config, or an override is wrong.
    """
    config = (
        load_config(spec, overrides, measure=False) if spec else default_config("tal1", "motif_cnn")
    )
    fields, values = schema(config.data.name, config.model.name), flat(config)
    ten = {key: fields[key] for key in [key for key in _FIRST if key in fields][:10]}
    if spec:
        head = f"--config={spec}\n{fill(describe_config(spec))}"
        first = "ten keys that people change first"
    else:
        about = {name: describe_config(name).partition("\n")[0] for name in shipped_configs()}
        head = f"configs: --config=NAME --help shows its keys and values\n{columns(about.items())}"
        first = "ten keys that people change first, with their defaults"
        fields = COMMON
    others = {key.partition(".")[0] for key in fields if "." in key} - _SECTIONS.keys()
    sections = _SECTIONS | {section: section for section in sorted(others)}
    groups = [_group(about, section, fields, values) for section, about in sections.items()]
    return "\n\n".join(filter(None, [head, _group(first, None, ten, values), *groups]))


def _group(
    about: str, section: str | None, fields: Mapping[str, Field], values: Mapping[str, Any]
) -> str:
    """Returns the keys of a section, or all with their whole names; '' if there are none."""
    prefix = f"{section}." if section else ""
    rows = [
        (f"{key.removeprefix(prefix)}={_shown(values[key])}", _meaning(field))
        for key, field in fields.items()
        if section is None or key.rpartition(".")[0].partition(".")[0] == section
    ]
    heading = "\n".join(_wrapped(f"{about}: --config.{prefix}KEY=VALUE", _width()))
    return f"{heading}\n{columns(rows)}" if rows else ""


def _meaning(field: Field) -> str:
    return field.meaning if field.legal == "text" else f"{field.meaning}; {field.legal}"


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def columns(rows: Iterable[tuple[str, str]]) -> str:
    """Returns terms with their explanations beside them, as wide as the terminal."""
    rows = list(rows)
    left = min(max(len(term) for term, _ in rows), _TERM) + 4
    lines = []
    for term, text in rows:
        first, *rest = _wrapped(text, _width() - left)
        if len(term) + 4 > left:
            lines += [f"  {term}", f"{'':{left}}{first}"]
        else:
            lines.append(f"{'  ' + term:{left}}{first}")
        lines += [f"{'':{left}}{line}" for line in rest]
    return "\n".join(lines)


def fill(text: str) -> str:
    """Returns text with its paragraphs filled and its commands, never broken, indented."""
    filled = []
    for paragraph in map(dedent, re.split(r"\n\s*\n", text.strip())):
        if paragraph.startswith("jaxdna "):
            filled.append(indent(paragraph, "  "))
        else:
            filled.append("\n".join(_wrapped(paragraph, _width())))
    return "\n\n".join(filled)


def _wrapped(text: str, width: int) -> list[str]:
    return wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _width() -> int:
    return min(shutil.get_terminal_size().columns, _WIDEST)
