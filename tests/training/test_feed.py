import threading
import time

import jax
import numpy as np
import pytest

from jaxdna.config import load_config
from jaxdna.data.batches import batch_rows
from jaxdna.data.dataset import Split
from jaxdna.parallel.mesh import make_mesh
from jaxdna.parallel.sharding import stacked_rows
from jaxdna.tasks.kinds import of_classes
from jaxdna.training import evaluation
from jaxdna.training import feed as feeds
from jaxdna.training.dispatch import steps_in_calls
from jaxdna.training.evaluation import Evaluator
from jaxdna.training.feed import evaluation_batches, resident_feed, streamed_feed
from jaxdna.training.program import Program
from jaxdna.training.read_ahead import ReadAhead


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, (103, 30), dtype=np.uint8)
    return Split(x, rng.integers(0, 2, 103, dtype=np.int32))


def mesh(devices):
    return make_mesh(load_config("configs/tal1.py"), jax.devices()[:devices])


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("make", [resident_feed, streamed_feed])
def test_both_feeds_bring_the_rows_that_the_batch_function_names(split, devices, make):
    config = load_config("configs/tal1.py", ["seed=3", "train.batch_size=16", "data.length=30"])
    program = Program(config, mesh(devices), (30,), of_classes(2), 103)
    feed = make(split, program.rows(103), program.batch_shardings)
    fed = feed(5, 2)  # the second is the epoch's last batch, partly filled
    rows, weights = batch_rows(3, 5, 2, 103, 16)
    np.testing.assert_array_equal(fed["x"], split.x[rows])
    np.testing.assert_array_equal(fed["y"], split.y[rows])
    np.testing.assert_array_equal(fed["weight"], weights)
    assert fed["x"].dtype == np.uint8
    for leaf in fed.values():
        assert leaf.sharding.is_equivalent_to(stacked_rows(mesh(devices)), leaf.ndim)
        assert {shard.data.shape[1] for shard in leaf.addressable_shards} == {16 // devices}


def test_evaluation_batches_hold_every_example_in_order(split):
    stacked = np.asarray(evaluation_batches(split.x, 24, mesh(8)))
    assert stacked.shape == (5, 24, 30)
    np.testing.assert_array_equal(stacked.reshape(-1, 30)[:103], split.x)


class Rows:
    """An array of which someone sees the largest part that is read."""

    def __init__(self, values):
        self.values, self.shape, self.nbytes = values, values.shape, values.nbytes
        self.most = 0

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        self.most = max(self.most, np.asarray(index).size)
        return self.values[index]


@pytest.mark.usefixtures("as_users_compile")
@pytest.mark.parametrize("rows", [1, 4, 1000])
def test_a_split_that_does_not_fit_is_evaluated_in_parts_with_the_same_numbers(
    split, monkeypatch, rows
):
    config = load_config("configs/tal1.py", ["data.length=30"])
    program = Program(config, mesh(8), (30,), of_classes(2), 103)
    params = program.init().params
    monkeypatch.setitem(evaluation._ROWS, "cpu", 1)
    whole = Evaluator(program, split).outputs(params)
    monkeypatch.setattr(feeds, "_RESIDENT_BYTES_ON_CPU", 0)
    monkeypatch.setattr(evaluation, "_STREAMED_BYTES", rows * 8 * 30)
    x = Rows(split.x)
    parts = Evaluator(program, Split(x, split.y)).outputs(params)
    np.testing.assert_array_equal(parts, whole)
    assert parts.shape == (103, 1)
    assert x.most <= 8 * min(rows, 13)


def plain(first, steps):
    return list(range(first, first + steps))


def test_the_next_call_is_made_while_the_one_before_is_used():
    made = []

    def slow(first, steps):
        made.append((first, threading.current_thread() is threading.main_thread()))
        return plain(first, steps)

    ahead = ReadAhead(slow, lambda first: 2 if first % 5 == 3 else 3)
    assert ahead(0, 3) == [0, 1, 2]
    deadline = time.monotonic() + 30
    while len(made) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made == [(0, True), (3, False)]
    assert ahead(3, 2) == [3, 4]
    assert ahead(8, 2) == [8, 9]  # not what was expected: after a stop, say
    assert ahead(10, 3) == [10, 11, 12]
    ahead.close()
    assert not any("jaxdna-feed" in thread.name for thread in threading.enumerate())


def test_an_error_of_the_thread_is_raised_where_its_batches_are_asked_for():
    def broken(first, steps):
        if first:
            raise OSError(28, "No space left on device")
        return plain(first, steps)

    ahead = ReadAhead(broken, lambda first: 3)
    assert ahead(0, 3) == [0, 1, 2]
    with pytest.raises(OSError, match="No space"):
        ahead(3, 3)
    ahead.close()


def test_a_program_reads_ahead_what_it_streams_and_trains_to_the_same_bits(split, monkeypatch):
    config = load_config("configs/tal1.py", ["data.length=30", "train.batch_size=16"])
    found = []
    for most in (2**28, 0):
        monkeypatch.setattr(feeds, "_RESIDENT_BYTES_ON_CPU", most)
        program = Program(config, mesh(8), (30,), of_classes(2), 103)
        feed, state = program.feed(split), program.init()
        assert isinstance(feed, ReadAhead) == (most == 0)
        step, calls = 0, steps_in_calls(program.steps_per_epoch, 3)
        monkeypatch.setattr(Program, "most_steps", 3)
        for steps in calls * 3:
            state, _ = program.train_call(state, feed(step, steps))
            step += steps
        found.append(jax.tree.map(np.asarray, state.params))
        program.close()
        assert not any("jaxdna-feed" in thread.name for thread in threading.enumerate())
    jax.tree.map(np.testing.assert_array_equal, *found)
