"""What the loop, the evaluation and the checkpoints ask of a strategy, and of a run's progress."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Protocol, Self

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from numpy.typing import NDArray

from jaxdna.data.dataset import Spec, Split
from jaxdna.tasks.task import Task
from jaxdna.training.early_stopping import EarlyStopping
from jaxdna.training.feed import Shardings
from jaxdna.training.state import Params, TrainState

Row = dict[str, Any]
Outputs = Callable[[str], NDArray[np.float32]]  # of a split by its name
TrainCall = Callable[[TrainState, Any], tuple[TrainState, Any]]


class Progress(Protocol):
    """Where a run is, and what it has found so far: what a checkpoint stores beside the arrays.

    `NetworkProgress` follows one network, `MemberProgress` many.

    Attributes:
      epoch: epochs done.
      epoch_step: steps done in the next epoch.
      epoch_seconds: time that these steps took.
      seconds: of the whole run by name.
      rows: one row of metrics.jsonl for each epoch done.
    """

    epoch: int
    epoch_step: int
    epoch_seconds: float
    seconds: dict[str, float]
    rows: list[Row]

    @property
    def stopping(self) -> EarlyStopping:
        """What early stopping knows; of many networks that of the best one."""

    @property
    def best_epoch(self) -> int:
        """The epoch whose parameters would be kept."""

    @property
    def stop(self) -> bool:
        """Whether the run ends before its last epoch."""

    def resettle(self, settings: Mapping[str, Any]) -> None:
        """Goes on with other settings of early stopping."""

    def marked(self, batches: Any) -> Any:
        """Returns batches with what a call must know of the run beside them."""

    def add(self, metrics: Mapping[str, NDArray[np.float64]], first_step: int) -> None:
        """Takes the metrics of one call, each an array [steps, ...]."""

    def end_epoch(self, validated: Any, step: int, task: Task, more: Row) -> tuple[Row, Any]:
        """Ends an epoch; returns its row, and what `Strategy.keep` takes as `improved`."""

    def seen(self, batch_size: int, examples: int) -> int:
        """Returns how many examples were trained on, each as often as it was."""

    def said(self, improved: Any) -> str:
        """Returns what the line of an epoch says of its rank."""

    def chosen(self, tree: Any) -> Any:
        """Returns the parameters of one network, those that the run is for."""

    def pooled(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the run's answer, float32 [examples, outputs]."""

    def about(self, task: Task, targets: Mapping[str, NDArray], outputs: Outputs) -> Row:
        """Returns what the summary says beside the scores."""

    def to_json(self) -> Row:
        """Returns JSON values that `from_json` takes back."""

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Returns what `to_json` wrote; raises ValueError where it is something else."""


class Strategy(Protocol):
    """A way to train on a mesh: everything that can be compiled, before any array exists.

    `Program` is `strategy=spmd`; a strategy that keeps its state, feeds and calls as that one does
    is a subclass of it, and says what it does otherwise.

    Attributes:
      progress: what follows such a run.
      lead: axes of every array of the state that come before those of one network.
    """

    progress: ClassVar[type[Progress]]
    lead: ClassVar[int]

    @classmethod
    def of(cls, config: ConfigDict, mesh: Mesh, spec: Spec) -> Self:
        """Returns the strategy on a data set; raises UserError where they do not fit."""

    @property
    def config(self) -> ConfigDict:
        """A whole configuration."""

    @property
    def mesh(self) -> Mesh:
        """The devices."""

    @property
    def task(self) -> Task:
        """What is asked of the network, and its loss."""

    @property
    def train_examples(self) -> int:
        """Examples that one network trains on."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the training split."""

    @property
    def most_steps(self) -> int:
        """The most steps that one call takes."""

    @property
    def loops_well(self) -> bool:
        """Whether one call may take many batches where the devices run the network."""

    @property
    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state."""

    def init(self) -> TrainState:
        """Returns the state of a run that begins."""

    def begin(self, targets: NDArray) -> Progress:
        """Returns the progress of a run that begins, whose validation split has these targets."""

    def feed(self, split: Split) -> Callable[[int, int], Any]:
        """Returns (first step, steps) -> what the calls of `compiled` take beside the state."""

    def compiled(self, steps: int) -> TrainCall:
        """Compiles the call that takes `steps` steps."""

    @property
    def predict_call(self) -> Callable[[Params, jax.Array], jax.Array]:
        """(parameters, [batches, batch, ...]) -> outputs of the network, logits for classes."""

    @property
    def batch_shardings(self) -> Shardings:
        """How the stacked batches of one call lie."""

    @property
    def batches(self) -> int:
        """Different batches that the networks of one step take; see `own_rows`."""

    def own_rows(self, split: str) -> list[NDArray[np.int64]] | None:
        """Returns which examples of a split each network has for itself; None: all have all."""

    def scores(self, targets: NDArray, outputs: NDArray) -> Any:
        """Returns the scores of the validation split."""

    def keep(self, best: Params, params: Params, improved: Any) -> Params:
        """Returns the best parameters so far; they outlive the state that the next call reuses."""

    def gather(self, params: Params) -> Params:
        """Returns the parameters whole on every device, and so on every process."""

    def report(self) -> Row:
        """Metrics of the strategy itself since the last report; they go into metrics.jsonl."""

    def check(self) -> None:
        """Asks for what training needs beside devices; raises UserError where it is not there."""

    def tables(self) -> Iterable[Any]:
        """What the strategy shows before training, for a rich console."""

    def close(self) -> None:
        """Ends what the strategy has started."""
