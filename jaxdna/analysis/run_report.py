"""Collects what report.html shows from a run that has just ended, and writes it."""

from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxdna.analysis.attribution_logos import Telling
from jaxdna.analysis.filters import FilterMotif, filter_motifs
from jaxdna.analysis.logos import logo_figure
from jaxdna.analysis.motif_match import likely
from jaxdna.analysis.pages import with_attributions
from jaxdna.analysis.report import MOST_LOGOS, ReportData, report_html
from jaxdna.analysis.report_figures import svg
from jaxdna.analysis.windows import find_windows
from jaxdna.data.motifs import LIBRARY, library
from jaxdna.models.motif_cnn import scan_of
from jaxdna.parallel.runtime import describe_devices
from jaxdna.runs.curves import add_pictures
from jaxdna.runs.records import data_record
from jaxdna.runs.run_folder import RunFolder
from jaxdna.runs.trained import Trained
from jaxdna.storage.files import picture
from jaxdna.strategies.prepare import Prepared
from jaxdna.training.state import Params

_MOST_SEQUENCES = 4000  # of the split that was held out, to draw the filters from
_MOST_PICTURES = 3  # of filters in TensorBoard


def write_run_report(
    folder: RunFolder, prepared: Prepared, best: Params, summary: dict[str, Any]
) -> str:
    """Writes report.html, and logos for TensorBoard.

    Args:
      folder: of the run; its test.tsv and metrics.jsonl are there.
      prepared: data and functions.
      best: the parameters that were kept, whole on this host.
      summary: as in summary.json.

    Returns:
      A sentence on the filter that matters most, or nothing.
    """
    dataset, config = prepared.dataset, prepared.program.config
    filters = _filters(prepared, best)
    _, targets, outputs = folder.read_test(dataset.task)
    motif = _strongest(filters)
    page = report_html(
        ReportData(
            name=folder.path.resolve().name,
            config=config,
            summary=summary,
            data=data_record(dataset),
            rows=folder.read_metrics(),
            task=dataset.task,
            targets=targets,
            outputs=outputs,
            best_logits=dataset.best_logits("test") if dataset.best_logits else None,
            ceiling=dataset.ceiling("validation") if dataset.ceiling else None,
            filters=filters,
            motif=motif,
            caveat=f"Compared with {len(library())} known motifs: {LIBRARY}.",
            devices=describe_devices(list(prepared.mesh.devices.flat)),
        )
    )
    folder.write(folder.report.name, page)
    logos = {f"filter{one.number}": one.core for one in filters if one.core}
    shown = list(logos.items())[:_MOST_PICTURES]
    if shown:
        drawn = {name: picture(logo_figure(motif), "png", dpi=100) for name, motif in shown}
        add_pictures(folder.files, summary["best_epoch"], drawn)
    return motif


def add_attributions(folder: RunFolder, telling: Telling, method: str) -> bool:
    """Adds to report.html what each base of the most telling sequences adds.

    Args:
      folder: of the run.
      telling: the sequences.
      method: how bases are scored.

    Returns:
      Whether there is a report.
    """
    name = folder.report.name
    if not folder.files.exists(name):
        return False
    page = folder.files.read(name).decode()
    drawn = svg(telling.figure(), "attributions")
    folder.write(name, with_attributions(page, drawn, method, telling.answer))
    return True


def _strongest(filters: list[FilterMotif]) -> str:
    strongest = next((one for one in filters if one.core), None)
    if not strongest or not strongest.core:
        return ""
    said = f"The filter that matters most reads {strongest.core.consensus}"
    match = likely(strongest.hits)
    if not match:
        return f"{said}, which resembles none of the known motifs."
    return f"{said}, as {match.target} does (p = {match.p_value:.0e})."


def _filters(prepared: Prepared, best: Params) -> list[FilterMotif]:
    """The filters of a network that begins with a motif scan, as motifs; of others none."""
    network = nnx.eval_shape(prepared.program.network)
    if not scan_of(network):
        return []
    dataset, config = prepared.dataset, prepared.program.config
    codes = dataset.splits[dataset.held_out].x
    local = jax.tree.map(np.asarray, best)
    graph = nnx.split(network)[0]
    trained = Trained(config, prepared.mesh, graph, local, codes.shape[1], dataset.task)
    sample = np.asarray(codes[:_MOST_SEQUENCES])
    windows = find_windows(trained, sample, config.model.strands != "forward")
    return filter_motifs(trained, sample, windows, library(), MOST_LOGOS)
