"""The flags of a verb: what is wrong with them is one sentence, as every other mistake is."""

import argparse
import os
import re
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from jaxdna.errors import EXIT_USER, nearest, visible
from jaxdna.schema import COMMON

# What argparse says, and what we say.
_WORDS = (
    (r"argument (\S+): expected one argument", r"\1 needs a value"),
    (r"the following arguments are required: (.*)", r"\1 is missing"),
    (r"argument (\S+): invalid int value: '(.*)'", r"\1=\2 is not legal: it must be an integer"),
    (r"argument (\S+): invalid float value: '(.*)'", r"\1=\2 is not legal: it must be a number"),
    (r"argument (\S+): invalid choice: '(.*?)' \(choose from (.*)\)", r"\1=\2; legal: \3"),
)


class _Once(argparse.Action):
    """Keeps a value, the last one; of a file (`A.fa`) a second one is refused.

    Whoever names two files would have both of them read.
    """

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        before = getattr(namespace, self.dest)
        if before != self.default and "." in (self.metavar or ""):
            parser.error(f"{option_string} is given twice ({before}, {values}); give one file")
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """Ends with one sentence instead of a usage block, also where a file is given twice."""

    def __init__(self, *arguments: Any, **options: Any):
        """The arguments are argparse's."""
        super().__init__(*arguments, **options)
        self.register("action", None, _Once)

    def error(self, message: str) -> NoReturn:
        """Prints one sentence and ends with code 2."""
        for theirs, ours in _WORDS:
            message, found = re.subn(theirs, ours, message)
            if found:
                message = message.replace("'", "")
        print(f"jaxdna: {visible(message)} (`{self.prog} --help` lists the flags)", file=sys.stderr)
        raise SystemExit(EXIT_USER)

    def parse_all(self, arguments: list[str]) -> argparse.Namespace:
        """Parses a command line; says what an unknown word on it was probably meant to be."""
        if empty := [word for word in arguments if re.fullmatch("--[a-z-]+=", word)]:
            self.error(f"{empty[0][:-1]} needs a value")
        parsed, unknown = self.parse_known_args(arguments)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            takes_keys = any(action.dest == "config" for action in self._actions)
            of_launch = self.prog.endswith("launch") and not unknown[0].startswith("-")
            missing = f"-- is missing before {unknown[0]}"
            keys = COMMON if takes_keys else ()
            self.error(missing if of_launch else _unknown(unknown[0], flags, keys))
        return parsed


def _unknown(word: str, flags: Iterable[str], keys: Iterable[str]) -> str:
    if not word.startswith("-"):
        return f"{word} stands without a flag before it; give it as --FLAG={word}"
    flag = word.partition("=")[0]
    ends = [f"--config.{key}" for key in keys if f"--{key.rpartition('.')[2]}" == flag]
    return f"{flag} is an unknown flag; " + nearest(flag, ends or flags)


def at_home(arguments: list[str]) -> list[str]:
    """Returns the arguments with `~` as the user's home folder where it begins a value.

    Shells leave it as it is in `--flag=~/x`.
    """
    begins = re.compile(r"(?<==)~(?=/|$)")
    return [
        begins.sub(lambda _: os.path.expanduser("~"), word, count=1)
        if word.startswith("--")
        else word
        for word in arguments
    ]
