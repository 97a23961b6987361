"""What a run can end with: the exit codes, and the exceptions that carry them."""

import difflib
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import IO, Any, TextIO

EXIT_OK = 0
EXIT_FAULT = 1  # the check that was asked for has found a fault
EXIT_USER = 2  # what the user gave is wrong: one sentence, no traceback
EXIT_PEER = 70  # another process of this run failed first
EXIT_WATCHDOG = 75  # stuck: restart me
EXIT_NOT_FINITE = 76  # the loss became NaN or infinite
EXIT_NO_CHECKPOINT = 77  # a checkpoint is needed and none is usable
EXIT_PREEMPTED = 78  # asked to stop; the state is saved
EXIT_INTERRUPTED = 130  # a second Ctrl-C: nothing was saved; the shell's own code for SIGINT


# Control characters but tab and line feed, what turns the direction of text, line separators that
# are none to us, and halves of characters: a terminal obeys them, and a reader is deceived.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


# A flag, or text in backquotes, which is a command to be typed as it is.
_FLAG = re.compile(r"(`[^`]*`)|(?<![\w/.-])--(?:config\.)?([a-z]\w*(?:[.-]\w+)*)")
_of_a_command: ContextVar[bool] = ContextVar("of_a_command", default=False)


def in_python(text: str) -> str:
    """Returns a sentence on flags as one on arguments, and on keys as `load_config` takes them."""
    spoken = _FLAG.sub(lambda found: found[1] or found[2].replace("-", "_"), text)
    return spoken.replace("the same command", "the same call")


@contextmanager
def speaking_of_flags() -> Iterator[None]:
    """Has errors speak of flags: for what a command line calls."""
    token = _of_a_command.set(True)
    try:
        yield
    finally:
        _of_a_command.reset(token)


@contextmanager
def speaking_python() -> Iterator[None]:
    """Has errors speak of arguments; not where a command line calls."""
    try:
        yield
    except JaxdnaError as error:
        if not _of_a_command.get():
            error.args = (in_python(str(error)),)
        raise


def visible(text: str) -> str:
    r"""Returns text as a person may be shown it: what a terminal obeys is spelled as `\x1b`."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class JaxdnaError(Exception):
    """Ends the program with one sentence on stderr and `exit_code`; never with a traceback."""

    exit_code = 1


class UserError(JaxdnaError):
    """What the user gave is wrong. The message names the flag, the value and what is legal."""

    exit_code = EXIT_USER


class AnotherRun(UserError):
    """The run folder belongs to another run."""


class Disagreement(UserError):
    """The processes of a run were given different things; raised in all of them."""


class PeerError(JaxdnaError):
    """Another process of this run failed, or never came."""

    exit_code = EXIT_PEER


class NotFiniteError(JaxdnaError):
    """The loss is NaN or infinite."""

    exit_code = EXIT_NOT_FINITE


class NoCheckpointError(JaxdnaError):
    """A checkpoint is needed, and none is there or none is intact."""

    exit_code = EXIT_NO_CHECKPOINT


class Preempted(JaxdnaError):
    """The run was asked to stop and has saved its state."""

    exit_code = EXIT_PREEMPTED


class Unread(BrokenPipeError):
    """Whoever read the results has gone: what was computed is right, and nobody wants the rest."""


def unheard(stream: IO[Any]) -> None:
    """Sends nowhere what is still written to a stream that nobody reads any more.

    What it holds already would otherwise fail once more when Python ends, with exit code 120.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def one_line(error: BaseException) -> str:
    """What an error of another library says, as a part of a sentence."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def last_words(text: str, stream: TextIO | None = None) -> None:
    """Prints what must not keep a process from ending, though nobody listens any more.

    Args:
      text: the words.
      stream: where to; `sys.stderr` if None.
    """
    with suppress(OSError):
        print(text, file=stream or sys.stderr, flush=True)


def report(error: BaseException) -> int:
    """Prints an error for the person at the terminal and returns the exit code.

    What we foresaw is one sentence; what we did not is our mistake, and has its traceback.
    """
    if isinstance(error, JaxdnaError):
        last_words(f"jaxdna: {visible(str(error))}")
        return error.exit_code
    if memory := _lack_of_memory(error):
        last_words(f"jaxdna: {memory}")
        return EXIT_USER
    if isinstance(error, KeyboardInterrupt):
        last_words("jaxdna: interrupted")
        return EXIT_INTERRUPTED
    last_words("".join(traceback.format_exception(error)).rstrip())
    return 1


def _lack_of_memory(error: BaseException) -> str:
    """Returns the sentence for what does not fit into the host's or a device's memory, or nothing.

    XLA says so in a RuntimeError of its own, whose text begins with the kind.
    """
    text = " ".join(str(error).split())
    if not isinstance(error, MemoryError) and not text.startswith("RESOURCE_EXHAUSTED"):
        return ""
    cause = text.removeprefix("RESOURCE_EXHAUSTED: ").rstrip(".")[:300] or "no more is available"
    return f"not enough memory ({cause}); try a smaller batch, network or data set, or more devices"


class StorageError(JaxdnaError):
    """A file of the run cannot be written: the disk is full, gone or broken."""


def nearest(given: str, legal: Iterable[str]) -> str:
    """Returns the part of a sentence that points at the closest of `legal`.

    Args:
      given: what the user typed.
      legal: the names that would have been accepted.

    Returns:
      `did you mean 'x'?` where one of them is close, else the list of all of them.
    """
    legal = sorted(legal)
    close = difflib.get_close_matches(given, legal, n=1, cutoff=0.6)
    if not close:  # a right name in the wrong section: compare the last parts only
        tails = {name.rsplit(".", 1)[-1]: name for name in legal}
        tail = difflib.get_close_matches(given.rsplit(".", 1)[-1], tails, n=1, cutoff=0.7)
        close = [tails[match] for match in tail]
    return f"did you mean '{close[0]}'?" if close else "legal: " + ", ".join(legal)
