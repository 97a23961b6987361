"""The figures of the report, as SVG text that stands inside a page."""

import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxdna.analysis.logos import logo_figure
from jaxdna.data.motifs import Motif
from jaxdna.errors import visible
from jaxdna.runs.curves import draw_quantity, quantities
from jaxdna.tasks.task import Task

_MOST_POINTS = 2000  # more make a page slow and show nothing more


def curve_svgs(
    task: Task,
    rows: list[dict[str, Any]],
    best_epoch: int,
    ceiling: dict[str, float | None] | None,
) -> list[str]:
    """Returns what is followed over the epochs; see `runs.curves.draw_curves`."""
    made = []
    for quantity in quantities(task):
        figure, axes = _panel()
        draw_quantity(axes, quantity, task.scored[quantity], rows, best_epoch, ceiling)
        made.append(svg(figure, quantity))
    return made


def roc_and_pr_svgs(
    labels: NDArray[np.int32],
    logits: NDArray[np.floating],
    best_logits: NDArray[np.floating] | None,
) -> list[str]:
    """Returns the ROC, and the precision-recall curve, with the Bayes ceiling's where known.

    Args:
      labels: [examples], 0 or 1, both present.
      logits: [examples].
      best_logits: [examples], of the best possible classifier, or None.
    """
    (roc_figure, roc), (pr_figure, pr) = _panel(), _panel()
    kinds: list[tuple[str, NDArray, dict[str, Any]]] = [("model", logits, {"color": "C0"})]
    if best_logits is not None:
        kinds.append(("Bayes ceiling", best_logits, {"color": "0.4", "linestyle": ":"}))
    for name, scores, style in kinds:
        true, false = _counts(labels, scores)
        roc.plot(false / max(false[-1], 1), true / true[-1], label=name, **style)
        called = np.maximum(true + false, 1)
        pr.plot(true[1:] / true[-1], (true / called)[1:], label=name, **style)
    roc.plot([0, 1], [0, 1], color="0.85", zorder=0)
    roc.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
    pr.axhline(labels.mean(), color="0.85", zorder=0)
    pr.set(xlabel="recall", ylabel="precision", title="Precision and recall", ylim=(0, 1.02))
    for axes in (roc, pr):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower center")
    return [svg(roc_figure, "roc"), svg(pr_figure, "pr")]


def reliability_svg(calibrations: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the share that came true against the probability that was predicted.

    Args:
      calibrations: by what they are called, `before` or `after` of `tasks.calibration`.
    """
    figure, axes = _panel()
    axes.plot([0, 1], [0, 1], color="0.85", zorder=0)
    for name, found in calibrations.items():
        bins = found["reliability"]
        axes.plot(
            [one["predicted"] for one in bins],
            [one["observed"] for one in bins],
            label=f"{name}: {found['error']:.3f}",
            marker=".",
        )
    axes.set(xlabel="predicted probability", ylabel="share that came true", title="Reliability")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", title="calibration error")
    return svg(figure, "reliability")


def scatter_svgs(task: Task, targets: NDArray, outputs: NDArray) -> list[str]:
    """Returns for each number what is predicted against what is known, at most `_MOST_POINTS`."""
    rows = np.unique(np.linspace(0, len(targets) - 1, _MOST_POINTS).astype(int))
    made: list[str] = []
    for (name, values), known in zip(task.answers(outputs).items(), targets.T, strict=True):
        figure, axes = _panel()
        axes.scatter(known[rows], values[rows], s=6, alpha=0.4, linewidths=0)
        axes.axline((known.mean(), known.mean()), slope=1, color="0.85", zorder=0)
        axes.set(xlabel="known", ylabel="predicted")
        axes.set_title(visible(name), parse_math=False)  # the user's own, and no formula
        axes.spines[["top", "right"]].set_visible(False)
        made.append(svg(figure, f"scatter{len(made)}"))
    return made


def logo_svg(motif: Motif) -> str:
    """Returns a sequence logo."""
    return svg(logo_figure(motif), motif.name)


def _panel() -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 3.4))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.16, right=0.97, bottom=0.14, top=0.91)
    return figure, figure.subplots()


def _counts(
    labels: NDArray[np.int32], scores: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """True and false positives above each threshold, from none to all; few enough to draw."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(scores[order][1:] != scores[order][:-1], True)
    true = np.append(0.0, np.cumsum(labels[order] == 1)[last])
    false = np.append(0.0, np.cumsum(labels[order] == 0)[last])
    if len(true) > 1000:  # keep every corner that a screen can show
        keep = np.unique(np.linspace(0, len(true) - 1, 1000).astype(int))
        true, false = true[keep], false[keep]
    return true, false


def svg(figure: Any, prefix: str) -> str:
    """Returns a figure as SVG without a prolog, its ids unique among several on one page."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": prefix, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for mark in ('id="', 'href="#', "url(#"):
        text = text.replace(mark, f"{mark}{prefix}-")
    # The size is the page's business; the shape stays in the viewBox.
    return re.sub(r'(<svg[^>]*?) (?:height|width)="[^"]*"', r"\1", text, count=1).replace(
        "<svg ", f'<svg role="img" aria-label="{prefix}" ', 1
    )
