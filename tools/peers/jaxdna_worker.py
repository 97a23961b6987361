"""Trains with jaxdna itself; see protocol.py and tools/bench_peers.py."""

import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from protocol import serve, timed_epochs, until
from rich.console import Console

from jaxdna.config import load_config
from jaxdna.data.dataset import Split
from jaxdna.parallel.mesh import make_mesh
from jaxdna.parallel.runtime import start_backend
from jaxdna.tasks.kinds import of_classes
from jaxdna.training.dispatch import steps_in_calls
from jaxdna.training.evaluation import Evaluator
from jaxdna.training.program import Program
from jaxdna.versions import versions


class Training:
    """A network in training, batches shuffled and fed as `jaxdna train` does."""

    def __init__(self, config: ConfigDict, split: Split):
        """Compiles and draws the parameters."""
        classes = 2 if config.model.name == "motif_cnn" else 10
        mesh = make_mesh(config, jax.devices())
        self.program = Program(config, mesh, split.x.shape[1:], of_classes(classes), len(split))
        self._calls = steps_in_calls(self.program.steps_per_epoch, self.program.most_steps)
        self._compiled = {steps: self.program.compiled(steps) for steps in set(self._calls)}
        self._feed = self.program.feed(split)
        self._step = 0
        self.state = self.program.init()

    def train(self, epochs: int) -> None:
        """Trains, and fetches every call's metrics."""
        metrics = []
        for _ in range(epochs):
            for steps in self._calls:
                batches = self._feed(self._step, steps)
                self.state, sums = self._compiled[steps](self.state, batches)
                metrics.append(sums)
                self._step += steps
        jax.block_until_ready(self.state)
        jax.device_get(metrics)


def matmul_peak(size: float, seconds: float) -> dict[str, Any]:
    """The most GFLOP/s that a float32 product of square matrices reaches."""
    n = int(size)
    a = jnp.asarray(np.random.default_rng(0).random((n, n), np.float32))
    product = jax.jit(lambda a: a @ a).lower(a).compile()
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        product(a).block_until_ready()
        best = max(best, 2e-9 * n**3 / (time.perf_counter() - start))
    return {"gflops": best}


def main() -> None:
    """Serves the request of the command line."""
    request = json.loads(sys.argv[1])
    data = np.load(request["data"])
    changes = [*request["changes"], f"train.batch_size={request['batch']}"]
    changes.append("runtime.platform=cpu")
    config = load_config(request["config"], changes)
    start_backend(config, Console(quiet=True))
    split = Split(data["x"], data["y"])
    held_out = Split(data["x_validation"], data["y_validation"])
    training = Training(config, split)

    def to_auroc(wanted: float, most: float, seed: float) -> dict[str, Any]:
        start = time.perf_counter()
        fresh = Training(load_config(request["config"], [*changes, f"seed={seed:.0f}"]), split)
        evaluator = Evaluator(fresh.program, held_out)
        evaluator.outputs(fresh.state.params)  # compiles

        def auroc() -> float:
            return float(evaluator.scores(fresh.state.params)["auroc"] or 0)

        return until(start, lambda: fresh.train(1), auroc, wanted, most)

    def predict(seconds: float) -> dict[str, Any]:
        def passes(count: int) -> None:
            for _ in range(count):  # from the host's memory to logits in the host's memory
                Evaluator(training.program, split).outputs(training.state.params)

        return timed_epochs(passes, len(split))(seconds)

    answers = {
        "train": timed_epochs(training.train, len(split)),
        "until": to_auroc,
        "predict": predict,
        "peak": matmul_peak,
    }
    parameters = sum(leaf.size for leaf in jax.tree.leaves(training.state.params))
    serve({"parameters": parameters, "version": versions()["jax"]}, answers)


if __name__ == "__main__":
    main()
