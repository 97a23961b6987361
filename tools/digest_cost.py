"""Times a checkpoint and, within it, the digests: `python tools/digest_cost.py [MEGABYTES ...]`.

Both are measured in the same saves: the digests are made by the thread that finishes the save, so
their share of it is the time inside `write_manifest` over the time from `save` to the rename.
"""

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp

sys.path.insert(0, str(Path(__file__).parent.parent))

from jaxdna.training import checkpoint
from jaxdna.training.early_stopping import EarlyStopping
from jaxdna.training.progress import Progress
from jaxdna.training.state import TrainState

REPEATS = 7


def cost(megabytes: float, folder: Path) -> tuple[float, float]:
    """Returns the medians of the seconds of a whole save and of its digests.

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
    digests: list[float] = []
    write = checkpoint.write_manifest

    def timed(path: Path) -> None:
        start = time.perf_counter()
        write(path)
        digests.append(time.perf_counter() - start)

    checkpoint.write_manifest = timed
    checkpoints, saves = checkpoint.Checkpoints(folder, keep=2), []
    progress = Progress(EarlyStopping("val_loss", 0, 0.0, 0.69))
    for i in range(REPEATS):
        progress.epoch = i
        start = time.perf_counter()
        checkpoints.save(state, best, progress)
        checkpoints.wait()
        saves.append(time.perf_counter() - start)
    checkpoint.write_manifest = write
    return statistics.median(saves), statistics.median(digests)


def main() -> None:
    """Prints one line for each size."""
    for megabytes in map(float, sys.argv[1:] or ["0.016", "100", "400"]):
        with tempfile.TemporaryDirectory(dir=".") as temporary:
            save, digest = cost(megabytes, Path(temporary) / "checkpoints")
            shutil.rmtree(Path(temporary) / "checkpoints")
        print(
            f"{megabytes:g} MB: save {save * 1e3:.0f} ms, digests {digest * 1e3:.1f} ms "
            f"({digest / save:.1%}, {megabytes / digest / 1e3:.2f} GB/s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
