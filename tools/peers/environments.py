"""Frameworks in environments of their own, and the processes that run there."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PINS = {
    "mavenn": (["mavenn==1.1.4", "tensorflow==2.21.0", "keras==3.15.1"], []),
    "keras": (["tensorflow-cpu==2.21.0", "keras==3.15.1"], []),
    # PyTorch's own index: PyPI's wheel for Linux brings gigabytes of CUDA.
    "torch": (
        ["torch==2.13.0+cpu", "numpy==2.4.6"],
        ["--extra-index-url=https://download.pytorch.org/whl/cpu", "--retries=1"],
    ),
}
PEERS = Path(__file__).parent
CACHE = Path.home() / ".cache/jaxdna/peers"
# For all of them. XLA takes the memory of a step anew each time, page by page.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


@dataclass
class Worker:
    """A framework in a process of its own, which waits for work; see peers/protocol.py."""

    process: subprocess.Popen[str]
    ready: dict[str, Any] = field(default_factory=dict)

    def ask(self, line: str) -> dict[str, Any]:
        """Sends a line of work and returns the answer."""
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)
        return self.hear()

    def hear(self) -> dict[str, Any]:
        """Waits for a line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise EOFError(f"{self.process.args} ended with {self.process.wait()}")
        return json.loads(line)


@contextmanager
def worker(python: Path | str, script: str, request: dict[str, Any]) -> Iterator[Worker]:
    """A warmed-up worker; it ends with the block."""
    command = [str(python), str(PEERS / f"{script}_worker.py"), json.dumps(request)]
    pipe = subprocess.PIPE
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=said, text=True, env=os.environ | HUGE_PAGES
        )
        found = Worker(process)
        try:
            found.ready = found.hear()
            yield found
        except EOFError:
            said.seek(0)
            print(said.read(), file=sys.stderr)
            raise
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


def environment(name: str, cache: Path) -> Path:
    """Makes the environment of a peer, once; returns its interpreter."""
    packages, options = PINS[name]
    python = cache / name / "bin" / "python"
    mark = cache / name / "packages.txt"
    if not mark.exists() or mark.read_text() != "\n".join(packages):
        print(f"installing {', '.join(packages)} into {cache / name}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", cache / name], check=True)
        install = [python, "-m", "pip", "install", "--quiet", *options, *packages]
        subprocess.run(install, check=True, stdout=sys.stderr)
        mark.write_text("\n".join(packages))
    return python
