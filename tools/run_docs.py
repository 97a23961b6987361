"""Runs the commands of the docs as they are written: python tools/run_docs.py [PAGE ...] [--long].

The blocks of a page run in turn, in one empty folder that sees `configs` and `tools`. The fence
of a block says what becomes of it, and the site shows its title above the block:

    ```sh                              run
    ```sh title="takes 20 minutes"     run with --long
    ```sh title="needs two hosts"      not run, since hardware, files or somebody's hand are needed
    ```console title="needs ..."       commands with what they printed: not run
    ```text                            no commands

A row of a table that begins with a command is a command like those in blocks.

The suite runs README, quick start and tutorials with the installed wheel and without a checkout,
on less data where that takes minutes (tests/test_wheel.py), and holds every block to one of these
forms (tests/test_docs.py).
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]


def blocks(page: Path) -> list[tuple[str, str]]:
    """Returns the (info string, text) of every fenced block of a page."""
    fences = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return fences.findall(page.read_text())


def script(page: Path, long: bool = False) -> str:
    """Returns the commands of a page that run; with `long` also those that take minutes."""
    legal = r'sh( title="takes .*")?' if long else "sh"
    rows = re.findall(r"^\| `(jaxdna [^`]+)` \|", page.read_text(), re.MULTILINE)
    found = [text for info, text in blocks(page) if re.fullmatch(legal, info)]
    return "".join([*(f"{row}\n" for row in rows), *found])


def checkout_environment(folder: Path) -> dict[str, str]:
    """Lets commands in a folder see this checkout and the programs of this Python."""
    for name in ("configs", "tools"):
        (folder / name).symlink_to(REPOSITORY / name)
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


def run(
    commands: str, folder: Path, environment: Mapping[str, str], timeout: float | None = None
) -> int:
    """Runs commands in a folder; where one fails, those after it do not run.

    Args:
      commands: for bash.
      folder: where they run.
      environment: variables.
      timeout: seconds after which what still runs is killed.

    Returns:
      The exit code; both streams go where this process's go.

    Raises:
      TimeoutExpired: it was killed.
    """
    command = ["bash", "-eux", "-c", commands]
    with subprocess.Popen(command, cwd=folder, env=environment, process_group=0) as bash:
        try:
            return bash.wait(timeout)
        finally:
            with suppress(ProcessLookupError):  # else what it has started outlives it
                os.killpg(bash.pid, signal.SIGKILL)


def main() -> int:
    """Runs the pages that are named, or all; returns 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pages", nargs="*", type=Path, default=PAGES)
    parser.add_argument("--long", action="store_true", help="also blocks that take minutes")
    arguments = parser.parse_args()
    results = []
    for page in arguments.pages:
        commands = script(page, arguments.long)
        if not commands:
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            code = run(commands, Path(folder), checkout_environment(Path(folder)))
        results.append((page, code, time.monotonic() - began))
    for page, code, seconds in results:
        print(f"{'ok' if code == 0 else f'code {code}':8} {seconds:6.0f} s  {page}")
    return int(any(code for _, code, _ in results))


if __name__ == "__main__":
    sys.exit(main())
