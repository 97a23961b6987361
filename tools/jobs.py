"""Starts jaxdna in real processes that share one import: for the fault campaigns and the tests.

A process forked from a server that has imported everything, and started no backend, takes the
command line as the command itself does, in a second less. It has its own pid, files and signals.
"""

import atexit
import functools
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_PRELOAD = [
    "jaxdna.analysis.run_report",
    "jaxdna.api",
    "jaxdna.cli.evaluate",
    "jaxdna.cli.main",
    "jaxdna.cli.train",
    "jaxdna.runs.run",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "rich.console",
]


class Job:
    """A running command; `with` kills what is left of it.

    Attributes:
      pid: of the process.
    """

    def __init__(
        self,
        arguments: list[str],
        log: Path,
        environment: Mapping[str, str],
        folder: Path | None = None,
        errors: Path | None = None,
    ):
        """Starts `jaxdna ARGUMENTS` in a working folder, with these variables added to ours.

        stdout and stderr go to `log`, or stderr to `errors`. `WATCH_SECONDS` in the environment is
        how long it watches the lock of a bucket's folder; `MODULES` is a file for the names of what
        it has imported in the end.
        """
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOAD)
        self._log = log
        logs = [str(log), str(errors or log)]
        for path in logs:
            Path(path).write_text("")
        variables = {**os.environ, **environment}
        self._process = context.Process(
            target=_run, args=(arguments, logs, variables, folder or Path.cwd())
        )
        with _preloaded():
            self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def __enter__(self) -> "Job":
        """Returns the job."""
        return self

    def __exit__(self, *error: object) -> None:
        """Ends the process, whether it runs or was stopped."""
        self._process.kill()
        self._process.join()

    @property
    def output(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    @property
    def last_wrote(self) -> float:
        """When it last wrote something, in seconds since the epoch."""
        return self._log.stat().st_mtime

    def send(self, number: int) -> None:
        """Sends a signal, unless the process has ended."""
        if self._process.is_alive():
            os.kill(self.pid, number)

    def until(self, condition: Callable[["Job"], bool], seconds: float = 120) -> bool:
        """Waits until the condition holds or the process has ended; returns whether it held."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition(self):
                return True
            if not self._process.is_alive():
                return condition(self)
            time.sleep(0.002)
        raise TimeoutError(f"waited {seconds} s; the output is:\n{self.output}")

    def end(self, seconds: float = 120) -> int:
        """Waits for the end and returns the exit code; that of a signal is negative."""
        self._process.join(seconds)
        code = self._process.exitcode
        if code is None:
            raise TimeoutError(f"still running after {seconds} s; the output is:\n{self.output}")
        return code


@functools.cache
def failing_calls() -> Path | None:
    """Returns the library of `failing_calls.c`, compiled; None where there is no C compiler."""
    compiler = shutil.which("cc")
    if not compiler:
        return None
    folder = tempfile.mkdtemp(prefix="failing-calls-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    library = Path(folder, "failing_calls.so")
    source = Path(__file__).with_name("failing_calls.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


@contextmanager
def _preloaded() -> Iterator[None]:
    """Lets the server of forks, which the first job starts, have the library in it."""
    library, before = failing_calls(), os.environ.get("LD_PRELOAD")
    if library and before is None:
        os.environ["LD_PRELOAD"] = str(library)
    try:
        yield
    finally:
        if library and before is None:
            del os.environ["LD_PRELOAD"]


def _run(arguments: list[str], logs: list[str], variables: dict[str, str], folder: Path) -> None:
    for stream, path in zip((1, 2), logs, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), stream)
    for name in os.environ.keys() - variables.keys() - {"LD_PRELOAD"}:
        del os.environ[name]
    os.environ.update(variables)
    os.chdir(folder)
    import jax

    jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS"))  # as its import does
    if "WATCH_SECONDS" in variables:
        from jaxdna.storage import bucket_lock

        bucket_lock.WATCH_SECONDS = float(variables["WATCH_SECONDS"])
    from jaxdna.cli.main import entry

    sys.argv[1:] = arguments
    try:
        entry()
    finally:
        if "MODULES" in variables:
            Path(variables["MODULES"]).write_text("\n".join(sys.modules))
