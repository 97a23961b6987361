"""What every data set looks like to the rest of the program."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxdna.tasks.task import Task

SPLITS = ("train", "validation", "test")

Folds = Sequence[Mapping[str, NDArray[np.int64]]]


@dataclass(frozen=True)
class Split:
    """Examples of one split, on the host: in memory, or rows of a mapped store.

    Attributes:
      x: uint8 [examples, ...]: codes [length] or pixels [height, width, channels]. Anything that is
        indexed as an array is, and has its `shape` and `nbytes`, need not be in memory.
      y: [examples, *target_shape], the targets, as the data set's task has them.
    """

    x: NDArray[np.uint8]
    y: NDArray

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, indices: NDArray[np.integer]) -> tuple[NDArray[np.uint8], NDArray]:
        """Returns inputs and targets of some examples, each [*shape of `indices`, ...].

        Args:
          indices: integer, numbers of examples; one may come several times.
        """
        return self.x[indices], self.y[indices]


class Input(NamedTuple):
    """A file that data were read from.

    Attributes:
      path: as the user named it.
      sha256: digest of its bytes.
    """

    path: str
    sha256: str


class Spec(NamedTuple):
    """What a step must know of a data set, whether or not its bytes are there.

    Attributes:
      example_shape: of one example.
      task: what is asked of a network.
      train_examples: examples to train on.
      targets: [train_examples, *target_shape]; None where they have not been read.
      folds: see `Dataset`.
      fold_tasks: see `Dataset`.
      taught: see `Dataset`.
    """

    example_shape: tuple[int, ...]
    task: Task
    train_examples: int
    targets: NDArray | None = None
    folds: Folds = ()
    fold_tasks: Sequence[Task] = ()
    taught: bool = False


@dataclass(frozen=True)
class Dataset:
    """The splits of a data set and what is known about it.

    Attributes:
      splits: `train`, `validation` and `test`.
      task: what is asked of a network.
      describe: one line for people: what the data are and where they come from.
      ceiling: best scores that any classifier can expect on a split (`accuracy`, `auroc`, `loss`);
        None where nobody knows them.
      inputs: the files that the data come from; none for simulated data.
      notes: sentences about the data that a person should read.
      caveats: those of them that say why a score may be too good.
      best_logits: the logits float64 [examples] of a split that reach that ceiling.
      ids: names of a split's examples, in order; None where they have none.
      lengths: int64 [examples], a split's sequences' bases before any padding or cropping; None
        where there was none.
      groups: int64 [examples] twice, numbers that a split's examples share which should stay
        together, and which must; None for what is alone.
      folds: of each fold, for those splits that it has for itself, the numbers of its examples in
        the split of that name here; none where all members have the same examples.
      fold_tasks: the task of each fold, where units follow from what the fold trains on.
      taught: whether the targets of the training split are answers of other networks.
      keys: uint64 [examples], a split's sequences by `sequence_keys`, as their files have them;
        None for what no file holds.
    """

    splits: dict[str, Split]
    task: Task
    describe: str
    ceiling: Callable[[str], dict[str, float | None]] | None = None
    inputs: Sequence[Input] = ()
    notes: Sequence[str] = ()
    caveats: Sequence[str] = ()
    best_logits: Callable[[str], NDArray[np.float64]] | None = None
    ids: Callable[[str], list[str]] | None = None
    lengths: Callable[[str], NDArray[np.int64]] | None = None
    keys: Callable[[str], NDArray[np.uint64]] | None = None
    groups: Callable[[str], tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]] | None = None
    folds: Folds = ()
    fold_tasks: Sequence[Task] = ()
    taught: bool = False

    @property
    def held_out(self) -> str:
        """The split that no step is taken on: the test, or validation where there is no test."""
        return "test" if len(self.splits["test"]) else "validation"

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.splits["train"].x.shape[1:]

    def names(self, split: str) -> list[str]:
        """Returns what the examples of a split are called: by their ids, or `test_0` and so on."""
        if self.ids:
            return self.ids(split)
        return [f"{split}_{i}" for i in range(len(self.splits[split]))]

    @property
    def spec(self) -> Spec:
        """What a step must know of it."""
        train = self.splits["train"]
        examples = self.most("train")
        folds = self.folds, self.fold_tasks
        return Spec(self.example_shape, self.task, examples, train.y, *folds, self.taught)

    def most(self, split: str) -> int:
        """Returns how many examples one network has of a split; of folds the largest number."""
        own = [len(fold[split]) for fold in self.folds if split in fold]
        return max(own, default=len(self.splits[split]))
