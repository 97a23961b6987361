"""Pictures of a schedule: device by time, as text and as PNG."""

from pathlib import Path

from jaxdna.strategies.schedules import BACKWARD, FORWARD, UPDATE, Event, bubble


def as_text(events: list[Event], stages: int, microbatches: int) -> str:
    """Returns one line per stage and one column per slot: F3, B3, and dots where it is idle.

    Args:
      events: of `timetable`.
      stages: S.
      microbatches: M; numbers begin again at 0 with each batch.
    """
    slots = 1 + max(event.time for event in events)
    width = len(str(microbatches - 1)) + 1
    grid = [["." * width] * slots for _ in range(stages)]
    for event in events:
        if event.kind != UPDATE:
            cell = f"{event.kind[0].upper()}{event.microbatch % microbatches}"
            grid[event.stage][event.time] = cell.ljust(width)
    return "".join(f"stage {s}  {' '.join(row)}\n" for s, row in enumerate(grid))


def draw(path: Path, named: dict[str, list[Event]], stages: int, microbatches: int) -> None:
    """Draws schedules below each other into a PNG: forward, backward, update, idle.

    Args:
      path: where the PNG goes.
      named: events by the title of each picture.
      stages: S.
      microbatches: M.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    slots = 1 + max(event.time for events in named.values() for event in events)
    figure = Figure(figsize=(1 + 0.34 * slots, len(named) * (0.5 + 0.3 * stages)))
    figure.set_layout_engine("constrained")
    FigureCanvasAgg(figure)
    batches = ["C0", "C1", "C2", "C4"]
    for axes, (title, events) in zip(
        figure.subplots(len(named), 1, squeeze=False)[:, 0], named.items(), strict=True
    ):
        for event in events:
            batch, piece = divmod(event.microbatch, microbatches)
            colour = batches[batch % len(batches)]
            if event.kind == UPDATE:
                reach = [event.stage - 0.45, event.stage + 0.45]
                axes.plot([event.time + 1] * 2, reach, "k", lw=2, clip_on=False)  # the last, whole
                continue
            alpha = {FORWARD: 0.35, BACKWARD: 0.8}[event.kind]
            axes.barh(event.stage, 1, left=event.time, height=0.9, color=colour, alpha=alpha)
            label = f"{event.kind[0].upper()}{piece}"
            axes.text(event.time + 0.5, event.stage, label, ha="center", va="center", fontsize=7)
        axes.set(
            xlim=(0, slots),
            ylim=(stages - 0.5, -0.5),
            yticks=range(stages),
            yticklabels=[f"stage {s}" for s in range(stages)],
        )
        axes.set_title(f"{title}: {bubble(events, stages):.0%} idle", loc="left", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("slot (one pass of one micro-batch through one stage); bars: updates")
    figure.savefig(path, dpi=110)
