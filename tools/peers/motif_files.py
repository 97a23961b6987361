"""What tools/bench_real.py asks of Keras and PyTorch, and how they answer. NumPy only.

Both train the same network with the same settings: filters of some widths, the best place of each,
a hidden layer. A tenth of the training sequences decides when to stop. Both strands are trained on,
and the logits of both are averaged.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from protocol import one_hot

Examples = tuple[np.ndarray, np.ndarray]


@dataclass
class Request:
    """The command line's.

    Attributes:
      data: .npz of `x`, `x_test` uint8 [sequences, bases] and `y` float32 [sequences].
      answers: .npz for the `logits` of `x_test`, and the number of `parameters`.
      motifs: number and width of each kind of filters.
      hidden: units of the hidden layer.
      dropout: share of their outputs to drop in training.
      batch: sequences per step.
      seed: decides the validation split, the initial parameters and the order.
      epochs: the most to train for; the parameters with the lowest validation loss are kept.
      patience: epochs without a lower validation loss after which training stops.
      step: Adam's learning rate.
    """

    data: str
    answers: str
    motifs: list[tuple[int, int]]
    hidden: int
    dropout: float
    batch: int
    seed: int
    epochs: int = 100
    patience: int = 10
    step: float = 1e-3

    @classmethod
    def of_command_line(cls) -> Self:
        """Reads it."""
        return cls(**json.loads(sys.argv[1]))

    def __post_init__(self) -> None:
        """Reads the data: training, validation and test sequences, one-hot."""
        data = np.load(self.data)
        x, y = one_hot(data["x"]), data["y"]
        order = np.random.default_rng(self.seed).permutation(len(x))
        held, rest = np.split(order, [len(x) // 10])
        both = np.concatenate([x[rest], other_strand(x[rest])])
        self.training: Examples = both, np.tile(y[rest], 2)
        self.held_out: Examples = x[held], y[held]
        self.tested = one_hot(data["x_test"])

    def answer(self, logits: np.ndarray, parameters: int) -> None:
        """Writes what was found."""
        np.savez(self.answers, logits=logits, parameters=parameters)


def other_strand(x: np.ndarray) -> np.ndarray:
    """Reverse complement of one-hot bases [sequences, positions, 4] in the order A, C, G, T."""
    return x[:, ::-1, ::-1]


def on_both_strands(logits: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """Mean of the logits of both strands."""
    return (logits(x) + logits(np.ascontiguousarray(other_strand(x)))) / 2
