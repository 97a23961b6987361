"""Times a checkpoint, its digests and its flushes: `python tools/save_cost.py [MEGABYTES ...]`.

`python tools/save_cost.py --store=gs` (or `s3`, `disk`) trains TAL1 for ten epochs in an emulated
bucket instead, and says what a save after each epoch costs training: the time that its loop waits,
in seconds of the clock and of its own thread's processor. The latter does not depend on what else
the machine does; all else that a save takes is done beside training.

All are measured in the same saves, in the folder where this is started. Digests and flushes are
made by the thread that finishes a save, so their share is the time inside `manifest`, and
that inside `os.fsync`, over the time from `save` to the end. What TensorStore flushes by itself is
in the rest.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

sys.path.insert(0, str(Path(__file__).parent.parent))

from jaxdna.storage import disk
from jaxdna.storage.disk import DiskFolder
from jaxdna.training import checkpoint
from jaxdna.training.early_stopping import EarlyStopping
from jaxdna.training.progress import Progress
from jaxdna.training.state import TrainState

REPEATS = 7


def cost(megabytes: float, folder: Path) -> tuple[float, float, float]:
    """Returns the medians of the seconds of a whole save, of its digests and of its flushes.

    Args:
      megabytes: size of the state and the best parameters together; random float32 numbers, which
        compression cannot shrink much: parameters, two moments of Adam, and the best parameters.
      folder: where to save.
    """
    size = max(1, int(megabytes * 1e6 / 4 / 4 / 4))
    keys = jax.random.split(jax.random.key(0), 4)
    params, first, second, best = (
        {f"layer{i}": jax.random.normal(jax.random.fold_in(key, i), (size,)) for i in range(4)}
        for key in keys
    )
    state = TrainState(jnp.int32(0), jnp.zeros(2, jnp.uint32), params, (first, second))
    jax.block_until_ready((state, best))
    spent = {"digests": 0.0, "flushes": 0.0}

    def timed(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            made = function(*arguments)
            spent[what] += time.perf_counter() - start
            return made

        return call

    write, flush = disk.manifest, os.fsync
    disk.manifest, os.fsync = timed("digests", write), timed("flushes", flush)
    checkpoints, rows = checkpoint.Checkpoints(DiskFolder(folder), keep=2), []
    progress = Progress(EarlyStopping("val_loss", 0, 0.0, 0.69))
    for i in range(REPEATS):
        progress.epoch = i
        spent.update(digests=0.0, flushes=0.0)
        start = time.perf_counter()
        checkpoints.save(state, best, progress)
        checkpoints.wait()
        rows.append((time.perf_counter() - start, spent["digests"], spent["flushes"]))
    disk.manifest, os.fsync = write, flush
    save, digests, flushes = (statistics.median(column) for column in zip(*rows, strict=True))
    return save, digests, flushes


def waits(scheme: str) -> None:
    """Prints what the loop of TAL1 waits for saves in a bucket, or on a disk."""
    from jaxdna.cli.main import main as jaxdna
    from jaxdna.runs import loop
    from tools.object_store import STORES

    spent = {"_train_epoch": [0.0, 0.0], "_save": [0.0, 0.0]}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            clock, processor = time.perf_counter(), time.thread_time()
            made = function(*arguments)
            spent[name][0] += time.perf_counter() - clock
            spent[name][1] += time.thread_time() - processor
            return made

        return call

    for name in spent:
        setattr(loop, name, timed(name, getattr(loop, name)))
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        workdir = temporary
        if scheme in STORES:
            store = stack.enter_context(STORES[scheme]())
            os.environ.update(store.environment)
            workdir = f"{scheme}://bkt/tal1"
        jaxdna(["train", "--config=tal1", "--config.train.epochs=10", f"--workdir={workdir}"])
    (epochs, of_epochs), (saves, of_saves) = spent.values()
    print(
        f"{scheme}: ten epochs {epochs:.2f} s, saves {saves:.2f} s ({saves / epochs:.1%}); "
        f"processor {of_epochs:.2f} s, {of_saves:.2f} s ({of_saves / of_epochs:.1%})"
    )


def main() -> None:
    """Prints one line for each size, or for a store."""
    if sys.argv[1:] and sys.argv[1].startswith("--store="):
        waits(sys.argv[1].removeprefix("--store="))
        return
    for megabytes in map(float, sys.argv[1:] or ["0.016", "100", "400"]):
        with tempfile.TemporaryDirectory(dir=".") as temporary:
            save, digests, flushes = cost(megabytes, Path(temporary))
            shutil.rmtree(Path(temporary) / "checkpoints")
        print(
            f"{megabytes:g} MB: save {save * 1e3:.0f} ms, digests {digests * 1e3:.1f} ms "
            f"({digests / save:.1%}), flushes {flushes * 1e3:.1f} ms ({flushes / save:.1%})",
            flush=True,
        )


if __name__ == "__main__":
    main()
