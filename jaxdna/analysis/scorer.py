"""What a trained network says of any stretches of sequence: one interface for every network.

A stretch is given by its places in a text of codes: `width` bases from each of them are read. A
network that begins with a motif scan reads stretches of any number of places, each base once, and
takes the maximum over them; any other reads one place as wide as the sequences that it was trained
on.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.sequences import Codes
from jaxdna.runs.trained import Trained
from jaxdna.training.member_progress import mean_outputs


class Scorer(ABC):
    """Scores stretches with a trained network on all devices, or with an ensemble of networks.

    Attributes:
      width: bases that are read from each place.
      length: bases of the sequences that the network was trained on.
      whole: whether a stretch has one place only.
      strands: how both strands make one answer.
      task: what the network was asked.
      each: whether the outputs of a stretch are followed by those of each network of an ensemble.
    """

    width: int
    whole: bool

    def __init__(self, trained: Trained, strands: str | None = None):
        """Takes the network; `strands` is the configuration's unless it is given."""
        self.length, self.task = trained.length, trained.task
        self.strands = strands or trained.config.model.strands
        self.trained, self.each = trained, False

    def outputs(
        self, codes: Codes, starts: NDArray[np.int64], positions: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Returns the outputs of each stretch: float32 [stretches, outputs].

        Args:
          codes: uint8 [bases].
          starts: int64 [stretches], the first place of each.
          positions: int64 [stretches], how many places each has, 1 or more.
        """
        return self.finish(self.features(self.submit(codes, starts, positions)))

    @abstractmethod
    def submit(
        self,
        codes: Codes,
        starts: NDArray[np.int64],
        positions: NDArray[np.int64],
        stride: int = 0,
    ) -> Any:
        """Begins to score; see `outputs`. With a `stride` the stretches begin that far apart."""

    @abstractmethod
    def features(self, pending: Any) -> NDArray[np.float32]:
        """Returns what `submit` began: float32 [stretches, features].

        Those of a stretch are the maximum of those of its parts.
        """

    @abstractmethod
    def finish_each(self, best: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the outputs of each row of `features`: float32 [networks, stretches, outputs]."""

    def finish(self, best: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns those outputs, of an ensemble their mean: float32 [stretches, answer_count]."""
        every = self.finish_each(best)
        mean = mean_outputs(every)
        return np.concatenate([mean, *every], axis=1) if self.each else mean

    @property
    def answer_count(self) -> int:
        """Numbers that `finish` returns of a stretch: outputs, and where wanted those of each."""
        return self.task.outputs * (1 + len(self.trained.networks) * self.each)

    @property
    @abstractmethod
    def feature_count(self) -> int:
        """Numbers in a row of `features`."""

    @property
    def least(self) -> int:
        """Fewest bases of a record that training would have padded to its length."""
        return 1 if self.whole else self.width

    def fits(self, bases: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Returns which stretches of so many bases can be scored."""
        return bases == self.width if self.whole else bases >= self.width

    def misfit(self, bases: int) -> str:
        """Returns why a stretch of so many bases cannot be scored."""
        if self.whole:
            return f"{bases} bases, but the network reads {self.width}"
        return f"{bases} bases, shorter than a filter of {self.width}"
