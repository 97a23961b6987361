"""Your own sequences: FASTA of bound and unbound ones, intervals on a genome, or a table.

jaxdna train --positives=bound.fa --negatives=unbound.fa
jaxdna train --config=fasta:large --positives=bound.fa --negatives=unbound.fa

The recommended network has the 993 parameters of tal1. `fasta:large` has 128 short filters and does
better on real sequences, which contain the sites of many proteins. `data.folds=5` cross-validates.
`data.task` takes classes, labels, numbers and counts from tables, FASTA headers or bigWig tracks.
docs/genomics.md says what to expect on real data.
"""

from ml_collections import ConfigDict

from jaxdna.config import choose_variant, default_config

_RECIPE = {
    "data.validation_fraction": 0.1,
    "optimizer.schedule": "cosine",
    "optimizer.warmup_epochs": 2.0,
    "train.epochs": 40,
}
VARIANTS = {
    "": {
        **_RECIPE,
        "optimizer.learning_rate": 0.02,
        "optimizer.weight_decay": 0.1,
    },
    "large": {
        **_RECIPE,
        "model.filters": 128,
        "model.width": 9,
        "optimizer.learning_rate": 0.01,
        "optimizer.weight_decay": 0.3,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the configuration of `variant`."""
    return choose_variant(variant, VARIANTS, default_config("fasta", "motif_cnn"))
