"""Eight simulated devices for every test in this process."""

import gc
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

from tools.jobs import Job

REPOSITORY = Path(__file__).parent.parent
# Minutes each: a worker that gets one of them last keeps the others waiting.
LONGEST = (
    "test_wheel.py",
    "faults/test_stopping.py",
    "faults/test_processes.py",
    "training/test_network_layouts.py",
    "strategies/test_parameter_server.py",
    "faults/test_buckets.py",
    "study/test_layouts.py",
    "analysis/test_attribution.py",
    "faults/test_checkpoints.py",
    "strategies/test_pipeline.py",
    "integration/test_sequence_verbs.py",
    "study/test_plan.py",
)

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

# XLA's options: how the suite compiles, and how users do.
COMPILING: dict[str, tuple[int, int] | tuple[bool, bool]] = {
    "xla_backend_optimization_level": (1, 3),
    "xla_cpu_parallel_codegen_split_count": (1, 32),
}
if jax.__version_info__ < (0, 11):  # later ones have the emitters only, and refuse the option
    COMPILING["xla_cpu_use_fusion_emitters"] = (False, True)

# A shell has what it starts with `&` ignore Ctrl-C, which the processes of the tests would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Lets all tests, and the processes that they start, compile fast and share what is compiled.

    Most of the suite's time is compiling, and LLVM takes most of that: it optimises little here.
    XLA's own passes, which fuse, split and order operations, are those of every run. The tests that
    take `as_users_compile` do without.
    """
    if not hasattr(config, "workerinput"):  # the workers get the variables from this process
        folder = tempfile.mkdtemp(prefix="compiled-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        flags = [f"--{name}={str(fast).lower()}" for name, (fast, _) in COMPILING.items()]
        os.environ |= {
            "XLA_FLAGS": " ".join([*flags, os.environ.get("XLA_FLAGS", "")]),
            "JAX_COMPILATION_CACHE_DIR": folder,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    gc.set_threshold(20_000, 20, 100)  # tracing makes many objects and hardly a cycle
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the files that take longest."""
    longest = [REPOSITORY / "tests" / name for name in LONGEST]
    items.sort(key=lambda item: longest.index(item.path) if item.path in longest else len(longest))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """No test is named after binary content: a gzip header holds the time, so workers differ."""
    return argname if isinstance(val, bytes) and not val.isascii() else None


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


@pytest.fixture
def as_users_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiles a program's steps with XLA's usual options, not with those of the suite."""
    from jaxdna.training.program import Program

    theirs = Program.compiler_options.fget
    options = {name: usual for name, (_, usual) in COMPILING.items()}
    monkeypatch.setattr(
        Program, "compiler_options", property(lambda program: theirs(program) | options)
    )


@pytest.fixture(scope="session")
def jaxdna(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command in a process of its own, which is forked where its imports are done.

    The working folder is the repository, or `cwd`.
    """

    def run(*arguments: object, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
        folder = tmp_path_factory.mktemp("streams")
        streams = folder / "stdout", folder / "stderr"
        words = [*map(str, arguments)]
        with Job(words, streams[0], {"JAX_PLATFORMS": "cpu"}, cwd, streams[1]) as job:
            code = job.end(300)
        return subprocess.CompletedProcess(words, code, *(path.read_text() for path in streams))

    return run


@pytest.fixture(scope="session")
def nfe2() -> Path:
    """The folder of real peaks, positives.fa and negatives.fa; they are no part of the project."""
    beside = REPOSITORY.parent / "shared" / "data" / "encode_nfe2"
    folder = Path(os.environ.get("JAXDNA_ENCODE_NFE2", beside))
    if not folder.is_dir():
        pytest.skip(f"no real peaks at {folder}: set JAXDNA_ENCODE_NFE2 to their folder")
    return folder
