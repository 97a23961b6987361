"""When to stop, and which parameters were the best."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from jaxdna.tasks.metrics import SMALLER_IS_BETTER

# A loss this near to chance means that the network has not begun to learn. The noise of a
# validation loss at the plateau is far below 2%, since all its predictions are alike.
PLATEAU = 0.98


@dataclass
class EarlyStopping:
    """Follows one validation metric; every field is saved with each checkpoint.

    A network for motifs can sit at the loss of chance (ln 2 for two equal classes) for many epochs
    before it begins to learn, so patience counts only once the loss has left that plateau.

    Attributes:
      metric: `val_` and a score that the task follows; of most, larger is better.
      patience: epochs without improvement before stopping; 0 never stops.
      min_delta: smaller changes are no improvement.
      chance_loss: the loss of who knows the targets' distribution alone.
      chance_auroc: the AUROC that chance does not exceed; 1 where the loss alone decides.
      best: best value so far; None before the first epoch.
      best_epoch: the epoch (from 1) that reached it; 0 before the first.
      waited: epochs since then that counted.
      left_plateau: whether the validation loss has ever been below the plateau, or the AUROC above
        that of chance.
    """

    metric: str
    patience: int
    min_delta: float
    chance_loss: float
    chance_auroc: float = 1.0
    best: float | None = None
    best_epoch: int = 0
    waited: int = 0
    left_plateau: bool = False

    def update(self, epoch: int, metrics: dict[str, Any]) -> bool:
        """Takes the metrics of an epoch (from 1); returns whether it is the best so far."""
        value = metrics[self.metric]
        self.left_plateau |= metrics["val_loss"] < PLATEAU * self.chance_loss
        self.left_plateau |= (metrics.get("val_auroc") or 0.0) > self.chance_auroc
        improved = value is not None and (
            self.best is None or self.sign * (value - self.best) > self.min_delta
        )
        if improved:
            self.best, self.best_epoch, self.waited = value, epoch, 0
        elif self.left_plateau:
            self.waited += 1
        return improved

    @property
    def sign(self) -> int:
        """1 where a larger value is better, -1 where a smaller one is."""
        return -1 if self.metric.removeprefix("val_") in SMALLER_IS_BETTER else 1

    @property
    def rank(self) -> float:
        """The larger, the better the best epoch was; -infinity before the first."""
        return -math.inf if self.best is None else self.sign * self.best

    @property
    def stop(self) -> bool:
        """Whether patience has run out."""
        return 0 < self.patience <= self.waited

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values; `EarlyStopping(**fields)` restores them."""
        return asdict(self)
