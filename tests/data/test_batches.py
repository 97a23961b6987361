import numpy as np
import pytest

from jaxdna.data.batches import batch_rows, steps_per_epoch


def test_an_epoch_visits_every_example_once_and_pads_the_last_batch_with_weight_zero():
    rows, weights = batch_rows(seed=1, first_step=0, steps=4, examples=103, batch_size=32)
    assert rows.shape == weights.shape == (4, 32)
    assert weights.sum() == 103
    assert sorted(rows[weights == 1].tolist()) == list(range(103))
    assert weights[3].tolist() == [1] * 7 + [0] * 25


def test_a_batch_depends_on_seed_and_step_alone():
    whole, _ = batch_rows(5, 4, 4, 103, 32)
    for step in range(4, 8):
        one, _ = batch_rows(5, step, 1, 103, 32)
        assert (one[0] == whole[step - 4]).all()
    assert (batch_rows(6, 4, 4, 103, 32)[0] != whole).any()
    assert (batch_rows(5, 0, 4, 103, 32)[0] != whole).any()


def test_steps_of_two_epochs_are_refused():
    assert steps_per_epoch(103, 32) == 4
    with pytest.raises(ValueError, match="span two epochs"):
        batch_rows(0, 3, 2, 103, 32)
    assert np.array_equal(*(batch_rows(0, 3, 1, 103, 32)[0] for _ in range(2)))
