"""Pictures of a run: curves.png, and TensorBoard's event files."""

import os
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jaxdna.storage.files import Folder, picture
from jaxdna.tasks.task import Task


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """Lets the import of modules fail meanwhile, unless that has been done before."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    yield
    for name in hidden:
        del sys.modules[name]


# tensorboardX has writers of its own for buckets, which take a second to import and are not used.
with _without("boto3", "google.cloud.storage"):
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import masked_crc32c
    from tensorboardX.summary import histogram_raw, scalar, text


def draw_curves(
    task: Task,
    rows: list[dict[str, Any]],
    best_epoch: int,
    ceiling: dict[str, float | None] | None,
) -> bytes:
    """Returns `curves_figure` as PNG."""
    return picture(curves_figure(task, rows, best_epoch, ceiling), "png", dpi=150)


def curves_figure(
    task: Task,
    rows: list[dict[str, Any]],
    best_epoch: int | None,
    ceiling: dict[str, float | None] | None,
    kind: Any = None,
) -> Any:
    """Returns a figure: loss, and what else is followed, over epochs, as the report's figure 4.9.

    Args:
      task: what is followed.
      rows: one dict per epoch, as in metrics.jsonl.
      best_epoch: the epoch whose parameters were kept, if any.
      ceiling: best expected scores, drawn as lines; None where nobody knows them.
      kind: the class of the figure; matplotlib's own if None.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = (kind or Figure)(figsize=(9, 3.6))
    FigureCanvasAgg(figure)
    # Margins set by hand: matplotlib's own layouts draw everything several times.
    figure.subplots_adjust(left=0.075, right=0.985, bottom=0.14, top=0.91, wspace=0.2)
    for axes, quantity in zip(figure.subplots(1, 2), quantities(task), strict=True):
        draw_quantity(axes, quantity, task.scored[quantity], rows, best_epoch, ceiling)
    return figure


def quantities(task: Task) -> tuple[str, str]:
    """Returns what is drawn of a run: the loss, and the first that is followed beside it."""
    return "loss", task.followed[0]


def draw_quantity(
    axes: Any,
    quantity: str,
    label: str,
    rows: list[dict[str, Any]],
    best_epoch: int | None,
    ceiling: dict[str, float | None] | None,
) -> None:
    """Draws one of `quantities`, called `label`, on matplotlib's `axes`; see `draw_curves`."""
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in rows]
    for split, name, colour in (("train", "train", "C0"), ("val", "validation", "C1")):
        if rows and f"{split}_{quantity}" not in rows[0]:
            continue  # of the training split only sums over batches are known
        values = [row[f"{split}_{quantity}"] for row in rows]
        axes.plot(epochs, values, label=name, color=colour, marker=".", linewidth=1.5)
    if ceiling:
        axes.axhline(ceiling[quantity], color="0.4", linestyle=":", label="Bayes ceiling")
    if best_epoch is not None:
        axes.axvline(best_epoch, color="0.8", zorder=0, label="best epoch")
    axes.set(xlabel="epoch", title=label[0].upper() + label[1:])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def add_pictures(run: Folder, epoch: int, pictures: Mapping[str, bytes]) -> None:
    """Adds pictures to what TensorBoard shows of a run.

    Args:
      run: the run folder.
      epoch: what they are of.
      pictures: PNG by name.

    Raises:
      OSError: they cannot be written.
    """
    file = f"tensorboard/filters/{_file_name(time.time())}"
    run.make("tensorboard/filters")
    run.append(file, _record(Event(wall_time=time.time(), file_version="brain.Event:2")))
    for name, png in pictures.items():
        width, height = struct.unpack(">II", png[16:24])  # of PNG's first chunk, the header
        image = Summary.Image(width=width, height=height, encoded_image_string=png)
        shown = Summary(value=[Summary.Value(tag=name, image=image)])
        run.append(file, _record(_event(epoch, summary=shown)))


_NOT_SHOWN = ("epoch", "step", "seconds")


class TensorBoard:
    """Event files with the same tags for train and validation, so that both share a plot.

    Events are added here and now. tensorboardX' SummaryWriter has threads for that, whose
    tracebacks on a full disk nobody can catch.
    """

    def __init__(
        self, run: Folder, first_epoch: int, settings: Mapping[str, Any], writes: bool = True
    ):
        """Opens the files; events from `first_epoch` on that a crash left behind are purged.

        Args:
          run: the run folder; the files go into its `tensorboard`.
          first_epoch: the first epoch that is going to be written.
          settings: the configuration by dotted keys, shown as a text.
          writes: false where another process writes them; all calls do nothing then.

        Raises:
          OSError: they cannot be written; all methods.
        """
        self._run, self._files = run, {}
        now = time.time()
        own = _file_name(now)
        for split in ("train", "validation") if writes else ():
            run.make(f"tensorboard/{split}")
            self._files[split] = f"tensorboard/{split}/{own}"
            begin = Event(wall_time=now, file_version="brain.Event:2")
            start = _event(first_epoch, session_log=SessionLog(status=SessionLog.START))
            self._add(split, [begin, start])
        if writes:
            self._add("train", [_event(first_epoch, summary=text("settings", _as_table(settings)))])

    def write(self, row: dict[str, Any]) -> None:
        """Adds the metrics of one epoch: a row of metrics.jsonl, and more beside."""
        epoch = row["epoch"]
        events: dict[str, list[Event]] = {split: [] for split in self._files}
        for key, value in row.items() if events else ():
            for prefix, split in (("train_", "train"), ("val_", "validation")):
                if key.startswith(prefix) and value is not None:
                    shown = scalar(key.removeprefix(prefix), value)
                    events[split].append(_event(epoch, summary=shown))
            own = not key.startswith(("train_", "val_")) and key not in _NOT_SHOWN
            if own and value is not None:
                shown = _counts(key, value) if isinstance(value, list) else scalar(key, value)
                events["train"].append(_event(epoch, summary=shown))
        for split, added in events.items():
            self._add(split, added)

    def _add(self, split: str, events: list[Event]) -> None:
        self._run.append(self._files[split], b"".join(map(_record, events)))


def _file_name(now: float) -> str:
    # The process, since another start in this second would have the same name otherwise.
    return f"events.out.tfevents.{int(now)}.{socket.gethostname()}.{os.getpid()}"


def _as_table(settings: Mapping[str, Any]) -> str:
    """Markdown, as TensorBoard shows it."""
    rows = (f"| `{key}` | `{value}` |" for key, value in sorted(settings.items()))
    return "\n".join(["| key | value |", "| --- | --- |", *rows])


def _event(epoch: int, **content: Any) -> Event:
    return Event(wall_time=time.time(), step=epoch, **content)


def _record(event: Event) -> bytes:
    """TFRecord's form: the length, its masked CRC-32C, the message, its masked CRC-32C."""
    message = event.SerializeToString()
    length = struct.pack("<Q", len(message))
    sums = (struct.pack("<I", masked_crc32c(part)) for part in (length, message))
    return length + next(sums) + message + next(sums)


def _counts(key: str, counts: list[int]) -> Summary:
    """A histogram of whole numbers: `counts[n]` of the value n."""
    values = range(len(counts))
    return histogram_raw(
        key,
        min=0,
        max=len(counts) - 1,
        num=sum(counts),
        sum=sum(n * count for n, count in zip(values, counts, strict=True)),
        sum_squares=sum(n * n * count for n, count in zip(values, counts, strict=True)),
        bucket_limits=[n + 0.5 for n in values],
        bucket_counts=counts,
    )
