"""Pictures of a run: curves.png, and TensorBoard's event files."""

import os
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

QUANTITIES = {"loss": "cross-entropy (nats)", "accuracy": "share"}


def draw_curves(
    path: Path, rows: list[dict[str, Any]], best_epoch: int, ceiling: dict[str, float | None] | None
) -> None:
    """Draws loss and accuracy of both splits over the epochs, as the report's figure 4.9.

    Args:
      path: where the PNG goes.
      rows: one dict per epoch, as in metrics.jsonl.
      best_epoch: the epoch whose parameters were kept.
      ceiling: best expected loss and accuracy, drawn as lines; None where nobody knows them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, quantity in zip(figure.subplots(1, 2), QUANTITIES, strict=True):
        draw_quantity(axes, quantity, rows, best_epoch, ceiling)
    figure.savefig(path, dpi=150)


def draw_quantity(
    axes: Any,
    quantity: str,
    rows: list[dict[str, Any]],
    best_epoch: int,
    ceiling: dict[str, float | None] | None,
) -> None:
    """Draws one of `QUANTITIES` on matplotlib's `axes`; see `draw_curves`."""
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in rows]
    for split, label, colour in (("train", "train", "C0"), ("val", "validation", "C1")):
        values = [row[f"{split}_{quantity}"] for row in rows]
        axes.plot(epochs, values, label=label, color=colour, marker=".", linewidth=1.5)
    if ceiling:
        axes.axhline(ceiling[quantity], color="0.4", linestyle=":", label="Bayes ceiling")
    axes.axvline(best_epoch, color="0.8", zorder=0, label="best epoch")
    axes.set(xlabel="epoch", ylabel=QUANTITIES[quantity], title=quantity.capitalize())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


class TensorBoard:
    """Event files with the same tags for train and validation, so that both share a plot."""

    def __init__(self, folder: Path, first_epoch: int, writes: bool = True):
        """Opens the files; events from `first_epoch` on that a crash left behind are purged.

        Args:
          folder: where the files go.
          first_epoch: the first epoch that is going to be written.
          writes: false where another process writes them; all calls do nothing then.
        """
        # The name has the second in it, and another start in that second would overwrite the file.
        own = f".{os.getpid()}"
        self._writers = {
            split: SummaryWriter(str(folder / split), purge_step=first_epoch, filename_suffix=own)
            for split in ("train", "validation")
            if writes
        }

    def write(self, row: dict[str, Any]) -> None:
        """Adds the metrics of one epoch, as in metrics.jsonl."""
        for key, value in row.items():
            for prefix, split in (("train_", "train"), ("val_", "validation")):
                if key.startswith(prefix) and value is not None and split in self._writers:
                    self._writers[split].add_scalar(key.removeprefix(prefix), value, row["epoch"])
            own = not key.startswith(("train_", "val_")) and key not in ("epoch", "step", "seconds")
            if own and self._writers:
                if isinstance(value, list):
                    self._counts(key, value, row["epoch"])
                else:
                    self._writers["train"].add_scalar(key, value, row["epoch"])
        for writer in self._writers.values():
            writer.flush()

    def _counts(self, key: str, counts: list[int], epoch: int) -> None:
        """Adds a histogram of whole numbers: `counts[n]` of the value n."""
        values = range(len(counts))
        self._writers["train"].add_histogram_raw(
            key,
            min=0,
            max=len(counts) - 1,
            num=sum(counts),
            sum=sum(n * count for n, count in zip(values, counts, strict=True)),
            sum_squares=sum(n * n * count for n, count in zip(values, counts, strict=True)),
            bucket_limits=[n + 0.5 for n in values],
            bucket_counts=counts,
            global_step=epoch,
        )

    def close(self) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()
