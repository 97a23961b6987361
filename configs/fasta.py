"""Your own sequences: FASTA of bound and unbound ones, intervals on a genome, or a table.

jaxdna train --positives=bound.fa --negatives=unbound.fa
jaxdna train --config=fasta:small --positives=bound.fa --negatives=unbound.fa

Network and training follow from the number, length and GC content of the
sequences, by the rules of docs/recipe.md (recipe=sized); any other flag
overrides its own. `fasta:small` has the 993 parameters of tal1, `fasta:large`
128 short filters and no hidden layer. `data.folds=5` cross-validates.
`data.task` takes classes, labels, numbers and counts from tables, FASTA
headers or bigWig tracks. docs/genomics.md says what to expect on real data.
"""

from ml_collections import ConfigDict

from jaxdna.config import choose_variant, default_config
from jaxdna.recipe import recipe

_MOTIFS = {
    "data.validation_fraction": 0.1,
    "optimizer.schedule": "cosine",
    "optimizer.warmup_epochs": 2.0,
    "train.epochs": 40,
}
VARIANTS = {
    "": {
        "recipe": "sized",
        "data.validation_fraction": 0.1,
        **recipe(sequences=2000, length=200, gc=0.5),  # until there are sequences to look at
    },
    "small": {
        **_MOTIFS,
        "optimizer.learning_rate": 0.02,
        "optimizer.weight_decay": 0.1,
    },
    "large": {
        **_MOTIFS,
        "model.filters": 128,
        "model.width": 9,
        "optimizer.learning_rate": 0.01,
        "optimizer.weight_decay": 0.3,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the configuration of `variant`."""
    model = "motif_cnn" if variant else "gapped"
    return choose_variant(variant, VARIANTS, default_config("fasta", model))
