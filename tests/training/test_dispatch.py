import jax
import numpy as np

from jaxdna.config import load_config
from jaxdna.data.dataset import Split
from jaxdna.parallel.mesh import make_mesh
from jaxdna.tasks.kinds import of_classes
from jaxdna.training import evaluation
from jaxdna.training.dispatch import few_ahead
from jaxdna.training.program import Program


def test_few_calls_are_begun_before_the_earlier_ones_are_awaited():
    said = []

    def begun():
        for call in range(4):
            said.append(f"begin {call}")
            yield call

    for call in few_ahead(begun(), 2):
        said.append(f"wait {call}")
    assert said == [
        "begin 0", "begin 1", "begin 2", "wait 0", "begin 3", "wait 1", "wait 2", "wait 3",
    ]  # fmt: skip


def test_a_hundred_calls_that_sum_over_simulated_devices_come_to_their_end(monkeypatch):
    # All begun at once they would take every thread of XLA's pool, and wait for each other.
    monkeypatch.setattr(evaluation, "_ROWS", {"cpu": 1})
    config = load_config("configs/mnist.py", ["data.synthetic=true", "mesh.data=4", "mesh.model=2"])
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (403, 28, 28, 1), dtype=np.uint8)
    split = Split(x, np.zeros(403, np.int32))
    program = Program(config, make_mesh(config, jax.devices()), (28, 28, 1), of_classes(10), 403)
    assert not program.loops_well  # one call a batch
    params = program.init().params
    logits = evaluation.Evaluator(program, split).outputs(params)
    assert logits.shape == (403, 10)
    few = evaluation.Evaluator(program, Split(x[-7:], np.zeros(7, np.int32))).outputs(params)
    np.testing.assert_array_equal(logits[-7:], few)
