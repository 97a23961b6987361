"""Scores of the bases of some sequences: what attribution finds, and how far its sums are off."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxdna.analysis.attribution_logos import MOST_DRAWN, Shown, draw
from jaxdna.data.sequences import UNKNOWN, Codes
from jaxdna.storage.files import picture

_SHOWN = 80  # letters of a name above a picture
BOUND = 1e-5  # of the output's change: what contributions may miss it by
_ROUNDINGS = 4  # of the output itself, which hardly changes where the network sees nothing


@dataclass(frozen=True)
class Attributed:
    """Scores of some sequences.

    Attributes:
      ids: their names.
      codes: uint8 [sequences, length].
      answers: what is scored, as the task's additive columns are called.
      hypothetical: float32 [sequences, answers, length, 4].
      outputs: float32 [sequences, answers], of the sequences.
      change: float32 [sequences, answers], the outputs less those of the references, in the mean;
        NaN for methods without references.
      size: float32 [sequences, answers], the mean size of that change.
    """

    ids: Sequence[str]
    codes: Codes
    answers: tuple[str, ...]
    hypothetical: NDArray[np.float32]
    outputs: NDArray[np.float32]
    change: NDArray[np.float32]
    size: NDArray[np.float32]

    @property
    def one_hot(self) -> NDArray[np.int8]:
        """Returns int8 [sequences, length, 4]: zeros where there is no known base."""
        return (self.codes[..., None] == np.arange(UNKNOWN)).astype(np.int8)

    @cached_property
    def contributions(self) -> NDArray[np.float32]:
        """The scores of the bases that are there: float32 [sequences, answers, length]."""
        return (self.hypothetical * self.one_hot[:, None]).sum(axis=-1)

    @property
    def delta(self) -> NDArray[np.float32]:
        """What the contributions add up to, less the change: float32 [sequences, answers]."""
        total = self.contributions.sum(axis=-1, dtype=np.float64)
        return (total - self.change).astype(np.float32)

    @property
    def missed(self) -> NDArray[np.float32]:
        """The size of `delta` as a share of `size`: float32 [sequences, answers]."""
        missed = np.abs(self.delta) / np.maximum(self.size, np.finfo(np.float32).tiny)
        return missed.astype(np.float32)

    @property
    def beyond(self) -> NDArray[np.bool_]:
        """Where `delta` is beyond `BOUND`, and beyond rounding: bool [sequences, answers]."""
        rounding = _ROUNDINGS * np.finfo(np.float32).eps * np.abs(self.outputs)
        return np.abs(self.delta) > np.maximum(BOUND * self.size, rounding)

    def shown(self) -> list[Shown]:
        """Returns what pictures show of each sequence, for the first answer."""
        rows = zip(self.ids, self.outputs[:, 0], self.codes, self.contributions[:, 0], strict=True)
        answer = self.answers[0]
        return [Shown(f"{_short(name)}, {answer} {x:.2f}", *own) for name, x, *own in rows]

    def plot(self, most: int = MOST_DRAWN) -> Any:
        """Returns a matplotlib figure: logos of the first sequences, for the first answer."""
        return draw([[one] for one in self.shown()[:most]], self.answers[0])

    def _repr_html_(self) -> str:
        """The picture, for notebooks."""
        data = base64.b64encode(picture(self.plot(), "png", dpi=90)).decode()
        names = ", ".join(self.answers)
        return f'<p>{html.escape(names)}</p><img alt="logos" src="data:image/png;base64,{data}">'

    @classmethod
    def joined(cls, parts: Sequence["Attributed"]) -> "Attributed":
        """Returns all sequences of one or more parts."""
        arrays = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("codes", "hypothetical", "outputs", "change", "size")
        }
        ids = [name for part in parts for name in part.ids]
        return cls(ids=ids, answers=parts[0].answers, **arrays)


def _short(name: str) -> str:
    return name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
