"""The `jaxdna` command, and ``python -m jaxdna``: hears Ctrl-C from here on, and hands over."""

import os
import signal
from types import FrameType
from typing import NoReturn

from jaxdna.quiet import write_stderr


def entry() -> NoReturn:
    """Runs the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    from jaxdna.cli.main import entry

    entry()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt, but ends at once where something is being imported.

    A module that is left halfway, above all one of compiled code, says something else than that it
    was interrupted; and what runs imports has not begun anything that could be lost.
    """
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            write_stderr(b"jaxdna: interrupted\n")
            os._exit(128 + number)
        frame = frame.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    entry()
