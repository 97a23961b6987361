"""Reads the verb and hands over; imports nothing heavy until it is known."""

import errno
import gc
import importlib
import io
import json
import os
import resource
import signal
import stat
import sys
from typing import Any, NoReturn

from jaxdna import __version__
from jaxdna.cli.help import HelpFormatter, asked_config, columns, config_help, fill
from jaxdna.cli.parser import Parser, at_home
from jaxdna.errors import (
    EXIT_OK,
    EXIT_USER,
    JaxdnaError,
    StorageError,
    Unread,
    UserError,
    nearest,
    report,
    speaking_of_flags,
    unheard,
    visible,
)
from jaxdna.parallel.settings import set_aside
from jaxdna.progress import shown_on

_FILES, _ENOUGH_FILES = 64, 1024  # of one process; one CPU device alone takes up to 40
_MANY = 20_000  # new objects until Python looks for cycles: imports and tracing leave hardly any

# Verb -> the line that `jaxdna --help` shows. Each verb is a module of this package with
# `add_arguments(parser)` and `run(arguments)`, which returns a result, None, an exit code, or both
# a result and a code.
VERBS = {
    "train": "train a model, evaluate it on the test split; the same command resumes",
    "evaluate": "score a trained model on the test split",
    "predict": "score sequences or variants with a trained model, one row each",
    "interpret": "filters as motifs, logos, matches and in-silico mutagenesis",
    "attribute": "score each base: DeepLIFT/SHAP, gradients or mutagenesis",
    "export": "write a trained model as StableHLO and safetensors, for use without jaxdna",
    "simulate": "write the simulated data as FASTA, labels and provenance; or list the motifs",
    "layouts": "train some SGD steps on every layout of the visible devices and compare them",
    "plan": "compile the step for a TPU slice that need not be there: memory, collectives, overlap",
    "launch": "run N local processes of a verb as one program: launch --processes=N -- train ...",
    "scale": "train on 1, 2, 4, ... devices and compare time, throughput and cost",
    "doctor": "versions, devices, what would be started and why; --check: are they right, and fast",
}


class _Notes(io.FileIO):
    """stderr: what is said there may go unheard, and then the work goes on."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            unheard(self)
            return len(data)


class _Results(io.FileIO):
    """stdout: what goes wrong with it is said once, and told from what goes wrong elsewhere."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            unread = _nobody_reads(self, error)
            unheard(self)
            if unread:
                raise Unread(*error.args) from error
            raise StorageError(f"stdout cannot be written ({error.strerror})") from error


def _nobody_reads(stream: io.FileIO, error: OSError) -> bool:
    """Tells a closed pipe or terminal from what else fails; a broken disk says EIO as well."""
    is_terminal = stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)
    return error.errno == errno.EPIPE or (error.errno == errno.EIO and is_terminal)


def _overview() -> str:
    return (
        f"jaxdna {__version__}: train DNA-motif classifiers on any mesh of TPUs, GPUs or CPUs\n\n"
        "usage: jaxdna VERB [--config=NAME] [--config.KEY=VALUE ...] [flags]\n\n"
        "first steps:\n"
        "  jaxdna train --config=tal1\n"
        "  jaxdna train --positives=bound.fa --negatives=unbound.fa\n"
        "  jaxdna predict --workdir=runs/fasta --sequences=x.fa --output=scores.tsv\n\n"
        f"verbs:\n{columns(VERBS.items())}\n\n"
        + fill(
            "`jaxdna VERB --help` has examples and the flags of a verb, and "
            "`jaxdna train --config=NAME --help` the keys of a configuration with their values."
        )
    )


def split_overrides(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Takes the `--config.a.b=v` (or `--config.a.b v`) flags out of a command line.

    Returns:
      (`a.b=v` texts in their order, the other arguments).
    """
    overrides, others = [], []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("--config."):
            others.append(argument)
            continue
        override = argument.removeprefix("--config.")
        if "=" not in override:
            value = next(rest, None)
            override = override if value is None else f"{override}={value}"
        overrides.append(override)
    return overrides, others


def split_command(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Splits a command line at `--`: what follows is a command for somebody else."""
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def main(arguments: list[str]) -> int:
    """Runs one command line; results that nobody reads any more are no failure.

    One of several processes has left the others when this returns.

    Args:
      arguments: without the program's name.

    Returns:
      The exit code.
    """
    gc.set_threshold(_MANY)
    code = EXIT_OK
    try:
        code = _answer(arguments)
        print(end="", flush=True)
    except Unread:
        pass
    except (JaxdnaError, MemoryError, RuntimeError, KeyboardInterrupt) as error:
        code = report(error)
    if cluster := sys.modules.get("jaxdna.parallel.cluster"):  # else nobody has been joined
        cluster.leave()
    return code


def _answer(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return EXIT_OK
    if arguments[0] == "--version":
        print(f"jaxdna {__version__}")
        return EXIT_OK
    _require_files()
    verb, *rest = arguments
    if verb not in VERBS:
        print(f"jaxdna: no verb '{visible(verb)}'; {nearest(verb, VERBS)}", file=sys.stderr)
        return EXIT_USER
    rest, command = split_command(rest)
    overrides, others = split_overrides(at_home(rest))
    module = importlib.import_module(f"jaxdna.cli.{verb}")
    parser = Parser(
        prog=f"jaxdna {verb}",
        usage="%(prog)s [flags]",
        description=fill(module.__doc__ or ""),
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    if not {"-h", "--help"}.isdisjoint(others) and any(
        action.dest == "config" for action in parser._actions
    ):
        parser.epilog = config_help(asked_config(others), overrides)
    parser.add_argument("--json", action="store_true", help="one JSON object as stdout's last line")
    try:
        parsed = parser.parse_all(others)
    except SystemExit as end:  # after --help, or a mistake
        return int(end.code or EXIT_OK)
    parsed.overrides, parsed.command = overrides, command
    try:
        with speaking_of_flags(), shown_on(_stderr):
            answer = module.run(parsed)
    except (JaxdnaError, KeyboardInterrupt) as error:
        return report(error)
    result, code = answer if isinstance(answer, tuple) else (answer, EXIT_OK)
    if isinstance(result, int):  # the exit code of a command that the verb ran
        return result
    if parsed.json and result is not None:
        print(json.dumps(result))
    return code


def _stderr() -> Any:
    from jaxdna.console import make_console

    return make_console()


def _require_files() -> None:
    """Takes as many open files as the system grants, and refuses where a run would not get by."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _FILES:
        raise UserError(
            f"this process may open {hard} files (ulimit -n), and a run needs {_FILES} or more; "
            "run `ulimit -n 1024` first"
        )
    wanted = _ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(_ENOUGH_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def entry() -> NoReturn:
    """The `jaxdna` command."""
    if sys.stdout:
        sys.stdout = _over(_Results(sys.stdout.fileno(), "w", closefd=False), sys.stdout)
    if sys.stderr:
        sys.stderr = _over(_Notes(sys.stderr.fileno(), "w", closefd=False), sys.stderr)
    if ignored := set_aside(os.environ):
        print(
            f"note     a run has its own settings; ignored: {', '.join(ignored)}", file=sys.stderr
        )
    code = main(sys.argv[1:])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # Python takes a while to end, and the code is known
    gc.freeze()  # what the process still holds goes with it: no last look for cycles
    raise SystemExit(code)


def _over(raw: io.FileIO, before: Any) -> io.TextIOWrapper:
    """Returns a text stream over `raw` with the settings of the one before it.

    A name that the terminal's encoding lacks is shown in escapes, not as a failure.
    """
    errors = "backslashreplace" if before.errors == "strict" else before.errors
    at_once = before.line_buffering or before.write_through  # a terminal, or `python -u`
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, before.encoding, errors, line_buffering=at_once)
