"""MNIST: which digit is it? A convolutional network with 669,706 parameters.

jaxdna train --config=configs/mnist.py          the recipe that we recommend
jaxdna train --config=configs/mnist.py:report   the report's: Adam 1e-3, batch 128, 25 epochs
jaxdna scale --config=configs/mnist.py:timing   the report's, on random pictures of the same shape

The report names this count and speaks of convolutional networks; the classic dense network of
configs/mnist_mlp.py has the same count.
"""

from ml_collections import ConfigDict

from jaxdna.config import choose_variant, default_config

VARIANTS = {
    "": {
        "model.dropout": 0.3,
        "optimizer.schedule": "cosine",
        "optimizer.warmup_epochs": 1.0,
    },
    "report": {},
    "timing": {"data.synthetic": True},
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the configuration of `variant`."""
    config = default_config("mnist", "image_cnn")
    config.model.filters = "64,64"
    config.model.padding = "valid"
    config.model.dense = "512,64"
    config.train.batch_size = 128
    config.train.epochs = 25
    return choose_variant(variant, VARIANTS, config)
