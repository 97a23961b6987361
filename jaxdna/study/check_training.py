"""Whether training is the same on every layout, twice, and after a checkpoint."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxdna.config import flat, load_config, validate
from jaxdna.data.dataset import Dataset
from jaxdna.data.registry import load_dataset
from jaxdna.errors import NoCheckpointError
from jaxdna.parallel.cluster import is_primary
from jaxdna.parallel.peers import all_accept
from jaxdna.runs.common_folder import check_common
from jaxdna.storage.files import folder_at
from jaxdna.study.layouts import Difference, compare_layouts, on_host
from jaxdna.study.plan import program_on
from jaxdna.training.checkpoint import Checkpoints
from jaxdna.training.early_stopping import EarlyStopping
from jaxdna.training.program import Program
from jaxdna.training.progress import NetworkProgress
from jaxdna.training.state import TrainState

# What is left of the configs, so that they compile and train in seconds.
SMALL = {
    "tal1": {
        "data.length": 240, "data.train_examples": 640, "data.validation_examples": 8,
        "data.test_examples": 8, "optimizer.schedule": "constant", "optimizer.warmup_epochs": 0.0,
        "optimizer.weight_decay": 0.0, "optimizer.learning_rate": 0.5,
    },
    "cifar10:timing": {
        "data.train_examples": 64, "data.validation_examples": 8, "data.test_examples": 8,
        "train.batch_size": 16, "model.filters": "8", "model.dense": "8",
    },
}  # fmt: skip
_STEPS = 3


def on_all(
    name: str, changes: Mapping[str, object], devices: Sequence[jax.Device]
) -> tuple[Program, Dataset]:
    """Returns the program of a config, changed by dotted keys, that trains on all devices.

    The batch grows to the next number that the devices divide, and the training split to one batch.
    """
    leaves = flat(load_config(name)) | dict(changes)
    batch = -(-leaves["train.batch_size"] // len(devices)) * len(devices)
    examples = max(batch, leaves["data.train_examples"])
    config = validate(leaves | {"train.batch_size": batch, "data.train_examples": examples})
    dataset = load_dataset(config)
    return program_on(config, dataset.spec, devices), dataset


def layouts(devices: Sequence[jax.Device]) -> Iterator[Difference]:
    """Takes one SGD step of tal1's network on every legal layout, as `jaxdna layouts` does.

    Args:
      devices: all devices of all processes, each of which must call.
    """
    program, dataset = on_all("tal1", SMALL["tal1"], devices)
    yield from compare_layouts(program.config, dataset, devices, 1)


def differing_bits(devices: Sequence[jax.Device]) -> Iterator[tuple[str, int]]:
    """Trains some steps from the same seed twice.

    Args:
      devices: all devices of all processes, each of which must call.

    Yields:
      The name of a config, and how many arrays of its parameters differ in any bit.
    """
    for name, changes in SMALL.items():
        program, dataset = on_all(name, changes, devices)
        once, again = (on_host(program, _trained(program, dataset).params) for _ in range(2))
        yield name, _differ(once, again)


def lost_in_checkpoint(devices: Sequence[jax.Device]) -> tuple[int, int]:
    """Saves a checkpoint below the working folder, and reads it as the next start of a run would.

    The digests of all of its files are compared on the way.

    Args:
      devices: all devices of all processes, each of which must call.

    Returns:
      How many arrays are not as they were, and the bytes of all.

    Raises:
      NoCheckpointError: it is not there, or not intact.
      JaxdnaError: it cannot be written.
    """
    program, dataset = on_all("tal1", SMALL["tal1"], devices)
    state = _trained(program, dataset)
    made = tempfile.mkdtemp(prefix="jaxdna-check-", dir=".") if is_primary() else ""
    folder = Path(all_accept(made, lambda _: None))
    try:
        check_common(folder_at(folder))
        progress = NetworkProgress(EarlyStopping("val_loss", 0, 0.0, 1.0))
        saved = Checkpoints(folder_at(folder), keep=1)
        saved.save(state, jax.tree.map(jnp.copy, state.params), progress)
        saved.wait()
        causes: list[str] = []
        found = Checkpoints(folder_at(folder), keep=1).restore(
            program.abstract_state, causes.append
        )
        if found is None:
            raise NoCheckpointError(f"{folder} holds no checkpoint after one was saved")
        kept = (state.params, state.opt_state), (found[0].params, found[0].opt_state)
        before, after = (jax.tree.leaves(tree) for tree in kept)
        size = sum(leaf.nbytes for leaf in before)
        return _differ(on_host(program, before), on_host(program, after)), size
    finally:
        if is_primary():
            shutil.rmtree(folder, ignore_errors=True)


def _trained(program: Program, dataset: Dataset) -> TrainState:
    feed, state = program.feed(dataset.splits["train"]), program.init()
    steps = min(_STEPS, program.most_steps, program.steps_per_epoch)
    for first in range(0, _STEPS, steps):
        state, _ = program.train_call(state, feed(first, steps))
    program.close()
    return state


def _differ(one: object, other: object) -> int:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return sum(a.tobytes() != b.tobytes() for a, b in pairs)
