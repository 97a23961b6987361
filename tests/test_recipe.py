"""The recipe follows from the sequences, is legal for all of them, and yields to every flag."""

from pathlib import Path

import jax
import numpy as np
import pytest

import jaxdna
from jaxdna.analysis.export import stablehlo
from jaxdna.config import default_config, flat, load_config, validate
from jaxdna.data.registry import load_dataset
from jaxdna.errors import UserError
from jaxdna.recipe import filter_width, recipe


@pytest.mark.parametrize("gc", [0.0, 0.2, 0.41, 0.5, 1.0])
@pytest.mark.parametrize("length", [4, 9, 20, 100, 500, 10_000])
@pytest.mark.parametrize("sequences", [1, 20, 1800, 12_800, 10**7])
def test_the_recipe_is_a_legal_configuration_for_any_sequences(sequences, length, gc):
    suggested = recipe(sequences, length, gc)
    config = validate(
        flat(default_config("fasta", suggested["model.name"])) | suggested | {"data.length": length}
    )
    assert 1 <= config.model.short_width <= config.model.width <= length
    assert 4 <= config.train.epochs <= 60
    assert config.optimizer.warmup_epochs < config.train.epochs
    assert config.checkpoint.every_epochs <= config.train.epochs


def test_more_sequences_make_a_larger_network_and_fewer_epochs_but_more_steps():
    sizes = [200, 2000, 20_000, 200_000]
    found = [recipe(n, 200, 0.5) for n in sizes]
    filters, epochs, batches = (
        [one[key] for one in found] for key in ("model.filters", "train.epochs", "train.batch_size")
    )
    assert filters == sorted(filters)
    assert filters[0] < filters[-1]
    assert epochs == sorted(epochs, reverse=True)
    steps = [n / b * e for n, b, e in zip(sizes, batches, epochs, strict=True)]
    assert steps == sorted(steps)


def test_filters_read_both_strands_and_are_arranged_where_that_was_measured_to_help():
    found = [recipe(n, 100, 0.5) for n in (800, 1031, 2000, 6318)]
    assert [one["model.both_strands"] for one in found] == [False, True, True, False]
    assert [one["model.inner_filters"] for one in found] == [0, 64, 64, 0]


def test_validation_costs_few_sequences():
    shares = [recipe(n, 100, 0.5)["data.validation_fraction"] for n in (100, 2000, 10**6)]
    assert shares == [0.1, 0.05, 0.02]


def test_a_filter_is_wider_where_chance_finds_words_more_easily():
    assert filter_width(1000, 0.5) > filter_width(100, 0.5)  # more places
    assert filter_width(100, 0.15) > filter_width(100, 0.5)  # fewer words
    assert filter_width(100, 0.15) == filter_width(100, 0.85)
    # log2(200) = 7.64 bits of 2 bits a base, four times that: 15.3.
    assert filter_width(100, 0.5) == 15


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)

    def fasta(name, records, bases):
        rows = ["".join(rng.choice(list("ACGT"), bases, p=[0.4, 0.1, 0.1, 0.4])) for _ in records]
        (tmp_path / name).write_text("".join(f">r{i}\n{row}\n" for i, row in enumerate(rows)))
        return str(tmp_path / name)

    p, n, tp, tn = (fasta(name, range(60), 80) for name in ("p.fa", "n.fa", "tp.fa", "tn.fa"))
    own = [f"data.positives={p}", f"data.negatives={n}"]
    return own, [f"data.test_positives={tp}", f"data.test_negatives={tn}"]


def test_sequences_shorter_than_the_usual_filter_get_shorter_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = ["".join(row) for row in np.random.default_rng(0).choice(list("ACGT"), (40, 9))]
    table = tmp_path / "t.csv"
    table.write_text("sequence,y\n" + "".join(f"{row},{i}\n" for i, row in enumerate(rows)))
    of_nine = [f"data.table={table}", "data.task=regression"]
    assert load_config("fasta", of_nine).model.width <= 9
    with pytest.raises(UserError, match="shorter than a filter; legal: 12 bases"):
        load_dataset(load_config("fasta", [*of_nine, "model.width=12"]))


def test_a_configuration_has_what_its_sequences_suggest_and_what_flags_say(files):
    own, tests = files

    def differs(overrides, sequences):
        found = flat(load_config("fasta", [*own, *overrides]))
        return {k: found[k] for k, v in recipe(sequences, 80, 0.2).items() if found.get(k) != v}

    assert differs([], 96) == {}  # 120 less a fifth
    assert differs(tests, 120) == {}
    assert differs(["data.folds=4"], 90) == {}
    said = {"model.filters": 7, "train.epochs": 3, "optimizer.learning_rate": 0.5}
    assert differs([f"{key}={value}" for key, value in said.items()], 96) == said
    assert differs(["train.batch_size=64", "recipe=fixed"], 96) != {}
    other = load_config("fasta", [*own, "model.name=dilated"])
    assert other.model == default_config("fasta", "dilated").model
    assert other.train.epochs == recipe(84, 80, 0.2)["train.epochs"]


def test_nothing_is_read_where_it_is_not_asked_for(files):
    absent = ["data.positives=absent.fa", "data.negatives=absent.fa"]
    assert load_config("fasta", absent, measure=False).data.positives == "absent.fa"
    assert load_config("fasta:small", absent).model.filters == 16
    with pytest.raises(UserError, match=r"absent\.fa cannot be read"):
        load_config("fasta", absent)
    with pytest.raises(UserError, match=r"recipe=sized does not go with --config\.data\.name=tal1"):
        load_config("tal1", ["recipe=sized"])


def test_a_run_keeps_the_numbers_and_its_last_parameters(files, tmp_path):
    own, tests = files
    config = load_config("fasta", [*own, *tests, "train.epochs=3", "model.filters=8"])
    run = jaxdna.train(config, tmp_path / "run", quiet=True)
    assert run.summary["best_epoch"] == run.summary["epochs"] == 3
    kept = validate(flat(jaxdna.open_run(tmp_path / "run").config))
    assert kept.model == config.model
    assert kept.optimizer == config.optimizer
    assert len(run.filters()) == 8 + config.model.short_filters
    kernel = run.model.params["conv"]["scan"]["kernel"]
    before = (config.model.width - config.model.short_width) // 2
    assert not np.asarray(kernel)[:before, :, 8:].any()
    assert np.asarray(run.model.params["conv"]["kmers"]["table"]).any()
    letters = [line for line in Path(own[0].split("=")[1]).read_text().split() if line[0] != ">"]
    program = jax.export.deserialize(bytearray(stablehlo(run.model)))
    text = np.array([list(line.encode()) for line in letters], np.uint8)
    chances = 1 / (1 + np.exp(-np.asarray(program.call(text))))
    np.testing.assert_allclose(chances, run.predict(letters), atol=1e-6)
