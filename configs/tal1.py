"""TAL1: does a 500-base sequence contain the binding motif? 993 parameters.

jaxdna train --config=tal1          the recipe that we recommend
jaxdna train --config=tal1:report   the report's recipe: Adam 1e-3, patience 3
"""

from ml_collections import ConfigDict

from jaxdna.config import choose_variant, default_config

VARIANTS = {
    "": {
        "optimizer.learning_rate": 0.02,
        "optimizer.schedule": "cosine",
        "optimizer.warmup_epochs": 1.0,
        "optimizer.weight_decay": 0.1,
        "train.epochs": 20,
    },
    "report": {
        "data.reverse_complement": False,
        "model.strands": "forward",
        "optimizer.learning_rate": 1e-3,
        "train.epochs": 100,
        "train.early_stopping.patience": 3,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the configuration of `variant`."""
    return choose_variant(variant, VARIANTS, default_config("tal1", "motif_cnn"))
