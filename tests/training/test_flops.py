"""The operations of a network, against numbers worked out by hand."""

import pytest

from jaxdna.config import load_config
from jaxdna.data.registry import spec_of
from jaxdna.training.flops import training_flops


def flops(name, *overrides):
    config = load_config(name, overrides)
    spec = spec_of(config)
    return training_flops(config, spec.task.outputs, spec.example_shape)


@pytest.mark.parametrize("scan", ["auto", "convolution", "matmul", "pallas_tpu", "plain"])
def test_a_motif_scan_takes_the_same_however_it_is_computed(scan):
    windows = 500 - 15 + 1
    assert flops("tal1", f"model.scan={scan}") == 3 * (windows * 16 * 2 * 15 * 4 + 2 * 16)


def test_the_convolutions_and_products_of_images_are_counted():
    def convolution(side, channels, filters):
        return side**2 * filters * 2 * 9 * channels

    # Blocks of a padded and an unpadded convolution and pooling: 32 -> 15 -> 6 -> 2.
    forward = (
        convolution(32, 3, 32) + convolution(30, 32, 32)
        + convolution(15, 32, 64) + convolution(13, 64, 64)
        + convolution(6, 64, 64) + convolution(4, 64, 64)
        + 2 * 256 * 512 + 2 * 512 * 10
    )  # fmt: skip
    assert flops("cifar10:timing") == 3 * forward


def test_attention_is_counted_too():
    short, long = (flops("attention", "data.name=tal1", f"data.length={n}") for n in (250, 500))
    assert long > 2 * short  # its scores grow with the square of the length
