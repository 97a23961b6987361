import jax
import numpy as np
import pytest
from flax import nnx

from jaxdna.config import load_config
from jaxdna.data.sequences import one_hot
from jaxdna.models.network import parameter_count, summary_rows
from jaxdna.models.registry import build_network


def test_the_report_s_network_has_993_parameters_and_its_table():
    config = load_config("configs/tal1.py")
    rows = summary_rows(lambda: build_network(config, 1), (500,))
    assert [row[1:] for row in rows] == [
        ("Conv1D", (486, 16), 976),
        ("GlobalMaxPooling1D", (16,), 0),
        ("Dense", (1,), 17),
    ]


def test_sizes_are_configuration():
    config = load_config("configs/tal1.py", ["model.filters=8", "model.width=11"])
    _, params = nnx.split(build_network(config, 3))
    assert parameter_count(params) == 11 * 4 * 8 + 8 + 8 * 3 + 3


@pytest.mark.parametrize("scan", ["auto", "pallas_gpu"])
def test_logits_equal_a_plain_numpy_network(scan):
    config = load_config("configs/tal1.py", ["seed=4", f"model.scan={scan}"])
    network = build_network(config, 1)
    codes = np.random.default_rng(0).integers(0, 6, (5, 500), dtype=np.uint8)
    kernel, bias = np.float64(network.conv.kernel[...]), np.float64(network.conv.bias[...])
    windows = np.lib.stride_tricks.sliding_window_view(one_hot(codes), 15, axis=1)
    scores = np.einsum("npcw,wcf->npf", windows.astype(np.float64), kernel) + bias
    hidden = np.maximum(scores, 0).max(axis=1)
    expected = hidden @ np.float64(network.dense.kernel[...]) + np.float64(network.dense.bias[...])
    # 60 + 16 roundings of float32 to half a unit in the last place, each on values below 8.
    np.testing.assert_allclose(network(codes), expected, rtol=0, atol=76 * 8 * 2.0**-24)


def test_initial_parameters_follow_keras():
    """Glorot uniform: limit sqrt(6 / (fan in + fan out)); biases zero."""
    network = build_network(load_config("configs/tal1.py"), 1)
    limit = np.sqrt(6 / (15 * 4 + 15 * 16))
    kernel = np.asarray(network.conv.kernel[...])
    assert np.abs(kernel).max() <= limit
    # The variance of a uniform variable on [-limit, limit], to four standard errors (n = 960).
    assert abs(kernel.var() / (limit**2 / 3) - 1) < 4 * np.sqrt(0.8 / kernel.size)
    assert not np.any(network.conv.bias[...])
    assert jax.tree.all(jax.tree.map(lambda a: a.dtype == np.float32, nnx.state(network)))
