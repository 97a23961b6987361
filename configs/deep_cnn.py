"""Convolutions, pooling and dense layers on the simulated TAL1 data of the config tal1.

jaxdna train --config=deep_cnn

15,361 parameters; test accuracy 97.5% (Bayes ceiling 97.6%), AUROC 0.982 after 10 epochs.

On your own sequences: `--config=fasta --config.model.name=deep_cnn` with its data.
"""

from ml_collections import ConfigDict

from jaxdna.config import choose_variant, default_config

VARIANTS = {
    "": {
        "model.filters": "64,32",
        "model.dense": "32",
        "model.dropout": 0.1,
        "train.epochs": 10,
        "train.batch_size": 64,
        "optimizer.learning_rate": 0.005,
        "optimizer.schedule": "cosine",
        "optimizer.warmup_epochs": 1.0,
        "optimizer.weight_decay": 0.01,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the configuration of `variant`."""
    return choose_variant(variant, VARIANTS, default_config("tal1", "deep_cnn"))
