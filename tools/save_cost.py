"""Times a checkpoint, its digests and its flushes: `python tools/save_cost.py [MEGABYTES ...]`.

`python tools/save_cost.py --store=gs` (or `s3`, `disk`) trains TAL1 for ten epochs in an emulated
bucket instead, and says what a save after each epoch costs training: the time in which its loop
begins saves, that in which it waits for the save before, and the processor time of its thread in
both. All else that a save takes is done beside training.

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
from collections import Counter
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
from jaxdna.training.progress import NetworkProgress
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
    progress = NetworkProgress(EarlyStopping("val_loss", 0, 0.0, 0.69))
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

    clock, processor = Counter[str](), Counter[str]()

    def timed(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def call(*arguments: Any) -> Any:
            begun, used, waited = time.perf_counter(), time.thread_time(), clock["wait"]
            try:
                return function(*arguments)
            finally:
                clock[name] += time.perf_counter() - begun
                processor[name] += time.thread_time() - used
                clock["wait in save"] += (clock["wait"] - waited) * (name == "save")

        setattr(owner, name, call)

    timed(loop, "_train_epoch")
    timed(checkpoint.Checkpoints, "save")
    timed(checkpoint.Checkpoints, "wait")  # `save` begins with it
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        workdir = temporary
        if scheme in STORES:
            store = stack.enter_context(STORES[scheme]())
            straight = f"http://127.0.0.1:{store.inner}"  # without the proxy
            for name, value in store.environment.items():
                os.environ[name] = value.replace(store.url, straight)
            workdir = f"{scheme}://bkt/tal1"
        jaxdna(["train", "--config=tal1", "--config.train.epochs=10", f"--workdir={workdir}"])
    epochs, waited = clock["_train_epoch"], clock["wait in save"]
    begun = clock["save"] - waited
    print(
        f"{scheme}: training {epochs:.2f} s; ten saves begun in {begun:.2f} s "
        f"({begun / epochs:.1%}), waited for {waited:.2f} s, at the end "
        f"{clock['wait'] - waited:.2f} s; processor {processor['save']:.2f} s"
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
