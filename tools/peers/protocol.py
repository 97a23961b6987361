"""How a worker of tools/bench_peers.py answers: a line in, a line of JSON out. NumPy only.

Every worker trains the network of a request `{"network": ..., "batch": ..., "data": FILE}`, whose
data are an .npz of `x` uint8 (bases or pixels), `y`, `x_validation` and `y_validation`. It warms
up, prints what it made, and then waits for work, so that workers can take turns.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any


def serve(ready: dict[str, Any], answers: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """Prints `ready`, then answers lines such as `train 2.0` until the input ends.

    Args:
      ready: facts of the worker.
      answers: by the line's first word, a function of its numbers.
    """
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        word, *numbers = line.split()
        print(json.dumps(answers[word](*map(float, numbers))), flush=True)


def timed_epochs(train: Callable[[int], Any], examples: int) -> Callable[[float], dict[str, Any]]:
    """Warms up; returns (seconds) -> the rate over entire epochs of about that long.

    The rate is `per_second`, examples per second, and `processor_ms`, milliseconds of processor
    time of this process per example, which other work on the machine changes less.

    Args:
      train: trains for a number of epochs.
      examples: in an epoch.
    """

    def seconds(epochs: int) -> tuple[float, float]:
        start, used = time.perf_counter(), time.process_time()
        train(epochs)
        return time.perf_counter() - start, time.process_time() - used

    seconds(1)
    once, _ = seconds(1)

    def answer(wanted: float) -> dict[str, Any]:
        epochs = max(1, math.ceil(wanted / once))
        wall, processor = seconds(epochs)
        count = epochs * examples
        return {"per_second": count / wall, "processor_ms": 1e3 * processor / count}

    return answer


def until(
    start: float, epoch: Callable[[], Any], auroc: Callable[[], float], wanted: float, most: float
) -> dict[str, Any]:
    """Trains epoch by epoch until validation AUROC reaches `wanted`, or `most` epochs.

    Args:
      start: clock before the network was built; it has compiled since.
      epoch: trains one epoch.
      auroc: of the validation split.
      wanted: ends the training.
      most: epochs.
    """
    reached, epochs = 0.0, 0
    compiled = time.perf_counter()
    while reached < wanted and epochs < most:
        epoch()
        reached, epochs = auroc(), epochs + 1
    end = time.perf_counter()
    seconds = {"seconds": end - start, "training_seconds": end - compiled}
    return seconds | {"epochs": epochs, "auroc": reached, "reached": reached >= wanted}


def rank_auroc(labels: Any, scores: Any) -> float:
    """Area under the ROC curve by ranks, ties counted half."""
    import numpy as np

    ordered = np.sort(scores)
    ranks = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right") + 1
    positives = int(np.sum(labels == 1))
    least = positives * (positives + 1) / 2
    pairs = positives * (len(labels) - positives)
    return float((np.sum(ranks[labels == 1]) / 2 - least) / pairs)


def one_hot(codes: Any) -> Any:
    """Float32 [..., 4] of bases uint8 [...], as the report's stack feeds them."""
    import numpy as np

    return np.eye(5, 4, dtype=np.float32)[np.minimum(codes, 4)]
