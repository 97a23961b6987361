"""How far bfloat16 drifts from float32: three SGD steps of 0.1 on one device, for three seeds.

Run it as `python tools/bfloat16_drift.py configs/tal1.py` (or another config, then KEY=VALUE).
"""

import sys
from itertools import chain

import jax
import numpy as np

from jaxdna.config import load_config
from jaxdna.data.registry import load_dataset
from jaxdna.study.layouts import comparable, train_steps
from jaxdna.study.plan import program_on

STEPS = 3


def drift(path: str, overrides: list[str]) -> float:
    """Returns the distance between the precisions' parameters as a share of the way moved."""
    config = comparable(load_config(path, [*overrides, "optimizer.learning_rate=0.1"]))
    dataset = load_dataset(config)
    ways = []
    for precision in ("float32", "bfloat16"):
        config.train.precision = precision
        program = program_on(config, dataset, jax.devices()[:1])
        way = jax.tree.leaves(train_steps(program, dataset, STEPS).way)
        ways.append(np.array(list(chain.from_iterable(leaf.flat for leaf in way))))
    return float(np.linalg.norm(ways[0] - ways[1]) / np.linalg.norm(ways[0]))


def main() -> None:
    """Prints one line per seed."""
    path, *overrides = sys.argv[1:]
    for seed in range(3):
        print(f"seed {seed}: {drift(path, [*overrides, f'seed={seed}']):.1%}", flush=True)


if __name__ == "__main__":
    main()
