import jax
import numpy as np
import pytest

from jaxdna.config import load_config
from jaxdna.data.batches import batch_rows
from jaxdna.data.dataset import Split
from jaxdna.parallel.mesh import make_mesh
from jaxdna.parallel.sharding import stacked_rows
from jaxdna.training.feed import evaluation_batches, resident_feed, streamed_feed


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
    feed = make(split, 3, 16, mesh(devices))
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
