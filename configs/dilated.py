"""A residual stack of dilated convolutions on the simulated TAL1 data of the config tal1.

jaxdna train --config=dilated

14,401 parameters; test accuracy 97.6% (Bayes ceiling 97.6%), AUROC 0.985 after 10 epochs.
Positions can be split over devices (`--config.mesh.seq`), for sequences of 100,000 bases and more.

On your own sequences: `--config=fasta --config.model.name=dilated` with its data.
"""

from ml_collections import ConfigDict

from jaxdna.config import choose_variant, default_config

VARIANTS = {
    "": {
        "model.filters": 32,
        "model.width": 15,
        "model.layers": 4,
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
    return choose_variant(variant, VARIANTS, default_config("tal1", "dilated"))
