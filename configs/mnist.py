"""MNIST: which digit is it? A convolutional network with 669,706 parameters.

jaxdna train --config=mnist          the recipe that we recommend
jaxdna train --config=mnist:report   the report's recipe: Adam 1e-3, batch 128
jaxdna scale --config=mnist:timing   the report's, on random pictures

The report gives this number of parameters and speaks of convolutional networks; the classic dense
network of the config mnist_mlp has exactly as many.
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
