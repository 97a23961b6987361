"""MNIST with the classic dense network 784-512-512-10: 669,706 parameters.

jaxdna train --config=mnist_mlp          the recipe that we recommend
jaxdna train --config=mnist_mlp:report   the report's: Adam 1e-3, batch 128
jaxdna scale --config=mnist_mlp:timing   the same on random pictures
"""

from ml_collections import ConfigDict

from jaxdna.config import choose_variant, default_config

VARIANTS = {
    "": {"optimizer.schedule": "cosine", "optimizer.warmup_epochs": 1.0},
    "report": {},
    "timing": {"data.synthetic": True},
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the configuration of `variant`."""
    config = default_config("mnist", "mlp")
    config.model.dropout = 0.2
    config.train.batch_size = 128
    config.train.epochs = 25
    return choose_variant(variant, VARIANTS, config)
