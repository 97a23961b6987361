"""Data sets by name: `data.name` of a config becomes a `Dataset`."""

from collections.abc import Callable
from functools import cache

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from jaxdna.data.ceiling import log_likelihood_ratio
from jaxdna.data.dataset import SPLITS, Dataset, Input, Spec, Split
from jaxdna.data.digests import file_digest
from jaxdna.data.folds import in_folds
from jaxdna.data.images import images_spec, load_images
from jaxdna.data.labelled_files import load_files
from jaxdna.data.memory import require_memory
from jaxdna.data.motifs import load_motif, presets
from jaxdna.data.simulator import Simulation, simulate, simulation_bytes
from jaxdna.tasks.classes import Binary


def load_dataset(config: ConfigDict) -> Dataset:
    """Returns the data set that `config.data` describes.

    Raises:
      UserError: the data cannot be read or made as asked.
    """
    dataset = LOADERS[config.data.name](config)
    return in_folds(dataset, config) if config.members.folds else dataset


def spec_of(config: ConfigDict) -> Spec:
    """Returns what a step must know of the data set of `config.data`, reading only what it must.

    The shapes of known sets are known. Files of a user's are read, and so is every set whose labels
    a weighted loss needs, or that is dealt to folds.

    Raises:
      UserError: the data cannot be read or made as asked.
    """
    known = SPECS.get(config.data.name)
    counted = config.train.class_weight != "none" or config.members.folds
    return known(config) if known and not counted else load_dataset(config).spec


def simulation(config: ConfigDict) -> tuple[Simulation, dict[str, slice]]:
    """Returns all sequences of a simulated data set and the slice that is each split.

    Raises:
      UserError: there is no such motif, or memory has no room for the sequences.
    """
    data = config.data
    sizes = [data.train_examples, data.validation_examples, data.test_examples]
    motif = load_motif(data.motif)
    require_memory(
        simulation_bytes(motif, sum(sizes), data.length),
        f"--config.data.train_examples={sizes[0]}, validation_examples={sizes[1]} and "
        f"test_examples={sizes[2]}: {sum(sizes):,} sequences of {data.length:,} bases",
        "fewer or shorter ones",
    )
    everything = simulate(motif, sum(sizes), data.length, data.gc, config.seed)
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    slices = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    return everything, dict(zip(SPLITS, slices, strict=True))


def _load_tal1(config: ConfigDict) -> Dataset:
    everything, slices = simulation(config)
    splits = {
        name: Split(everything.codes[rows], everything.labels[rows])
        for name, rows in slices.items()
    }
    motif = load_motif(config.data.motif)
    from_file = config.data.motif not in presets()
    inputs = [Input(motif.source, file_digest(motif.source))] if from_file else []

    @cache
    def best_logits(split: str) -> NDArray[np.float64]:
        return log_likelihood_ratio(splits[split].x, motif, config.data.gc)

    def ceiling(split: str) -> dict[str, float | None]:
        best = Binary().scores(splits[split].y, best_logits(split)[:, None])
        return {key: best[key] for key in ("accuracy", "auroc", "loss")}

    return Dataset(
        splits,
        task=Binary(),
        describe=f"simulated, motif {motif.name} ({motif.source}), GC {config.data.gc:g}",
        ceiling=ceiling,
        best_logits=best_logits,
        inputs=inputs,
    )


LOADERS: dict[str, Callable[[ConfigDict], Dataset]] = {
    "tal1": _load_tal1,
    "fasta": load_files,
    "mnist": load_images,
    "cifar10": load_images,
}

SPECS: dict[str, Callable[[ConfigDict], Spec]] = {
    "tal1": lambda config: Spec((config.data.length,), Binary(), config.data.train_examples),
    "mnist": images_spec,
    "cifar10": images_spec,
}
