"""Your own sequences: FASTA of bound and unbound ones, intervals on a genome, or a table.

jaxdna train --config=configs/fasta.py --config.data.positives=bound.fa \\
    --config.data.negatives=unbound.fa --workdir=runs/mine
"""

from ml_collections import ConfigDict

from jaxdna.config import choose_variant, default_config

VARIANTS = {
    "": {
        "optimizer.learning_rate": 0.02,
        "optimizer.schedule": "cosine",
        "optimizer.warmup_epochs": 1.0,
        "train.epochs": 20,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the configuration of `variant`."""
    return choose_variant(variant, VARIANTS, default_config("fasta", "motif_cnn"))
