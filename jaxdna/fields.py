"""What a configuration key accepts, and the usual kinds of keys. Never imports jax."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from jaxdna.errors import UserError


@dataclass(frozen=True)
class Field:
    """One configuration key.

    Attributes:
      default: the recommended value; its type is the type that the key accepts.
      meaning: one line for people.
      legal: what is accepted, in words that end an error sentence.
      accepts: whether a value of the right type is legal.
      identity: a run folder cannot be resumed with another value of this key, since the
        parameters, the data or the order of the batches would be others.
      before: the value that runs have which were begun before the key was there; None: the default.
    """

    default: Any
    meaning: str
    legal: str
    accepts: Callable[[Any], bool]
    identity: bool = False
    before: Any = None


def parsed(key: str, text: str, field: Field, said: str = "") -> Any:
    """Returns the value that a text gives a key.

    Args:
      key: dotted.
      text: as the user wrote it.
      field: what the key accepts.
      said: how the sentence names the key; as a flag if empty.

    Raises:
      UserError: the text is no value of the key's type, or not a legal one.
    """
    kind = type(field.default)
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        value = kind(text)
    except (ValueError, KeyError):
        value = None
    if value is None or not field.accepts(value):
        named = said or f"--config.{key}"
        raise UserError(f"{named}={text} is not legal: it must be {field.legal}")
    return value


def integer(default: int, meaning: str, low: int = 1, high: float = math.inf) -> Field:
    """Returns a key of an integer from `low` to `high`."""
    span = f"{low} or more" if high == math.inf else f"{low} to {high:,.0f}"
    return Field(default, meaning, f"an integer, {span}", lambda v: low <= v <= high)


def number(default: float, meaning: str, low: float = 0.0, high: float = math.inf) -> Field:
    """Returns a key of a number from `low` to `high`."""
    span = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:,.10g}"
    return Field(float(default), meaning, f"a number, {span}", lambda v: low <= v <= high)


def positive(default: float, meaning: str) -> Field:
    """Returns a key of a number above 0."""
    return Field(default, meaning, "a number above 0", lambda v: 0 < v < math.inf)


def seconds(default: float, meaning: str) -> Field:
    """Returns a key of the most seconds that something may take; `meaning` ends that sentence."""
    return number(default, f"most seconds {meaning} before exit 75; 0 waits forever", high=1e9)


def fraction(default: float, meaning: str) -> Field:
    """Returns a key of a number between 0 and 1."""
    return Field(default, meaning, "a number above 0 and below 1", lambda v: 0 < v < 1)


def choice(default: str, options: Iterable[str], meaning: str) -> Field:
    """Returns a key of one of some words."""
    options = tuple(options)
    legal = "one of " * (len(options) > 1) + ", ".join(options)
    return Field(default, meaning, legal, lambda v: v in options)


def text(default: str, meaning: str) -> Field:
    """Returns a key of any text."""
    return Field(default, meaning, "text", lambda v: True)


def flag(default: bool, meaning: str) -> Field:
    """Returns a key that is true or false."""
    return Field(default, meaning, "true or false", lambda v: True)


def share(meaning: str, default: float = 0.0) -> Field:
    """Returns a key of a number from 0 to below 1."""
    return Field(default, meaning, "a number, 0 to below 1", lambda v: 0 <= v < 1)


def sizes(default: str, meaning: str) -> Field:
    """Returns a key of integers joined by commas."""

    def accepts(text: str) -> bool:
        parts = text.split(",")
        return all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts)

    return Field(default, meaning, "integers, 1 or more, joined by commas", accepts)


def axis(default: int, meaning: str) -> Field:
    """Returns a key of the size of a mesh axis."""
    return Field(
        default,
        meaning,
        "an integer, 1 or more, or -1 for all remaining devices",
        lambda v: v == -1 or v >= 1,
    )
