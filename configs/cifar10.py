"""CIFAR-10: which of ten things does a 32 x 32 picture show? 276,138 parameters.

jaxdna train --config=cifar10          the recipe that we recommend
jaxdna train --config=cifar10:report   the report's: Adam 1e-3, batch 256
jaxdna scale --config=cifar10:timing   the report's, on random pictures
"""

from ml_collections import ConfigDict

from jaxdna.config import choose_variant, default_config

VARIANTS = {
    "": {
        "model.dropout": 0.3,
        "optimizer.learning_rate": 2e-3,
        "optimizer.schedule": "cosine",
        "optimizer.warmup_epochs": 2.0,
        "optimizer.weight_decay": 0.02,
    },
    "report": {"data.augment": False},
    "timing": {"data.augment": False, "data.synthetic": True},
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the configuration of `variant`."""
    config = default_config("cifar10", "image_cnn")
    config.train.batch_size = 256
    config.train.epochs = 50
    return choose_variant(variant, VARIANTS, config)
