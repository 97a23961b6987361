"""Times what `jaxdna train` refuses of run folders in buckets: `python -m tools.time_refusals`.

Each is a process of its own, against the servers of `tools/object_store.py`. Its time is shown by
the clock, and of the processor, which counts where the machine has other work. Ends with 1 where
one has another exit code than 2, or takes longer than 10 s by the clock.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from tools.object_store import STORES, Fault, ObjectStore

LIMIT_SECONDS = 10.0
SHORT = ["--config=tal1", "--config.data.length=60", "--config.data.train_examples=64",
         "--config.data.validation_examples=64", "--config.data.test_examples=64",
         "--config.train.epochs=1", "--config.runtime.platform=cpu"]  # fmt: skip
RUN = "import sys; sys.modules.update(dict.fromkeys({!r})); import jaxdna.cli.main as cli; "
RUN += "sys.exit(cli.main(sys.argv[1:]))"


def cases(store: ObjectStore) -> Iterator[tuple[str, str, list[Fault], list[str]]]:
    """Yields what is wrong, the run folder, the store's faults, and modules that are missing."""
    scheme = store.scheme
    denied = [Fault("POST|PUT|DELETE", status=403)]
    yield "unknown scheme", f"{scheme}x://bkt/run", [], []
    yield "no folder in the bucket", f"{scheme}://bkt", [], []
    yield "extra missing", f"{scheme}://bkt/run", [], ["gcsfs", "s3fs"]
    yield "bucket not there", f"{scheme}://nowhere/run", [], []
    yield "no right to write", f"{scheme}://bkt/run", denied, []
    yield "no right at all", f"{scheme}://bkt/run", [Fault("", status=403)], []
    yield "clock wrong", f"{scheme}://bkt/run", [Fault("", status=401)], []
    yield "no answer", f"{scheme}://bkt/run", [Fault("", seconds=30)], []
    yield "too many requests", f"{scheme}://bkt/run", [Fault("", status=429)], []
    yield "files but no run", f"{scheme}://bkt/other", [], []
    yield "another run", f"{scheme}://bkt/trained", [], []


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Prints a line for each."""
    slow = 0
    for kind in STORES.values():
        with kind() as store, tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, **store.environment, "XDG_CACHE_HOME": cache}

            def train(
                workdir: str,
                *flags: str,
                missing: list[str],
                environment: dict[str, str] = environment,
            ) -> tuple[int, float, float, str]:
                begun, used = time.monotonic(), _processor()
                done = subprocess.run(
                    [sys.executable, "-c", RUN.format(missing), "train", *SHORT,
                     f"--workdir={workdir}", *flags],
                    capture_output=True, text=True, env=environment, timeout=300,
                )  # fmt: skip
                said = next((x for x in done.stderr.splitlines() if x.startswith("jaxdna: ")), "")
                return done.returncode, time.monotonic() - begun, _processor() - used, said

            train(f"{store.scheme}://bkt/trained", missing=[])
            store.put("other/notes.txt", b"mine")
            for what, workdir, faults, missing in cases(store):
                store.faults[:] = faults
                flags = ["--config.seed=7"] if what == "another run" else []
                code, seconds, used, said = train(workdir, *flags, missing=missing)
                slow += code != 2 or seconds > LIMIT_SECONDS
                took = f"{seconds:.1f} s (processor {used:.1f} s)"
                print(f"{store.scheme}, {what}: exit {code}, {took}: {said}", flush=True)
    sys.exit(slow > 0)


if __name__ == "__main__":
    main()
