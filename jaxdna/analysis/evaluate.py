"""Scores of a trained model: on its own test split, or on labelled files."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray
from rich.console import Console

from jaxdna.analysis.labelled_scores import score_labelled
from jaxdna.analysis.scorers import make_scorer
from jaxdna.console import loud
from jaxdna.data.digests import file_digest
from jaxdna.errors import UserError
from jaxdna.models.network import parameter_count
from jaxdna.parallel.peers import meet, one_fate
from jaxdna.runs.run_folder import RunFolder
from jaxdna.runs.trained import Trained, check_member
from jaxdna.storage.fetched import is_input_file
from jaxdna.strategies.prepare import prepare
from jaxdna.tasks.task import Task
from jaxdna.training.checkpoint import load_best, load_members, params_sha256
from jaxdna.training.evaluation import Evaluator
from jaxdna.versions import versions

_TOGETHER = ({"sequences", "labels"}, {"positives", "negatives"}, {"table"})


@one_fate()
def evaluate_test_split(
    folder: RunFolder,
    config: ConfigDict,
    strands: str | None,
    console: Console,
    member: int | None = None,
) -> dict[str, Any]:
    """Scores the best parameters of a run on its test split.

    Args:
      folder: of the run.
      config: the run's own.
      strands: how both strands make one prediction; as it was trained if None.
      console: where tables and notes go.
      member: of several that were trained at once the one to score; the ensemble if None.

    Returns:
      The parts of the summary that apply, and `measures`.

    Raises:
      UserError: `strands` is given, and the run does not read sequences; or its data have changed;
        or there is no such member.
    """
    members = check_member(member, config)
    if strands:
        if "strands" not in config.model:
            raise UserError(f"--strands={strands} needs a run that reads sequences")
        config = config.copy_and_resolve_references()
        config.model.strands = strands
    prepared = prepare(config, console)
    folder.check_data(prepared.dataset)
    wanted, note = prepared.program.abstract_state.params, loud(console)
    if members:
        best, progress = load_members(folder.checkpoints, wanted, note)
    else:
        best = load_best(folder.checkpoints, wanted, note)
    meet()
    dataset = prepared.dataset
    task, targets = dataset.task, dataset.splits["test"].y
    if not len(targets):
        raise UserError(
            f"--workdir={folder.path} has no test split; give labelled files, such as "
            "--positives=A.fa --negatives=B.fa"
        )

    @cache
    def outputs_of(split: str) -> NDArray[np.float32]:
        return Evaluator(prepared.program, dataset.splits[split], split).outputs(best)

    outputs, one = outputs_of("test"), prepared.program.gather(best)
    about: dict[str, Any] = {}
    if members:
        if member is None:
            known = {name: split.y for name, split in dataset.splits.items()}
            about = progress.about(task, known, outputs_of)
        shown = progress.best if member is None else member
        one = jax.tree.map(lambda leaf: leaf[shown], one)
        outputs = progress.pooled(outputs) if member is None else outputs[member]
    return {
        "params": parameter_count(one),
        "params_sha256": params_sha256(one),
        **_scored(task, targets, outputs),
        **about,
        "ceiling": dataset.ceiling("test") if dataset.ceiling else None,
        "mesh": dict(prepared.mesh.shape),
        "devices": prepared.mesh.size,
        "processes": jax.process_count(),
        "versions": versions(),
    }


def check_files(files: Iterable[str]) -> None:
    """Raises UserError where the labelled files of these names do not go together."""
    if set(files) not in _TOGETHER:
        raise UserError(
            f"{' and '.join(f'--{key}' for key in files)} given; legal: --positives and "
            "--negatives, --sequences and --labels, or --table"
        )


def evaluate_files(
    trained: Trained,
    files: Mapping[str, str],
    strands: str | None,
    console: Console,
    inputs: Iterable[Mapping[str, str]] = (),
    train_keys: NDArray[np.uint64] | None = None,
) -> dict[str, Any]:
    """Scores a trained model on labelled files; see `labelled_scores.score_labelled`.

    Args:
      trained: the model.
      files: paths by their flags, which `check_files` accepts.
      strands: how both strands make one prediction; as it was trained if None.
      console: where notes go.
      inputs: the files that it was trained on, with their `sha256`.
      train_keys: sorted, the keys of its training split's sequences; None where nobody knows.

    Returns:
      The parts of the summary that apply, `measures`, and what the model was trained on:
      `trained_on`, the files with sequences of its training split, and `in_training`, of how many
      of the scored `examples` that is, and their `share`. Without `train_keys`, the files of which
      every byte is known, and None.

    Raises:
      UserError: a file is wrong, or holds one class only.
    """
    # A pipe can be read once only, and is left alone.
    read = [path for key, path in files.items() if key != "labels" and is_input_file(path)]
    digests = {path: file_digest(path) for path in read}
    if "positives" in files and len(read) == 2 and len(set(digests.values())) == 1:
        raise UserError(
            f"--positives={files['positives']} and --negatives={files['negatives']} contain the "
            "same bytes; give bound sequences in one and unbound ones in the other"
        )
    trained_on = {one["sha256"] for one in inputs}
    known = [path for path, digest in digests.items() if digest in trained_on]
    scored = score_labelled(trained, make_scorer(trained, strands), files, train_keys)
    labels, outputs, what = scored.targets, scored.outputs, "some of them"
    in_training = None
    if scored.seen is not None:
        known, count = scored.trained_on, int(scored.seen.sum())
        in_training = {"examples": count, "share": round(count / max(1, len(labels)), 6)}
        what = (
            f"{count:,} of the {len(labels):,} scored sequences, or on their reverse complements,"
        )
    if known:
        loud(console)(
            f"note     this run was trained on {what} in {' and '.join(known)}: the scores show "
            "how well it remembers them, not how well it does on new sequences"
        )
    for note in scored.notes:
        console.print(f"note     {note}")
    if trained.task.classes and len(np.unique(labels)) < 2:
        raise UserError(
            f"{' and '.join(files.values())} have {len(labels)} scored sequences of only one "
            "class; give sequences of both"
        )
    return {
        "params": parameter_count(trained.params),
        "params_sha256": params_sha256(trained.params),
        "examples": len(labels),
        **_scored(trained.task, labels, outputs),
        "trained_on": known,
        "in_training": in_training,
        "ceiling": None,
        "devices": trained.mesh.size,
        "versions": versions(),
    }


def _scored(task: Task, targets: NDArray, outputs: NDArray) -> dict[str, Any]:
    measures = task.measures(targets, outputs)
    shown = {name: one._asdict() for name, one in measures.items()} if measures else None
    return {**task.test_summary(targets, outputs), "measures": shown}
