"""Functions of logits, against scipy's."""

import numpy as np
import pytest
from scipy import special

from jaxdna.tasks.logits import log_sum_exp, sigmoid, softmax

LOGITS = np.random.default_rng(0).normal(size=(200, 5)) * np.logspace(-3, 3, 200)[:, None]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (sigmoid, special.expit),
        (softmax, lambda logits: special.softmax(logits, axis=1)),
        (log_sum_exp, lambda logits: special.logsumexp(logits, axis=1)),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_they_are_those_of_scipy_in_float64_for_logits_of_any_size(ours, theirs, dtype):
    logits = LOGITS.astype(dtype)
    assert ours(logits).dtype == np.float64
    np.testing.assert_allclose(ours(logits), theirs(logits.astype(np.float64)), rtol=1e-14)
