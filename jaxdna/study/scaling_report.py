"""How a scaling study is shown: table, CSV, Markdown, picture, and what it says in words."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from jaxdna.storage.files import Folder, picture, writing
from jaxdna.study.scaling import Row, place

_OUTWEIGHS = 0.5  # of a step: from here on communication takes longer than the work

COLUMNS = (
    "config", "scaling", "devices", "batch", "run", "spread", "samples/s", "speed-up", "efficiency",
    "communication", "cost",
)  # fmt: skip


def duration(seconds: float) -> str:
    """Returns seconds as the report's tables have them: `4 min 24 s`, `54.7 s`."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min {rest} s" if hours else f"{minutes} min {rest} s"


def cells(row: Row) -> list[str]:
    """Returns a row of the table as texts, in the order of `COLUMNS`."""
    return [
        row.config,
        row.mode,
        f"{row.devices}{' (simulated)' if row.simulated else ''}",
        str(row.batch_size),
        duration(row.seconds),
        f"±{row.spread:.0%}",
        f"{row.samples_per_second:,.0f}",
        f"{row.speedup:.2f}",
        f"{row.efficiency:.0%}",
        "-" if row.communication is None else f"{row.communication:.0%}",
        "-" if row.cost is None else f"{row.cost:.4g}",
    ]


def short_table(rows: Sequence[Row]) -> tuple[str, list[str], list[list[str]]]:
    """Returns the table for a terminal: its title, headings and lines.

    The title has what is the same in all rows; that devices are simulated stands in `sentences`.
    """
    lines = [cells(replace(row, simulated=False)) for row in rows]
    same = {
        name: lines[0][i]
        for i, name in enumerate(COLUMNS)
        if name in ("config", "scaling") and len({line[i] for line in lines}) == 1
    }
    empty = {name for i, name in enumerate(COLUMNS) if all(line[i] == "-" for line in lines)}
    kept = [i for i, name in enumerate(COLUMNS) if name not in same.keys() | empty]
    of = " of " + same["config"] if "config" in same else ""
    scaling = f", {same['scaling']} scaling" if "scaling" in same else ""
    heads = [COLUMNS[i].replace("communication", "communi-\ncation") for i in kept]
    title = f"Training{of} on {rows[0].device_kind}{scaling}"
    return title, heads, [[line[i] for i in kept] for line in lines]


def report_table(rows: Sequence[Row]) -> list[list[str]]:
    """Returns times of a run as the report's tables 4.4 and 4.5: a line per network.

    The first line holds the headings; every text is as in `duration`.
    """
    counts = sorted({row.devices for row in rows})
    times = {(row.config, row.mode, row.devices): duration(row.seconds) for row in rows}
    networks = list(dict.fromkeys((row.config, row.mode) for row in rows))
    heads = [f"{count} device{'s' * (count > 1)}" for count in counts]
    return [
        ["training time", *heads],
        *(
            [f"{config}, {mode} scaling", *(times.get((config, mode, n), "-") for n in counts)]
            for config, mode in networks
        ),
    ]


def markdown(rows: Sequence[Row], cores: int | None) -> str:
    """Returns both tables and the sentences as Markdown."""

    def lines(head: Sequence[str], *body: Sequence[str]) -> str:
        texts = [head, ["---"] * len(head), *body]
        return "".join(f"| {' | '.join(text)} |\n" for text in texts)

    said = "".join(f"\n{sentence}\n" for sentence in sentences(rows, cores))
    return f"{lines(*report_table(rows))}\n{lines(COLUMNS, *map(cells, rows))}{said}"


def comma_separated(rows: Sequence[Row]) -> str:
    """Returns every field of every row as CSV; the mesh as `data=4 fsdp=1 ...`."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(asdict(rows[0])), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        mesh = " ".join(f"{axis}={size}" for axis, size in row.mesh.items())
        writer.writerow(asdict(row) | {"mesh": mesh})
    return stream.getvalue()


def sentences(rows: Sequence[Row], cores: int | None) -> list[str]:
    """Returns what the numbers say: whether devices are real, and where more of them do not pay."""
    said = []
    if any(row.simulated for row in rows):
        said.append(
            f"Simulated devices share this machine's {cores} cores: these rows show that the "
            "layout works and what it adds, not how fast real devices are."
        )
    for row in rows:
        where = place(row.config, row.mode, row.devices)
        if row.communication is not None and row.communication >= _OUTWEIGHS:
            said.append(
                f"{where}: communication outweighs the work ({row.communication:.0%} of each step "
                f"of {row.batch_size} examples); a larger batch gives each device more to do."
            )
        elif row.speedup < 1:
            said.append(f"{where}: a run takes longer than on fewer devices.")
    return said


def write_files(folder: Folder, rows: Sequence[Row], cores: int | None) -> None:
    """Writes scaling.csv, scaling.md and scaling.png."""
    with writing(folder, "--workdir"):
        folder.write("scaling.csv", comma_separated(rows))
        folder.write("scaling.md", markdown(rows, cores))
        folder.write("scaling.png", draw(rows))


def draw(rows: Sequence[Row]) -> bytes:
    """Returns a PNG: time of a run, and its cost if priced, over devices, as figures 4.7 and 4.6.

    Dashed: the ideal, a time that falls as devices are added. Bars show the spread.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    priced = any(row.cost is not None for row in rows)
    figure = Figure(figsize=(10.5 if priced else 7, 4.3), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3 if priced else 2)
    counts = sorted({row.devices for row in rows})
    series: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        series.setdefault((row.config, row.mode), []).append(row)
    for i, ((config, mode), line) in enumerate(series.items()):
        devices = [row.devices for row in line]
        style = {"color": f"C{i}", "marker": "o", "label": f"{config}, {mode}"}
        bars = [row.seconds * row.spread for row in line]
        panels[0].errorbar(devices, [row.seconds for row in line], bars, capsize=3, **style)
        ideal = [line[0].seconds * devices[0] / count for count in devices]
        panels[0].plot(devices, ideal, color=f"C{i}", linestyle="--", linewidth=1)
        panels[1].plot(devices, [row.speedup for row in line], **style)
        if priced:
            panels[2].plot(devices, [row.cost for row in line], **style)
    panels[1].plot(
        counts, [count / counts[0] for count in counts], "--", color="0.5", label="ideal"
    )
    simulated = ", simulated" if any(row.simulated for row in rows) else ""
    panels[0].set(title="Time of a run", ylabel="seconds", yscale="log")
    _plain(panels[0].yaxis)
    panels[1].set(title="Speed-up", yscale="log")
    panels[1].set(ylabel=f"compared with {counts[0]} device{'s' * (counts[0] > 1)}")
    ticks = [
        2**i for i in range(-3, 11) if panels[1].get_ylim()[0] < 2**i < panels[1].get_ylim()[1]
    ]
    panels[1].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    panels[1].set_yticks([], minor=True)
    if priced:
        price = next(3600 * r.cost / (r.seconds * r.devices) for r in rows if r.cost is not None)
        said = f"currency units, at {price:.4g} per device-hour"
        panels[2].set(title="Cost of a run", ylabel=said, yscale="log")
        _plain(panels[2].yaxis)
    for axes in panels:
        axes.set(xscale="log", xticks=counts, xlabel=f"devices ({rows[0].device_kind}{simulated})")
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.set_xticks([], minor=True)
        axes.spines[["top", "right"]].set_visible(False)
    lines, labels = panels[1].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=3, frameon=False)
    return picture(figure, "png", dpi=150)


def _plain(axis: Any) -> None:
    """Labels a logarithmic axis with numbers as people write them, and not with powers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())
