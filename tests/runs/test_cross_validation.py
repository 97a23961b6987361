"""The folds of a cross-validation, trained at once: each is what its own run would be."""

import jax
import numpy as np
import pytest

from jaxdna.config import load_config
from jaxdna.data.labelled_files import in_test_folds
from jaxdna.data.registry import load_dataset
from jaxdna.parallel.mesh import make_mesh
from jaxdna.runs.cross_validation import at_once, fold_config
from jaxdna.strategies.members import CrossValidation
from jaxdna.training.evaluation import Evaluator
from jaxdna.training.program import Program


@pytest.fixture
def config_of(tmp_path):
    """Families of sequences with numbers: folds of unequal size, each with units of its own."""
    rng, lines = np.random.default_rng(0), ["id\tsequence\tvalue"]
    for family in range(10):
        letters = rng.choice(list("ACGT"), 60)
        for copy in range(1 + family):
            letters[rng.integers(60)] = "A"
            value = 5 + "".join(letters).count("AC") + 0.1 * rng.normal()
            lines.append(f"{family}_{copy}\t{''.join(letters)}\t{value:.4f}")
    (tmp_path / "table.tsv").write_text("\n".join(lines) + "\n")
    settings = [
        f"data.table={tmp_path / 'table.tsv'}", "data.task=regression", "data.folds=3",
        "train.epochs=2", "train.batch_size=4", "model.filters=4", "mesh.data=1",
        "optimizer.schedule=linear", "optimizer.learning_rate=0.01",
        f"runtime.data_cache={tmp_path / 'cache'}",
    ]  # fmt: skip
    return lambda *changes: load_config("configs/fasta.py:small", [*settings, *changes])


def trained(kind, config, dataset):
    """Parameters after two epochs, steps, and the scores of the validation split."""
    program = kind.of(config, make_mesh(config, jax.devices()[:1]), dataset.spec)
    feed, steps = program.feed(dataset.splits["train"]), program.steps_per_epoch
    state, progress = program.init(), program.begin(dataset.splits["validation"].y)
    call = program.compiled(steps)
    for epoch in range(2):
        state, _ = call(state, progress.marked(feed(epoch * steps, steps)))
    scores = Evaluator(program, dataset.splits["validation"], "validation").scores(state.params)
    return jax.tree.map(np.asarray, state.params), np.asarray(state.step), scores, progress


def test_folds_at_once_are_those_of_runs_of_their_own(config_of):
    config = config_of()
    dataset = in_test_folds(load_dataset(config), config)
    params, steps, scores, progress = trained(CrossValidation, config, dataset)
    assert len(set(steps.tolist())) > 1  # whose step sizes fall differently
    assert len({task.mean for task in dataset.fold_tasks}) == 3
    tested = np.concatenate([fold["test"] for fold in dataset.folds])
    assert sorted(tested.tolist()) == list(range(len(dataset.splits["test"])))
    for fold in (0, 2):
        own = fold_config(config, fold)
        alone, own_steps, own_scores, own_progress = trained(Program, own, load_dataset(own))
        assert own_steps == steps[fold]
        for one, other in zip(jax.tree.leaves(params), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(one[fold], other, rtol=0, atol=1e-5)
        assert scores[fold] == pytest.approx(own_scores, rel=1e-4)
        assert progress.members[fold].stopping == own_progress.stopping


@pytest.mark.parametrize(
    ("flags", "can"),
    [
        ([], True),
        (["strategy=pipeline"], False),
        (["strategy=parameter_server"], False),
        (["gradient_sync.method=ring"], False),
        (["members.seeds=2"], False),
        (["members.grid=model.filters=2,4"], False),
    ],
)
def test_what_cannot_be_members_is_trained_fold_by_fold(config_of, flags, can):
    assert at_once(config_of(*flags)) == can
