"""Measures training on some devices, in the process that it is called in: one row of the study.

`python -m jaxdna.study.scaling_row` reads a request, a line of JSON, from stdin and prints the
measurements as JSON; every row of a study gets such a process of its own, with its own devices. It
ends when stdin does: then whoever asked is no longer there.
"""

import json
import os
import sys
import threading
import time
from typing import Any

from ml_collections import ConfigDict

from jaxdna.config import validate
from jaxdna.console import make_console
from jaxdna.data.registry import load_dataset
from jaxdna.errors import EXIT_PEER, JaxdnaError
from jaxdna.parallel.gradient_sync import no_sync
from jaxdna.parallel.mesh import make_mesh
from jaxdna.parallel.runtime import start_backend
from jaxdna.strategies.prepare import program_of
from jaxdna.study.step_timer import step_timer
from jaxdna.training.strategy import TrainCall


def look(config: ConfigDict) -> dict[str, Any]:
    """Returns the `platform` and how many `devices` of it there are, simulated ones included."""
    devices = start_backend(config, make_console())
    return {"platform": devices[0].platform, "devices": len(devices)}


def measure(config: ConfigDict, devices: int, repeats: int) -> dict[str, Any]:
    """Trains for a while on the first `devices` devices and times it.

    What is timed is training as `train` does it, batches from the feed included; compilation and
    the first calls are not.

    Args:
      config: a whole configuration.
      devices: how many to use.
      repeats: how often each time is taken.

    Returns:
      `step_seconds` of each repeat; `alone_seconds`, the same without the exchange of gradients
      (None where the devices share more than the batch); and what was measured on.

    Raises:
      UserError: something that the user gave does not fit.
    """
    visible = start_backend(config, make_console())
    mesh = make_mesh(config, visible[:devices])
    dataset = load_dataset(config)
    program = program_of(config).of(config, mesh, dataset.spec)
    start = time.perf_counter()
    timers = [step_timer(program, program.compiled, dataset.splits["train"])]
    compile_seconds = time.perf_counter() - start
    if config.strategy == "spmd" and mesh.shape["data"] == mesh.size > 1:
        alone = program.call_with(no_sync(mesh))

        def without_exchange(steps: int) -> TrainCall:
            return alone.lower(program.abstract_state, program.abstract_batches(steps)).compile()

        timers.append(step_timer(program, without_exchange, dataset.splits["train"]))
    # In turn, so that a busy moment of the machine meets both.
    times = [[timer() for timer in timers] for _ in range(repeats)]
    program.close()
    return {
        "step_seconds": [row[0] for row in times],
        "alone_seconds": [row[1] for row in times] if len(timers) > 1 else None,
        "compile_seconds": compile_seconds,
        "steps": config.train.epochs * program.steps_per_epoch,
        "examples": config.train.epochs * program.train_examples,
        "mesh": dict(mesh.shape),
        "kind": visible[0].device_kind,
        "simulated": visible[0].platform == "cpu" and len(visible) > 1,
    }


def main() -> int:
    """Answers one request: {config, devices, repeats}, or {config} to look only."""
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        config = validate(request.pop("config"))
        answer = measure(config, **request) if request else look(config)
    except JaxdnaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(answer))
    return 0


def _end_with_stdin() -> None:
    # Not through sys.stdin, whose lock would be held when Python ends.
    while os.read(0, 1):
        pass
    os._exit(EXIT_PEER)


if __name__ == "__main__":
    sys.exit(main())
