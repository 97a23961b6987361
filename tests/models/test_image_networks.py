import jax
import numpy as np
import pytest
from flax import nnx
from scipy.signal import correlate

from jaxdna.config import load_config
from jaxdna.errors import UserError
from jaxdna.models.layers import Dropout
from jaxdna.models.network import parameter_count, summary_rows
from jaxdna.models.registry import build_network

SHAPES = {"cifar10": (32, 32, 3), "mnist": (28, 28, 1), "mnist_mlp": (28, 28, 1)}


def rows_of(name, variant=""):
    config = load_config(f"configs/{name}.py{variant}")
    return summary_rows(lambda: build_network(config, 10, SHAPES[name]), SHAPES[name])


@pytest.mark.parametrize("variant", ["", ":report", ":timing"])
@pytest.mark.parametrize(
    ("name", "count"), [("cifar10", 276_138), ("mnist", 669_706), ("mnist_mlp", 669_706)]
)
def test_parameters_are_those_of_the_report(name, count, variant):
    assert sum(row[3] for row in rows_of(name, variant)) == count


def test_the_table_shows_convolution_and_pooling_as_keras_would():
    assert [row[1:] for row in rows_of("cifar10", ":report")] == [
        ("Rescaling", (32, 32, 3), 0),
        ("Conv2D", (32, 32, 32), 896),
        ("Conv2D", (30, 30, 32), 9248),
        ("MaxPooling2D", (15, 15, 32), 0),
        ("Conv2D", (15, 15, 64), 18496),
        ("Conv2D", (13, 13, 64), 36928),
        ("MaxPooling2D", (6, 6, 64), 0),
        ("Conv2D", (6, 6, 64), 36928),
        ("Conv2D", (4, 4, 64), 36928),
        ("MaxPooling2D", (2, 2, 64), 0),
        ("Flatten", (256,), 0),
        ("Dense", (512,), 131584),
        ("Dense", (10,), 5130),
    ]


def test_logits_equal_a_plain_numpy_network():
    """Convolution, bias, ReLU, then the maximum: the order of the layers as Keras has them."""
    config = load_config("configs/mnist.py:report", ["model.filters=3,2", "model.dense=5,4"])
    network = build_network(config, 10, (28, 28, 1))
    rng = np.random.default_rng(0)
    for name in network.names:  # biases that matter
        layer = getattr(network, name)
        if hasattr(layer, "bias"):
            layer.bias[...] = rng.normal(size=layer.bias.shape).astype(np.float32)
    images = rng.integers(0, 256, (3, 28, 28, 1), dtype=np.uint8)
    x = images / 255

    def conv(x, layer):
        kernel = np.float64(layer.kernel[...])
        out = [
            sum(correlate(x[n, ..., c], kernel[..., c, o], "valid") for c in range(x.shape[-1]))
            for n in range(len(x))
            for o in range(kernel.shape[-1])
        ]
        stacked = np.reshape(out, (len(x), kernel.shape[-1], *out[0].shape)).transpose(0, 2, 3, 1)
        return np.maximum(stacked + np.float64(layer.bias[...]), 0)

    def pool(x):
        n, h, w, c = x.shape
        squares = x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c)
        return squares.max((2, 4))

    for first, second in (("conv1", "conv2"), ("conv3", "conv4")):
        x = pool(conv(conv(x, getattr(network, first)), getattr(network, second)))
    x = x.reshape(3, -1)
    for name in ("dense1", "dense2", "dense3"):
        layer = getattr(network, name)
        x = x @ np.float64(layer.kernel[...]) + np.float64(layer.bias[...])
        x = x if name == "dense3" else np.maximum(x, 0)
    # Longest path: 9 + 27 + 27 + 18 + 32 + 5 + 4 roundings of 2^-24, on values below 16.
    np.testing.assert_allclose(network(images), x, rtol=0, atol=122 * 16 * 2.0**-24)


def test_dropout_drops_its_share_in_training_only_and_keeps_the_mean():
    layer, x = Dropout(0.2), np.ones((100, 512), np.float32)
    np.testing.assert_array_equal(layer(x), x)
    dropped = np.asarray(layer(x, nnx.Rngs(dropout=jax.random.key(0))))
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1.25)}
    assert abs((dropped == 0).mean() - 0.2) < 4 * np.sqrt(0.2 * 0.8 / dropped.size)


def test_sizes_are_configuration_and_too_many_blocks_are_refused():
    config = load_config("configs/cifar10.py", ["model.filters=8", "model.dense=16,8"])
    _, params = nnx.split(build_network(config, 10, (32, 32, 3)))
    convolutions = 27 * 8 + 8 + 72 * 8 + 8
    assert parameter_count(params) == convolutions + 1800 * 16 + 16 + 16 * 8 + 8 + 8 * 10 + 10
    config = load_config("configs/cifar10.py", ["model.filters=8,8,8,8"])
    with pytest.raises(UserError, match="has 4 blocks, but an image of 32 x 32 has room for 3"):
        build_network(config, 10, (32, 32, 3))
