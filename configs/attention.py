"""A convolutional stem and two transformer blocks on the simulated TAL1 data of the config tal1.

jaxdna train --config=attention

18,849 parameters; test accuracy 97.2% (Bayes ceiling 97.6%), AUROC 0.983 after 10 epochs.

On your own sequences: `--config=fasta --config.model.name=attention` with its data.
"""

from ml_collections import ConfigDict

from jaxdna.config import choose_variant, default_config

VARIANTS = {
    "": {
        "model.filters": 32,
        "model.blocks": 2,
        "model.dropout": 0.1,
        "train.epochs": 10,
        "train.batch_size": 64,
        "optimizer.learning_rate": 0.002,
        "optimizer.schedule": "cosine",
        "optimizer.warmup_epochs": 1.0,
        "optimizer.weight_decay": 0.01,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the configuration of `variant`."""
    return choose_variant(variant, VARIANTS, default_config("tal1", "attention"))
