"""Trains the report's networks with jaxdna, Keras and PyTorch in turn, and prints the ratios.

python tools/bench_peers.py [--models=tal1,mnist,mnist_mlp,cifar10,auroc] [--repeats=3] [--docs]

--docs writes the result into docs/performance.md, for which all models are needed. On two cores
that have nothing else to do it takes less than ten minutes, once the peers are installed.

Keras and PyTorch are installed into environments of their own under --cache, once. Each framework
has a process of its own per row; all of them are warmed up, then they train in turn, so that a
busy moment of the machine meets all. Same examples, global batch and epochs for all of them, the
report's settings (Adam 1e-3, no augmentation), float32. What is timed is whole epochs of training
from arrays in the host's memory: shuffling, batching, moving to the devices, steps, metrics.

TAL1 trains on its 12,800 sequences, the image networks on random images: their speed does not
depend on what there is to see. `auroc` is the time to validation AUROC 0.97: jaxdna with its
recommended recipe against Keras with the report's settings, validation after every epoch included.
"""

import argparse
import json
import platform
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from jaxdna.config import load_config
from jaxdna.data.registry import load_dataset
from jaxdna.parallel.cluster import free_port
from jaxdna.parallel.cores import cores
from tools.peers.environments import CACHE, environment, worker

DOCS = Path(__file__).parent.parent / "docs"
BEGIN, END = "<!-- bench_peers.py --docs writes this -->", "<!-- up to here -->"
WANTED_AUROC, MOST_EPOCHS = 0.97, 40
BUILT_ON = {"jaxdna": "jax", "Keras": "TensorFlow", "PyTorch": "torch"}  # whose version is shown
STYLES = {  # of the bars: a hue for each framework, pale with two replicas, and ourselves in grey
    "Keras": {"color": "C0"},
    "Keras, MirroredStrategy": {"color": "#9ecae1"},
    "PyTorch": {"color": "C1"},
    "PyTorch, DDP": {"color": "#fdd0a2"},
    "jaxdna, one device": {"color": "0.85", "hatch": "///", "edgecolor": "0.5"},
}
CLOCKS = {"training_seconds": "seconds of training", "seconds": "building and compiling included"}
RATIOS = {  # docs/performance.md: (row, peer) -> jaxdna at least so many times as fast
    ("TAL1, batch 32", "Keras"): 5,
    ("TAL1, batch 32", "Keras, MirroredStrategy"): 8,
    ("TAL1, batch 128", "Keras"): 3,
    ("CIFAR-10, batch 256", "Keras"): 1,
    ("MNIST, batch 128", "Keras"): 1,
    ("MNIST dense, batch 128", "Keras"): 1,
}


@dataclass(frozen=True)
class Row:
    """What is trained.

    Attributes:
      title: in the table.
      config: of jaxdna.
      changes: of the config.
      batch: global.
      two: whether the forms with two replicas run, too.
      alone: whether jaxdna on a single device runs, too.
    """

    title: str
    config: str
    changes: list[str]
    batch: int
    two: bool = False
    alone: bool = False


def _images(title: str, name: str, batch: int, examples: int, alone: bool) -> Row:
    few = [f"data.train_examples={examples}", "data.validation_examples=128"]
    config = f"configs/{name}.py:timing"
    return Row(f"{title}, batch {batch}", config, few, batch, alone=alone)


MODELS = {
    "tal1": [
        Row(f"TAL1, batch {batch}", "configs/tal1.py:report", [], batch, True)
        for batch in (32, 128)
    ],
    "mnist": [_images("MNIST", "mnist", 128, 1280, True)],
    "mnist_mlp": [_images("MNIST dense", "mnist_mlp", 128, 12_800, False)],
    "cifar10": [_images("CIFAR-10", "cifar10", 256, 1280, True)],
}


def requests(row: Row, folder: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Writes the row's data; returns a framework and a request by the competitor's name."""
    config = load_config(row.config, row.changes)
    splits = load_dataset(config).splits
    path = folder / f"{config.data.name}.npz"
    np.savez(
        path,
        x=splits["train"].x,
        y=splits["train"].y,
        x_validation=splits["validation"].x,
        y_validation=splits["validation"].y,
    )
    request = {"data": str(path), "batch": row.batch, "network": config.model.to_dict()}
    ours = request | {"config": row.config, "changes": row.changes}
    found = {
        "jaxdna": ("jaxdna", ours),
        "Keras": ("keras", request),
        "PyTorch": ("torch", request),
    }
    if row.alone:
        one = ours | {"changes": [*row.changes, "runtime.cpu_devices=1"]}
        found["jaxdna, one device"] = ("jaxdna", one)
    if row.two:
        two = request | {"replicas": 2, "port": free_port()}
        found["Keras, MirroredStrategy"] = ("keras", two)
        found["PyTorch, DDP"] = ("torch", two)
    return found


def measure(row: Row, pythons: dict[str, Path | str], repeats: int, seconds: float) -> Any:
    """Examples per second of everyone, each repeat; for TAL1 also jaxdna's peak and prediction."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        workers = {
            name: stack.enter_context(worker(pythons[framework], framework, request))
            for name, (framework, request) in requests(row, Path(folder)).items()
        }
        counts = {w.ready["parameters"] for w in workers.values()}
        assert len(counts) == 1, f"{row.title}: networks differ: {counts}"
        rates: dict[str, list[float]] = {name: [] for name in workers}
        processor: dict[str, list[float]] = {name: [] for name in workers}
        extra: dict[str, list[float]] = {"gflops": [], "predict": []}
        for _ in range(repeats):
            for name, one in workers.items():
                answer = one.ask(f"train {seconds}")
                rates[name].append(answer["per_second"])
                processor[name].append(answer["processor_ms"])
            if row.two:
                extra["gflops"].append(workers["jaxdna"].ask("peak 2048 1")["gflops"])
                extra["predict"].append(workers["jaxdna"].ask(f"predict {seconds}")["per_second"])
        versions = {name: one.ready["version"] for name, one in workers.items()}
    return {
        "title": row.title,
        "rates": rates,
        "processor_ms": processor,
        "versions": versions,
        "parameters": counts.pop(),
    } | ({"gflops": max(extra["gflops"]), "predict": median(extra["predict"])} if row.two else {})


def time_to_auroc(pythons: dict[str, Path | str], repeats: int) -> dict[str, list[dict[str, Any]]]:
    """Seconds to the wanted AUROC, of the recommended recipe and of the report's settings."""
    row = MODELS["tal1"][0]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        made = requests(row, Path(folder))
        ours = made["jaxdna"][1] | {"config": "configs/tal1.py"}
        mine = stack.enter_context(worker(pythons["jaxdna"], "jaxdna", ours))
        peer = stack.enter_context(worker(pythons["keras"], "keras", made["Keras"][1]))
        found: dict[str, list[dict[str, Any]]] = {"jaxdna": [], "Keras": []}
        for seed in range(repeats):
            for name, one in (("jaxdna", mine), ("Keras", peer)):
                found[name].append(one.ask(f"until {WANTED_AUROC} {MOST_EPOCHS} {seed}"))
    return found


def ratios(rates: dict[str, list[float]], peer: str) -> tuple[float, float, float]:
    """Median, least and largest ratio of jaxdna to a peer, repeat by repeat."""
    each = [a / b for a, b in zip(rates["jaxdna"], rates[peer], strict=True)]
    return median(each), min(each), max(each)


def show(rows: list[Any], reached: dict[str, list[dict[str, Any]]] | None) -> str:
    """The tables, in Markdown."""
    lines = []
    if rows:
        lines += ["| network | framework | examples/s | jaxdna: times as fast | range | target |"]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        for name, rates in row["rates"].items():
            with_version = f"{name} ({BUILT_ON[name.split(',')[0]]} {row['versions'][name]})"
            line = f"| {row['title']} | {with_version} | {median(rates):,.0f} |"
            if name != "jaxdna":
                middle, low, high = ratios(row["rates"], name)
                wanted = RATIOS.get((row["title"], name))
                line += f" {middle:.2f} | {low:.2f} to {high:.2f} |"
                line += f" {_judged(middle, wanted) if wanted else ''} |"
            else:
                line += "  |  |  |"
            lines.append(line)
    if reached:
        lines += ["", f"Time to a validation AUROC of {WANTED_AUROC}:", ""] if rows else []
        lines += [f"| framework | {' | '.join(CLOCKS.values())} | epochs | reached |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        for name, runs in reached.items():
            middles = " | ".join(f"{median(run[key] for run in runs):.2f}" for key in CLOCKS)
            epochs = ", ".join(str(run["epochs"]) for run in runs)
            count = f"{sum(run['reached'] for run in runs)} of {len(runs)}"
            lines.append(f"| {name} | {middles} | {epochs} | {count} |")
        pairs = list(zip(reached["Keras"], reached["jaxdna"], strict=True))
        faster = [f"{median(k[key] / j[key] for k, j in pairs):.1f}" for key in CLOCKS]
        lines += [
            "",
            f"jaxdna gets there {faster[0]} times as fast ({CLOCKS['training_seconds']}; target: "
            f"at least 10), or {faster[1]} times ({CLOCKS['seconds']}). A run that has not got "
            f"there after {MOST_EPOCHS} epochs counts with the seconds that it took.",
        ]
    for row in rows:
        lines += ["", *(_shares(row) if "gflops" in row else _processor(row))]
    return "\n".join(lines)


def _judged(ratio: float, wanted: float) -> str:
    return f"at least {wanted}: {'reached' if ratio >= wanted else '**not reached**'}"


def _processor(row: Any) -> list[str]:
    """What counts where the machine has other work; of one process each, so not for two."""
    used = {name: median(ms) for name, ms in row["processor_ms"].items()}
    each = ", ".join(f"{name} {ms:.3g}" for name, ms in used.items())
    return [
        f"{row['title']}, by processor time: {used['Keras'] / used['jaxdna']:.2f} times as fast as "
        f"Keras (ms per example: {each})."
    ]


def _shares(row: Any) -> list[str]:
    # Products of the plain convolution; the derivative of the winning windows adds 0.2%.
    gflops = 2e-9 * 486 * 60 * 16
    train, predict = median(row["rates"]["jaxdna"]), row["predict"]
    peak = row["gflops"]
    return [
        f"{row['title']}: the largest float32 matrix product reaches {peak:.0f} GFLOP/s; training "
        f"{train * gflops:.0f} ({100 * train * gflops / peak:.0f}%; target: half), prediction "
        f"{predict:,.0f} sequences/s, {predict * 500e-6:.1f} million bases/s, "
        f"{predict * gflops:.0f} GFLOP/s ({100 * predict * gflops / peak:.0f}%)."
    ]


def machine() -> str:
    """What was measured on, and when."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    [name, *_] = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    versions = f"Python {platform.python_version()}, jax {metadata.version('jax')}"
    return f"{cores()} cores of an {name}, {versions}, {date.today():%-d %B %Y}"


def write_docs(rows: list[Any], reached: dict[str, list[dict[str, Any]]]) -> None:
    """Replaces what docs/performance.md says of the latest run, and the picture."""
    page = DOCS / "performance.md"
    before, rest = page.read_text().split(BEGIN)
    picture = "![Training speed of jaxdna over the peers'](images/bench_peers.png)"
    parts = [f"The latest run ({machine()}):", picture, show(rows, reached)]
    made = "\n\n".join([BEGIN, *parts, END])
    page.write_text(before + made + rest.partition(END)[2])
    draw(rows, DOCS / "images" / "bench_peers.png")


def _within(tick: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= tick <= limits[1]


def draw(rows: list[Any], path: Path) -> None:
    """Draws how many times as fast jaxdna is as each of the others."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 1 + 0.8 * len(rows)), layout="constrained")
    height = 0.2
    for number, row in enumerate(rows):
        names = [name for name in row["rates"] if name != "jaxdna"]
        for i, name in enumerate(names):
            y = number + (i - (len(names) - 1) / 2) * height
            middle, low, high = ratios(row["rates"], name)
            spread = [[middle - low], [high - middle]]
            bar = {"left": 1, "height": 0.9 * height, "xerr": spread, "error_kw": {"lw": 1}}
            axes.barh(y, middle - 1, label=name, **bar, **STYLES[name])
            beside = (high, "left") if middle >= 1 else (low, "right")
            digits = 2 if middle < 2 else 1 if middle < 10 else 0
            told = f"  {middle:.{digits}f}  "
            axes.text(beside[0], y, told, ha=beside[1], va="center", fontsize="small")
    axes.axvline(1, color="black", lw=1)
    axes.set_yticks(range(len(rows)), [row["title"] for row in rows])
    axes.tick_params("y", length=0)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xscale("log")
    ticks = [tick for tick in (0.25, 0.5, 1, 2, 5, 10, 20, 50) if _within(tick, axes.get_xlim())]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("jaxdna trains so many times as fast (median; line: range)")
    axes.spines[["top", "right"]].set_visible(False)
    shown = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    handles, labels = list(shown.values()), list(shown)
    place = {"loc": "outside lower center", "ncols": 3, "frameon": False}
    figure.legend(handles, labels, fontsize="small", **place)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measures, prints the tables and writes bench_peers.json and bench_peers.png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*MODELS, "auroc"]
    parser.add_argument("--models", default=",".join(names), help="of " + ", ".join(names))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement, about")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--output", type=Path, default=Path("runs/bench_peers"))
    parser.add_argument("--docs", action="store_true", help="write into docs/performance.md")
    arguments = parser.parse_args()
    models = arguments.models.split(",")
    if unknown := [name for name in models if name not in names]:
        parser.error(f"--models={unknown[0]} is unknown; choose from {', '.join(names)}")
    if arguments.docs and set(models) != set(names):
        parser.error("--docs takes all models; leave out --models")
    pythons: dict[str, Path | str] = {"jaxdna": sys.executable}
    pythons |= {name: environment(name, arguments.cache.resolve()) for name in ("keras", "torch")}
    rows = []
    for row in (row for name in models for row in MODELS.get(name, [])):
        rows.append(measure(row, pythons, arguments.repeats, arguments.seconds))
        print(f"measured {row.title}", file=sys.stderr, flush=True)
    reached = time_to_auroc(pythons, arguments.repeats) if "auroc" in models else None
    arguments.output.mkdir(parents=True, exist_ok=True)
    result = {"rows": rows, "time_to_auroc": reached}
    (arguments.output / "bench_peers.json").write_text(json.dumps(result, indent=2))
    if rows:
        draw(rows, arguments.output / "bench_peers.png")
    if arguments.docs and reached:
        write_docs(rows, reached)
    print(show(rows, reached))


if __name__ == "__main__":
    main()
