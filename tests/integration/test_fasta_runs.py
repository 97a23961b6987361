"""From FASTA files to a trained model: the same numbers as the simulator, and cross-validation."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxdna.cli.main import main
from jaxdna.tasks.metrics import auroc

TRAIN = [
    "--config.data.length=60",
    "--config.train.epochs=3",
    "--config.optimizer.weight_decay=0.1",
    "--config.optimizer.learning_rate=0.02",
    "--config.optimizer.warmup_epochs=1",
]
SIMULATED = [
    "--config=configs/tal1.py",
    "--config.data.train_examples=1200",
    "--config.data.validation_examples=300",
    "--config.data.test_examples=300",
]


@pytest.fixture(scope="module")
def run(jaxdna, tmp_path_factory):
    """Runs the command with caches of this module; returns it finished, and what --json printed."""
    caches = tmp_path_factory.mktemp("caches")
    flags = [f"--config.runtime.{key}_cache={caches / key}" for key in ("compilation", "data")]

    def call(verb, *arguments, code=0):
        flagged = flags if any("--config=" in str(part) for part in arguments) else []
        done = jaxdna(verb, *arguments, *flagged, "--json")
        assert done.returncode == code, done.stderr
        return done, json.loads(done.stdout.splitlines()[-1]) if code == 0 else None

    return call


@pytest.fixture(scope="module")
def simulated(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "files"
    run("simulate", *SIMULATED, TRAIN[0], f"--output={folder}")
    return folder


@pytest.fixture(scope="module")
def from_fasta(simulated):
    return [
        "--config=configs/fasta.py:small",
        f"--config.data.positives={simulated}/positives.fa",
        f"--config.data.negatives={simulated}/negatives.fa",
    ]


def test_cross_validation_trains_each_fold_and_pools(run, from_fasta, tmp_path):
    folder = tmp_path / "cv"
    command = ["train", *from_fasta, *TRAIN, "--config.data.folds=3", f"--workdir={folder}"]
    _, summary = run(*command)
    assert [row["examples"] for row in summary["folds"]] == [600, 600, 600]
    rows = [line.split("\t") for line in (folder / "test.tsv").read_text().splitlines()]
    assert rows[0] == ["id", "label", "logit"]
    assert len({row[0] for row in rows[1:]}) == 1800
    labels, logits = np.array([row[1:] for row in rows[1:]], dtype=np.float64).T
    assert summary["test"]["auroc"] == auroc(labels, logits)
    mean = np.mean([row["auroc"] for row in summary["folds"]])
    assert summary["mean"]["auroc"] == pytest.approx(mean)
    assert "of 1,800 test examples" in summary["verdict"]

    alone, own = tmp_path / "alone", command[:-1]
    run(*own, "--config.data.fold=1", f"--workdir={alone}")
    assert (folder / "fold1/test.tsv").read_text() == (alone / "test.tsv").read_text()
    summaries = [json.loads((at / "summary.json").read_text()) for at in (folder / "fold1", alone)]
    assert summaries[0].keys() == summaries[1].keys()
    for key in ("params_sha256", "test", "best_epoch", "epochs", "verdict"):
        assert summaries[0][key] == summaries[1][key]
    assert {path.name for path in (folder / "fold1").iterdir()} == {
        path.name for path in alone.iterdir()
    }

    page = (folder / "report.html").read_text()
    assert summary["verdict"] in page
    links = re.findall(r'<a href="([^"]+)"', page)
    assert links == [f"fold{fold}/report.html" for fold in range(3)]
    assert all((folder / link).is_file() for link in links)
    assert f"{summary['test']['auroc']:.4f}" in page and f"{summary['sd']['auroc']:.4f}" in page
    assert not re.search(r"https?://(?!www\.w3\.org)|<script|@import", page)

    again, same = run(*command)
    assert again.stderr.count("holds a finished run") == 3
    assert same == summary
    done, _ = run("evaluate", f"--workdir={folder}", code=2)
    assert f"{folder}/fold0 to {folder}/fold2" in done.stderr


def test_the_simulated_files_train_to_the_simulator_s_own_bits(
    run, simulated, from_fasta, tmp_path
):
    _, built_in = run("train", *SIMULATED, *TRAIN, f"--workdir={tmp_path}/a")
    table = f"--config.data.split_table={simulated}/labels.tsv"
    command = ["train", *from_fasta, table, *TRAIN, f"--workdir={tmp_path}/b"]
    _, files = run(*command)
    assert files["params_sha256"] == built_in["params_sha256"]
    assert files["test"] == built_in["test"]
    record = json.loads((tmp_path / "b" / "data.json").read_text())
    assert record["splits"] == {"train": 1200, "validation": 300, "test": 300}
    assert [len(source["sha256"]) for source in record["inputs"]] == [64, 64, 64]

    # A run must not go on with other bytes under the same names.
    with (simulated / "positives.fa").open("a") as stream:
        stream.write(">train_0_again\n" + "ACGT" * 15 + "\n")
    done, _ = run(*command, "--config.train.epochs=4", code=2)
    assert "positives.fa has changed since" in done.stderr


@pytest.fixture(scope="module")
def relative(jaxdna, simulated, tmp_path_factory):
    """A folder with sim/ and run/, trained with paths that are relative to that folder."""
    folder = tmp_path_factory.mktemp("relative")
    shutil.copytree(simulated, folder / "sim")
    root = Path(__file__).parents[2]
    done = jaxdna(
        "train", f"--config={root}/configs/fasta.py:small",
        "--config.data.positives=sim/positives.fa",
        "--config.data.negatives=sim/negatives.fa", "--config.data.split_table=sim/labels.tsv",
        *TRAIN, "--config.train.epochs=1", f"--config.runtime.data_cache={folder}/cache",
        "--workdir=run", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("verb", [["evaluate"], ["interpret", "--mutate=0"]])
def test_a_run_finds_its_files_from_any_folder(jaxdna, relative, tmp_path, verb):
    shutil.copytree(relative / "sim", tmp_path / "sim")
    with (tmp_path / "sim" / "positives.fa").open("a") as other:
        other.write(">one_more\n" + "ACGT" * 15 + "\n")
    done = jaxdna(*verb, f"--workdir={relative}/run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # On another machine the files are not where they were: the paths lead from where one stands.
    moved = shutil.copytree(relative / "run", tmp_path / "run") / "data.json"
    moved.write_text(moved.read_text().replace(f"{relative}", "/nowhere"))
    done = jaxdna(*verb, f"--workdir={tmp_path}/run", cwd=relative)
    assert done.returncode == 0, done.stderr
    done = jaxdna(*verb, "--workdir=run", cwd=tmp_path)
    assert done.returncode == 2
    assert "sim/positives.fa has changed since" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["positives.fa", "labels.tsv"])
@pytest.mark.parametrize("verb", [["evaluate"], ["interpret", "--mutate=0"]])
def test_files_that_changed_are_not_taken_for_those_of_the_run(jaxdna, relative, verb, name):
    path = relative / "sim" / name
    content = path.read_text()
    path.write_text("\n".join(content.split("\n")[:-3]) + "\n")
    try:
        done = jaxdna(*verb, f"--workdir={relative}/run")
    finally:
        path.write_text(content)
    assert done.returncode == 2
    assert f"{name} has changed since" in " ".join(done.stderr.split())


def test_two_files_of_twenty_sequences_train_and_a_second_try_has_a_name_of_its_own(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, site in (("a.fa", "GACCATCTGTTC"), ("b.fa", "")):
        texts = ["".join(rng.choice(list("ACGT"), size)) for size in range(30, 40)]
        records = (f">{name}{i}\n{site}{text[len(site) :]}\n" for i, text in enumerate(texts))
        Path(name).write_text("".join(records))
    cache = f"--config.runtime.data_cache={tmp_path}/c"
    command = ["train", "--positives=a.fa", "--negatives=b.fa", "--config.train.epochs=3", cache]
    command += ["--config.train.batch_size=32"]
    command += ["--config.data.reverse_complement=false", "--config.data.test_fraction=0.1"]

    def logits(*flags):
        code = main([*command, *flags, "--json"])
        out, err = capsys.readouterr()
        assert code == 0, err
        folder = Path(json.loads(out.splitlines()[-1])["report"]).parent
        rows = (folder / "test.tsv").read_text().splitlines()[1:]
        return str(folder), err, [float(row.split("\t")[2]) for row in rows]

    folder, said, first = logits()
    assert folder == "runs/fasta"
    assert "a.fa: sequences of 30 to 39 bases are padded: 39 bases" in said
    assert "there are 16 training examples, fewer than --config.train.batch_size=32" in said
    folder, said, second = logits("--config.train.batch_size=16")  # the same steps
    assert folder == "runs/fasta-2"
    assert "runs/fasta holds a run with other settings, so this one is in runs/fasta-2" in said
    np.testing.assert_allclose(first, second, rtol=1e-4)
    assert "runs/fasta holds a finished run" in logits()[1]
    folder, said, untested = logits("--config.data.test_fraction=0")
    assert (folder, untested) == ("runs/fasta-3", [])
    summary = json.loads(Path(folder, "summary.json").read_text())
    assert set(summary["test"].values()) == {None} and "loss" in summary["test"]
    assert "what the filters look for" in Path(folder, "report.html").read_text().lower()
    assert main(["evaluate", f"--workdir={folder}"]) == 2
    assert "runs/fasta-3 has no test split; give labelled files" in capsys.readouterr().err
