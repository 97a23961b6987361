"""report.html: one page that shows a finished run, and asks nobody for anything."""

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from jaxdna.analysis.filters import FilterMotif
from jaxdna.analysis.motif_match import LIKELY_E_VALUE, likely
from jaxdna.analysis.report_figures import (
    curve_svgs,
    logo_svg,
    reliability_svg,
    roc_and_pr_svgs,
    scatter_svgs,
)
from jaxdna.config import flat
from jaxdna.console import figures
from jaxdna.errors import visible
from jaxdna.runs.display import class_sizes
from jaxdna.runs.members_table import (
    GRID,
    calibration_note,
    grid_rows,
    members_rows,
    members_title,
)
from jaxdna.tasks.classes import Binary
from jaxdna.tasks.task import Task

MOST_LOGOS = 8
_ATTRIBUTIONS = "What each base adds"
_SCORES, _CURVES, _FILTERS = "Scores on the test split", "Curves", "What the filters look for"
_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1f; background: #fff; margin: 0 auto;
  max-width: 60rem; padding: 1rem; }
h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p { margin: .5rem 0; overflow-wrap: anywhere; }
figure { margin: 0; } figure svg { width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem .75rem .25rem 0; text-align: left; border-bottom: 1px solid #ddd;
  vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.panels, .logos { display: grid; gap: 1rem; }
.panels { grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); }
.logos { grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
figcaption span { white-space: nowrap; }
.faint figure { opacity: .55; }
.headline { display: flex; flex-wrap: wrap; gap: .5rem 2rem; }
.headline b { display: block; font-size: 1.6rem; line-height: 1.2; }
details { margin: .5rem 0; } code { font-size: .85rem; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class ReportData:
    """Everything that the page shows.

    Attributes:
      name: of the run folder.
      config: what was trained.
      summary: as in summary.json.
      data: as in data.json.
      rows: as in metrics.jsonl.
      task: what was asked.
      targets: [examples, *target_shape] of the test split.
      outputs: float [examples, outputs] of the test split.
      best_logits: float [examples] of the best possible classifier; None where nobody knows it.
      ceiling: best expected loss and accuracy on the validation split, for the curves, or None.
      filters: motifs of the filters; empty for networks without.
      caveat: a sentence about the known motifs that they were compared with, or nothing.
      devices: one line.
    """

    name: str
    config: ConfigDict
    summary: dict[str, Any]
    data: dict[str, Any]
    rows: list[dict[str, Any]]
    task: Task
    targets: NDArray
    outputs: NDArray[np.floating]
    best_logits: NDArray[np.floating] | None
    ceiling: dict[str, float | None] | None
    filters: list[FilterMotif]
    caveat: str
    devices: str


def escape(text: str) -> str:
    """Returns text for a page, as plain as on a terminal."""
    return html.escape(visible(text))


def report_html(report: ReportData) -> str:
    """Returns the page."""
    summary, name = report.summary, escape(report.name)
    described = f"<p>{escape(report.data['describe'])}</p>"
    parts = [f"<header><h1>{name}</h1>{described}{_headline(report)}</header>"]
    if len(report.targets):
        parts.append(_section(_SCORES, _scores(report)))
    if "members" in summary:
        if "grid" in summary:
            parts.append(_section(GRID, table_html(*grid_rows(summary))))
        shown = table_html(*members_rows(summary)) + _reliability(summary)
        parts.append(_section(members_title(summary), shown + _student(report.config)))
    parts.append(_section(_CURVES, _figures(_curves(report))))
    if len(report.targets):
        parts += _answers(report.task, report.targets, report.outputs, report.best_logits)
    if report.filters:
        parts.append(_section(_FILTERS, _logos(report.filters, report.caveat)))
    parts += [
        _section("Data", _data(report.data)),
        _section("Layout and time", _layout(report)),
        _section("Configuration and versions", _settings(report)),
    ]
    return _page(report.name, parts, summary)


def folds_html(
    name: str,
    summary: dict[str, Any],
    task: Task,
    targets: NDArray,
    outputs: NDArray[np.floating],
) -> str:
    """Returns the page of a cross-validation, which leads to the pages of its folds.

    Args:
      name: of the folder that holds the folds.
      summary: as in its summary.json.
      task: what was asked.
      targets: [examples, *target_shape] of all folds.
      outputs: float [examples, outputs], each of the model that has not seen the example.
    """
    folds, keys = summary["folds"], task.scored
    rows: list[list[Any]] = [
        [f"fold {fold['fold']}", fold["examples"], *(fold[key] for key in keys)] for fold in folds
    ]
    rows += [[over, "", *(summary[over][key] for key in keys)] for over in ("mean", "sd")]
    rows.append(["pooled", len(targets), *(summary["test"][key] for key in keys)])
    chance = task.chance(targets)
    rows.append(["chance", "", *(chance[key] for key in keys)])
    links = ", ".join(
        f'<a href="fold{fold["fold"]}/report.html">fold {fold["fold"]}</a>' for fold in folds
    )
    parts = [
        f"<h1>{escape(name)}</h1>",
        f"<p>Cross-validation: each of {len(targets):,} examples is scored by the model that has "
        f"not seen it. The folds' own pages: {links}</p>",
        _section("Scores", _sizes(chance) + table_html(["", "examples", *keys.values()], rows)),
        *_answers(task, targets, outputs, None),
    ]
    return _page(name, parts, summary)


def grid_html(name: str, summary: dict[str, Any]) -> str:
    """Returns the page of a grid over networks, which leads to the page of the best one.

    Args:
      name: of the folder that holds their folders.
      summary: as in its summary.json.
    """
    page = f"{summary['folder']}/report.html"
    parts = [
        f"<h1>{escape(name)}</h1>",
        f"<p>{escape(summary['verdict'])}</p>",
        f'<p>The best setting has <a href="{page}">a page of its own</a>.</p>',
        _section(GRID, table_html(*grid_rows(summary))),
        _section(members_title(summary), table_html(*members_rows(summary))),
    ]
    return _page(name, parts, summary)


def with_attributions(page: str, svg: str, method: str, answer: str) -> str:
    """Returns a page with a section on what each base adds, in place of an earlier one.

    Args:
      page: of `report_html`.
      svg: the logos of the most telling sequences.
      method: how bases are scored.
      answer: what the scores add up in.
    """
    text = (
        "<p>The sequences of the test split with the largest outputs, each where its scores are "
        f"largest: how much each base adds to the {escape(answer)}, by {escape(method)}. "
        "<code>jaxdna attribute</code> drew it.</p>"
    )
    section = _section(_ATTRIBUTIONS, f"{text}<figure>{svg}</figure>")
    earlier = f"<section><h2>{_ATTRIBUTIONS}</h2>.*?</section>"
    before, mark, after = re.sub(earlier, "", page, flags=re.DOTALL).partition(
        "<section><h2>Data</h2>"
    )
    return f"{before}{section}{mark}{after}" if mark else page


def _page(title: str, parts: Iterable[str], summary: dict[str, Any]) -> str:
    made_by = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    drawn = f"<p><small>Drawn on {date.today().isoformat()} by {escape(made_by)}.</small></p>"
    return page_html(title, [*parts, drawn])


def page_html(title: str, parts: Iterable[str]) -> str:
    """Returns a page of parts, which are HTML already."""
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    # The icon is empty, so that no browser asks a server for one.
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{viewport}<link rel="icon" '
        f'href="data:,"><title>{escape(title)}</title><style>{_STYLE}</style></head><body>'
        f"{''.join(parts)}</body></html>"
    )


def short_page(page: str) -> str:
    """Returns a report's page with its head, curves, filters and scores alone."""
    sections = {
        title: section
        for section, title in re.findall(r"(<section><h2>(.*?)</h2>.*?</section>)", page, re.DOTALL)
    }
    if not sections:  # another version wrote it
        return page
    begin, end = page.index("<section>"), page.rindex("</section>") + len("</section>")
    shown = (sections.get(title, "") for title in (_CURVES, _FILTERS, _SCORES, "Scores"))
    return page[:begin] + "".join(shown) + page[end:]


def _headline(report: ReportData) -> str:
    summary = report.summary
    test, shown = summary["test"], []
    if test.get("accuracy") is not None:
        shown.append(("accuracy", f"{test['accuracy']:.2%}"))
    for key, label in report.task.scored.items():
        if key in report.task.followed and key != "accuracy" and test[key] is not None:
            shown.append((label, f"{test[key]:.4f}"))
    if summary["ceiling"] and summary["ceiling"]["auroc"] is not None:
        shown.append(("AUROC's ceiling", f"{summary['ceiling']['auroc']:.4f}"))
    shown.append(("parameters", f"{summary['params']:,}"))
    cells = "".join(f"<div><b>{value}</b>{name}</div>" for name, value in shown)
    said = escape(summary["verdict"])
    verdict = said if summary["left_plateau"] else f"<strong>{said}</strong>"
    return f'<div class="headline">{cells}</div><p>{verdict}</p>'


def _scores(report: ReportData) -> str:
    task, ceiling = report.task, report.summary["ceiling"] or {}
    chance, sizes = task.chance(report.targets), _sizes(task.chance(report.targets))
    by_output = _by_output(task, report.targets, report.outputs)
    found = task.measures(report.targets, report.outputs)
    if found is None:
        test = report.summary["test"]
        rows = [[label, test[key], chance[key]] for key, label in task.scored.items()]
        return sizes + table_html(["", "value", "chance"], rows) + by_output
    rows = [
        [
            label,
            found[key].value,
            f"{figures(found[key].low)} to {figures(found[key].high)}",
            chance.get(key),
            *([ceiling.get(key)] if ceiling else []),
        ]
        for key, label in task.measured.items()
    ]
    columns = ["", "value", "95 % interval", "chance", *(["Bayes ceiling"] if ceiling else [])]
    return sizes + table_html(columns, rows) + by_output


def _by_output(task: Task, targets: NDArray, outputs: NDArray[np.floating]) -> str:
    each = task.scores_by_output(targets, outputs) if task.outputs > 1 else {}
    rows = [[name, *(one[key] for key in task.scored)] for name, one in each.items()]
    return table_html(["", *task.scored.values()], rows) if rows else ""


def _reliability(summary: dict[str, Any]) -> str:
    """How far probabilities can be trusted: of the best member, and of the ensemble."""
    ensemble = summary["ensemble"]
    if not ensemble["calibration"]:
        return ""
    best, both = ensemble["best"], ensemble["calibration"]
    drawn = {
        f"member {best['member']}": best["calibration"]["before"],
        "ensemble": both["before"],
        "ensemble, temperature": both["after"],
    }
    return f"<p>{escape(calibration_note(summary))}</p>{_figures([reliability_svg(drawn)])}"


def _student(config: ConfigDict) -> str:
    page = '<a href="student/report.html">a page of its own</a>'
    told = f"<p>The network that learns the ensemble's answers has {page}.</p>"
    return told if config.members.distil else ""


def _sizes(chance: dict[str, Any]) -> str:
    return f"<p>Examples{class_sizes(chance)}.</p>"


def _curves(report: ReportData) -> list[str]:
    return curve_svgs(report.task, report.rows, report.summary["best_epoch"], report.ceiling)


def _answers(
    task: Task,
    targets: NDArray,
    outputs: NDArray[np.floating],
    best_logits: NDArray[np.floating] | None,
) -> list[str]:
    """The sections that show answers beside what is known, as suits the task."""
    sections = []
    if isinstance(task, Binary) and 0 < targets.sum() < len(targets):
        svgs = roc_and_pr_svgs(targets, outputs[:, 0], best_logits)
        sections.append(_section("ROC, precision and recall", _figures(svgs)))
    if task.target_dtype == "float32":
        sections.append(
            _section("Predicted and known", _figures(scatter_svgs(task, targets, outputs)))
        )
    counts = task.confusion(targets, outputs)
    if counts is not None:
        names = task.classes
        rows = [[f"is {name}", *row.tolist()] for name, row in zip(names, counts, strict=True)]
        table = table_html(["", *(f"called {name}" for name in names)], rows)
        sections.append(_section("Confusion table of the test split", table))
    return sections


def _logos(filters: list[FilterMotif], caveat: str) -> str:
    shown = [one for one in filters if one.core][:MOST_LOGOS]
    several = len({one.output for one in filters}) > 1
    named = [one for one in shown if likely(one.hits)]
    others = [one for one in shown if not likely(one.hits)]

    def cards(some: list[FilterMotif], kind: str) -> str:
        made = "".join(logo_card(one, one.output if several else "") for one in some)
        return f'<div class="logos{kind}">{made}</div>' if some else ""

    note = (
        f"<p>{len(shown)} of {len(filters)} filters, the most influential first; from the best "
        "windows of the test split, columns of little information cut off. Known motifs are named "
        f"where fewer than {LIKELY_E_VALUE:g} would fit as well by chance. {escape(caveat)}</p>"
    )
    if not named:  # then they are all that there is
        return note + cards(others, "")
    rest = "<p>Those that resemble none of the known motifs, often noise:</p>" * bool(others)
    return note + cards(named, "") + rest + cards(others, " faint")


def logo_card(one: FilterMotif, output: str = "") -> str:
    """Returns a filter's logo with what is known of it; `output` where there are several."""
    best = likely(one.hits)
    match = (
        f"resembles {escape(best.target)} <span>({best.strand} {best.offset}, p "
        f"{best.p_value:.1g})</span>"
        if best
        else "resembles none of the known motifs"
    )
    return (
        f"<figure>{logo_svg(one.core) if one.core else ''}<figcaption>filter {one.number}, weight "
        f"{one.weight:+.2f}{f' for {escape(output)}' if output else ''}, "
        f"{one.sites:,} sites<br>{match}</figcaption></figure>"
    )


def _data(data: dict[str, Any]) -> str:
    rows: list[list[Any]] = [[f"{split} examples", size] for split, size in data["splits"].items()]
    rows.append(["shape of one", " x ".join(map(str, data["example_shape"]))])
    files = [[source["path"], source["sha256"]] for source in data["inputs"]]
    notes = "".join(f"<p>{escape(note)}</p>" for note in data["notes"])
    return (
        table_html(["", ""], rows)
        + notes
        + (table_html(["file", "SHA-256"], files) if files else "")
    )


def _layout(report: ReportData) -> str:
    summary = report.summary
    mesh = "  ".join(f"{axis}={size}" for axis, size in summary["mesh"].items())
    rows: list[list[Any]] = [
        ["devices", report.devices],
        ["processes", summary["processes"]],
        ["mesh", mesh],
        ["global batch", report.config.train.batch_size],
        ["epochs", summary["epochs"]],
        ["best epoch", summary["best_epoch"]],
        ["examples a second", summary["samples_per_second"]],
        *([f"seconds: {key}", round(value, 2)] for key, value in summary["seconds"].items()),
    ]
    return table_html(["", ""], rows)


def _settings(report: ReportData) -> str:
    versions = table_html(
        ["package", "version"], [list(i) for i in report.summary["versions"].items()]
    )
    keys = table_html(["key", "value"], [[key, str(v)] for key, v in flat(report.config).items()])
    digest = f"<p>parameters: <code>{report.summary['params_sha256']}</code></p>"
    return f"{digest}{versions}<details><summary>every key</summary>{keys}</details>"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _figures(svgs: Iterable[str]) -> str:
    cards = "".join(f"<figure>{svg}</figure>" for svg in svgs)
    return f'<div class="panels">{cards}</div>'


def table_html(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Returns a table of numbers and plain texts."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    start = f"<thead><tr>{head}</tr></thead>" if any(columns) else ""
    return f'<div class="scroll"><table>{start}<tbody>{body}</tbody></table></div>'


def _cell(value: Any) -> str:
    if value is None:
        return "<td>-</td>"
    if isinstance(value, bool | str):
        return f"<td>{escape(str(value))}</td>"
    text = f"{value:,}" if isinstance(value, int) else figures(value)
    return f'<td class="n">{text}</td>'
