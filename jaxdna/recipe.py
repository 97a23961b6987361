"""The recipe of configs/fasta.py: what number, length and GC of the sequences suggest.

Why each rule is as it is, and what it was measured to bring, stands in docs/recipe.md. Never
imports jax.
"""

import math


def recipe(sequences: int, length: int, gc: float) -> dict[str, str | int | float | bool]:
    """Returns the network and its training as dotted keys of a configuration.

    Args:
      sequences: how many there are to train and validate on, both classes together.
      length: bases of each.
      gc: share of G and C among them, 0 to 1.
    """
    batch = _power_of_two(64 * (sequences / 2000) ** 0.25, 16, 256)
    epochs = _between(25 * (2000 / sequences) ** (0.5 if sequences < 2000 else 0.25), 4, 60)
    width = filter_width(length, gc)
    filters = _power_of_two(sequences / 160, 64, 256)
    arranged = 1000 <= sequences < 4000  # where it was measured to help
    return {
        "data.validation_fraction": round(min(0.1, max(0.02, 100 / sequences)), 4),
        "model.name": "gapped",
        "model.filters": filters,
        "model.width": width,
        "model.short_filters": filters,
        "model.short_width": (width + 1) // 2,
        "model.span": min(11, length),
        "model.letters": min(7, length),
        "model.kmer_share": 0.67,
        "model.both_strands": arranged,
        "model.inner_filters": filters if arranged else 0,
        "optimizer.learning_rate": round(min(0.01, max(0.002, 20 / sequences)), 6),
        "optimizer.schedule": "cosine",
        "optimizer.warmup_epochs": min(2.0, epochs / 10),
        "optimizer.weight_decay": 1.0,
        "train.batch_size": batch,
        "train.epochs": epochs,
        "train.early_stopping.metric": "epoch",
        # A quarter of a small run is minutes at most; of a large one an hour may be lost.
        "checkpoint.every_epochs": max(1, epochs // 4) if sequences * length < 10**8 else 1,
    }


def filter_width(length: int, gc: float) -> int:
    """Returns the bases that a filter spans, an odd number.

    A word of k bases is met by chance 2 L 2^(-H k) times in L bases and their other strand, where H
    is the entropy of a base: from log2(2 L) / H bases on a word tells something. Sites are not
    words; about half of their columns are free, and no site lies in the middle of its filter.
    So a filter spans four times that.

    Args:
      length: bases of a sequence.
      gc: share of G and C.
    """
    share = min(max(gc, 0.05), 0.95)
    entropy = 1 - share * math.log2(share) - (1 - share) * math.log2(1 - share)
    width = 4 * math.log2(2 * length) / entropy
    most = min(25, length)
    odd = 2 * round((width - 1) / 2) + 1
    return max(1, min(odd, most - (most + 1) % 2))


def _between(value: float, low: int, high: int) -> int:
    return round(min(max(value, low), high))


def _power_of_two(value: float, low: int, high: int) -> int:
    return _between(2 ** round(math.log2(value)), low, high)
