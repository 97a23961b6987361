"""Real-valued targets from a table to scores: the same on any mesh, and on files read again."""

import json

import jax
import numpy as np
import pytest
from rich.console import Console

from jaxdna import api
from jaxdna.config import load_config
from jaxdna.data.registry import load_dataset
from jaxdna.errors import EXIT_OK, UserError
from jaxdna.parallel.mesh import make_mesh
from jaxdna.runs.guard import Guard
from jaxdna.runs.loop import train
from jaxdna.runs.run_folder import RunFolder
from jaxdna.strategies.prepare import Prepared, program_of
from jaxdna.tasks.metrics import pearson

MOTIFS = {"gata": "GATAAG", "ebox": "CAGCTG", "ap1": "TGACTCA"}
LAYOUTS = {  # devices, and what makes them a mesh
    "one device": (1, []),
    "data=8": (8, ["mesh.data=8"]),
    "data=2 fsdp=2 seq=2": (8, ["mesh.data=2", "mesh.fsdp=2", "mesh.seq=2"]),
    "two stages": (2, ["strategy=pipeline", "mesh.stage=2"]),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A table of sequences in which the numbers of three motifs, on either strand, decide."""
    folder, rng = tmp_path_factory.mktemp("targets"), np.random.default_rng(0)
    other = str.maketrans("ACGT", "TGCA")
    rows, names = ["\t".join(["id", "sequence", *MOTIFS])], list(MOTIFS.values())
    for record in range(1500):
        letters = rng.choice(list("ACGT"), 60)
        for motif in names:
            for _ in range(rng.poisson(1)):
                at = rng.integers(0, 60 - len(motif))
                turned = rng.random() < 0.5
                site = motif.translate(other)[::-1] if turned else motif
                letters[at : at + len(motif)] = list(site)
        text = "".join(letters)
        back = text.translate(other)[::-1]
        counts = [text.count(motif) + back.count(motif) for motif in names]
        values = np.array([2 * counts[0], 100 - 30 * counts[1], 0.01 * counts[2]])
        values += rng.normal(0, [0.2, 5, 0.001])
        rows.append("\t".join([f"r{record}", text, *(f"{value:.5g}" for value in values)]))
    (folder / "t.tsv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def runs(files):
    """Returns the run of each layout, trained once."""
    made = {}

    def run(layout):
        if layout in made:
            return made[layout]
        devices, axes = LAYOUTS[layout]
        settings = [
            f"data.table={files / 't.tsv'}",
            "data.task=regression",
            "data.similarity=0",
            "train.batch_size=64",
            "train.epochs=6",
            "checkpoint.every_epochs=6",
            "optimizer.learning_rate=0.03",
            f"runtime.data_cache={files / 'cache'}",
            *axes,
        ]
        config = load_config("configs/fasta.py:small", settings)
        mesh, dataset = make_mesh(config, jax.devices()[:devices]), load_dataset(config)
        program = program_of(config).of(config, mesh, dataset.spec)
        folder, console = RunFolder(files / f"run{len(made)}"), Console(quiet=True)
        with Guard(config.watchdog, owns_process=False) as guard, folder.locked(console):
            folder.open(program.config)
            folder.record_data(dataset)
            prepared = Prepared(program.mesh, dataset, program)
            train(prepared, folder, guard, console, lambda *_: "", EXIT_OK)
        made[layout] = api.open_run(folder.path, quiet=True)
        return made[layout]

    return run


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "one device"])
def test_three_tracks_have_the_same_pearson_on_every_layout(runs, layout):
    alone, shared = runs("one device").summary, runs(layout).summary
    assert (alone["devices"], shared["devices"]) == (1, LAYOUTS[layout][0])
    assert set(alone["test_by_output"]) == set(MOTIFS)
    for name, scores in alone["test_by_output"].items():
        assert scores["pearson"] > 0.5  # something has been learnt that layouts could spoil
        assert shared["test_by_output"][name]["pearson"] == pytest.approx(
            scores["pearson"], abs=1e-4
        )


def test_predictions_are_in_the_units_of_the_table(runs, files):
    """Pearson's r and R² of what test.tsv says against the table itself."""
    run = runs("one device")
    table = [line.split("\t") for line in (files / "t.tsv").read_text().splitlines()[1:]]
    known = {name: np.array(values, float) for name, _, *values in table}
    rows = [line.split("\t") for line in (run.folder.path / "test.tsv").read_text().splitlines()]
    column = rows[0].index("target_gata")
    test = [row[0] for row in rows[1:]]
    for row in rows[1:]:
        np.testing.assert_allclose(
            np.array(row[column : column + 3], float), known[row[0]], rtol=1e-5
        )
    sequences = {name: text for name, text, *_ in table}
    answers = run.predict([sequences[name] for name in test])
    scores = run.summary["test_by_output"]
    for i, name in enumerate(MOTIFS):
        found, wanted = np.asarray(answers)[:, i], np.array([known[one][i] for one in test])
        assert pearson(wanted, found) == pytest.approx(scores[name]["pearson"], abs=1e-6)
        r2 = 1 - np.mean((found - wanted) ** 2) / wanted.var()
        assert r2 == pytest.approx(scores[name]["r2"], abs=1e-6)


def test_evaluation_finds_the_columns_that_were_trained_on(runs, files):
    run = runs("one device")
    rows = [line.split("\t") for line in (files / "t.tsv").read_text().splitlines()]
    # The columns in another order, among others.
    order = [("sequence", 1), ("ap1", 4), ("x", 2), ("gata", 2), ("ebox", 3)]
    text = ["\t".join(name for name, _ in order)]
    text += ["\t".join(row[place] for _, place in order) for row in rows[1:]]
    (files / "other.tsv").write_text("\n".join(text) + "\n")
    labels = ["\t".join([row[0], *row[2:]]) for row in rows]
    (files / "labels.tsv").write_text("\n".join(labels) + "\n")
    (files / "t.fa").write_text("".join(f">{row[0]}\n{row[1]}\n" for row in rows[1:]))
    table = run.evaluate(table=files / "other.tsv")
    fasta = run.evaluate(sequences=files / "t.fa", labels=files / "labels.tsv")
    assert table["test"] == fasta["test"]
    assert table["test_by_output"].keys() == MOTIFS.keys()
    assert json.loads(json.dumps(table["test"]))["pearson"] > 0.5


@pytest.mark.parametrize(
    ("files_given", "words"),
    [
        ({"table": "sequence\tgata\tebox\tap\nACGT\t1\t1\t1\n"}, "did you mean 'ap'?"),
        ({"table": "ACGT\t1\n"}, "no column 'gata'"),
        ({"table": "sequence\tgata\tebox\tap1\nACGT\t1\tnan\t1\n"}, "line 2: column 'ebox' is"),
        ({"sequences": ">a\nACGT\n", "labels": "id\tgata\nb\t1\n"}, "no columns id, gata, ebox"),
        ({"sequences": ">a\nACGT\n", "labels": "id\tgata\tebox\tap1\na\t1\t1\n"}, "line 2: ap1 ''"),
        ({"positives": ">a\nACGT\n", "negatives": ">b\nACG\n"}, "this model's task is regression"),
    ],
)  # fmt: skip
def test_files_without_those_targets_are_one_sentence(runs, tmp_path, files_given, words):
    for name, content in files_given.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as caught:
        runs("one device").evaluate(**{name: tmp_path / name for name in files_given})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
