"""The whole path, as a user walks it: real processes, files and signals."""

import io
import json
import math
import os
import re
import signal
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from jaxdna.config import load_config
from jaxdna.data.registry import load_dataset

SMALL = [
    "--config=configs/tal1.py",
    "--config.data.length=120",
    "--config.data.train_examples=2000",
    "--config.data.validation_examples=500",
    "--config.data.test_examples=500",
]


def result(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def finished(jaxdna, tmp_path_factory):
    """A short run of six epochs that was never interrupted."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    done = jaxdna("train", *SMALL, "--config.train.epochs=6", f"--workdir={folder}", "--json")
    return folder, result(done), done


def test_leaves_the_files_and_keys_of_the_contract(finished):
    folder, summary, _ = finished
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json", "data.json", "metrics.jsonl", "test.tsv", "summary.json", "checkpoints",
        "tensorboard", "curves.png", "report.html", ".saved",
    }  # fmt: skip
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert set(summary) >= {
        "params", "params_sha256", "best_epoch", "epochs", "stopped_early", "test", "ceiling",
        "samples_per_second", "seconds", "mesh", "devices", "processes", "versions",
        "flops_per_second", "mfu",
    }  # fmt: skip
    assert summary["mfu"] is None  # no data sheet says what a CPU reaches
    flops = 3 * (2 * (120 - 15 + 1) * 15 * 4 * 16 + 2 * 16)  # of an example
    # Examples per second are rounded to a whole number.
    assert abs(summary["flops_per_second"] / flops - summary["samples_per_second"]) <= 0.51
    assert set(summary["test"]) == {"loss", "accuracy", "auroc", "auprc"}
    assert set(summary["ceiling"]) == {"accuracy", "auroc", "loss"}
    assert set(summary["seconds"]) == {"total", "compile", "train", "eval", "checkpoint"}
    assert summary["params"] == 993
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, 7))
    assert [row["step"] for row in rows] == [63 * epoch for epoch in range(1, 7)]
    assert set(rows[0]) == {
        "epoch", "step", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_auroc",
        "seconds",
    }  # fmt: skip
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_learns_and_stays_below_the_ceiling(finished):
    _, summary, _ = finished
    test, ceiling, examples = summary["test"], summary["ceiling"], 500
    assert summary["left_plateau"]
    assert test["auroc"] > 0.9
    standard_error = math.sqrt(ceiling["accuracy"] * (1 - ceiling["accuracy"]) / examples)
    assert test["accuracy"] < ceiling["accuracy"] + 3 * standard_error


def test_the_recommended_recipe_reaches_its_score_and_not_more_than_the_ceiling(jaxdna, tmp_path):
    summary = result(jaxdna("train", "--config=configs/tal1.py", f"--workdir={tmp_path}", "--json"))
    test, ceiling = summary["test"], summary["ceiling"]
    assert test["auroc"] >= 0.978
    assert test["accuracy"] >= 0.965
    standard_error = math.sqrt(ceiling["accuracy"] * (1 - ceiling["accuracy"]) / 4000)
    assert test["accuracy"] < ceiling["accuracy"] + 3 * standard_error
    assert test["auroc"] < ceiling["auroc"] + 3 * standard_error


def test_a_test_split_of_one_class_has_no_auroc_and_no_ceiling_of_it(jaxdna, tmp_path):
    done = jaxdna(
        "train", *SMALL, "--config.train.epochs=1", "--config.data.test_examples=1",
        f"--workdir={tmp_path}", "--json",
    )  # fmt: skip
    summary = result(done)
    assert summary["test"]["auroc"] is None and summary["ceiling"]["auroc"] is None
    assert "best possible AUROC" not in (tmp_path / "report.html").read_text()


def test_tensorboard_events_hold_the_curves(finished):
    folder, _, _ = finished
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for split, prefix in (("train", "train"), ("validation", "val")):
        (path,) = (folder / "tensorboard" / split).iterdir()
        values = scalars(path.read_bytes())
        for quantity in ("loss", "accuracy"):
            expected = {row["epoch"]: np.float32(row[f"{prefix}_{quantity}"]) for row in rows}
            assert {step: value for tag, step, value in values if tag == quantity} == expected
        if split == "train":
            rates = [value for tag, _, value in values if tag == "learning_rate"]
            assert rates[-1] < rates[1] < rates[0] and rates[0] == pytest.approx(0.02)
            for tag in ("samples_per_second", "flops_per_second"):
                assert [step for found, step, _ in values if found == tag] == [*range(1, 7)]
            assert b"| `optimizer.learning_rate` | `0.02` |" in path.read_bytes()
            assert not any(tag == "mfu" for tag, _, _ in values)


def test_tensorboard_shows_the_logos_of_the_filters_that_matter_most(finished):
    folder, summary, _ = finished
    (path,) = (folder / "tensorboard" / "filters").iterdir()
    found = [
        (value, event.step) for event in events(path.read_bytes()) for value in event.summary.value
    ]
    assert {step for _, step in found} == {summary["best_epoch"]}
    numbers = re.findall(r"<figcaption>filter (\d+),", (folder / "report.html").read_text())
    assert [value.tag for value, _ in found] == [f"filter{number}" for number in numbers[:3]]
    for value, _ in found:
        picture = matplotlib.image.imread(io.BytesIO(value.image.encoded_image_string))
        assert picture.shape[:2] == (value.image.height, value.image.width)
        assert len(np.unique(picture)) > 10


def events(data):
    """Reads TFRecord framing: length, its checksum, payload, its checksum."""
    while data:
        length = int.from_bytes(data[:8], "little")
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def scalars(data):
    return [
        (value.tag, event.step, np.float32(value.simple_value))
        for event in events(data)
        for value in event.summary.value
    ]


def test_a_finished_run_says_so_and_does_not_train_again(jaxdna, finished):
    folder, summary, _ = finished
    before = (folder / "metrics.jsonl").stat().st_mtime_ns
    done = jaxdna("train", *SMALL, "--config.train.epochs=6", f"--workdir={folder}", "--json")
    assert result(done) == summary
    assert "finished run" in done.stderr
    assert (folder / "metrics.jsonl").stat().st_mtime_ns == before


def test_evaluate_finds_the_same_scores_from_the_folder_alone(jaxdna, finished):
    folder, summary, _ = finished
    evaluated = result(jaxdna("evaluate", f"--workdir={folder}", "--json"))
    for key in ("params", "params_sha256", "test", "ceiling"):
        assert evaluated[key] == summary[key]


def test_interpret_tells_where_the_motif_was_embedded(jaxdna, finished, tmp_path):
    folder, _, _ = finished
    found = result(
        jaxdna("interpret", f"--workdir={folder}", f"--output={tmp_path}", "--mutate=0", "--json")
    )
    assert found["embedded"]["found"] > 0.8
    assert found["embedded"]["chance"] == pytest.approx(15 / 106)
    assert found["filters"][0]["match"]["target"] == "TAL1_known4"


def test_another_run_s_folder_is_refused(jaxdna, finished):
    folder, _, _ = finished
    done = jaxdna("train", *SMALL, "--config.seed=1", f"--workdir={folder}")
    assert done.returncode == 2
    assert "belongs to another run (seed: 0 -> 1)" in done.stderr


def test_a_killed_run_ends_with_the_bits_of_one_that_was_not(jaxdna, finished, tmp_path):
    _, summary, _ = finished
    command = [sys.executable, "-m", "jaxdna", "train", *SMALL, "--config.train.epochs=6"]
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [*command, f"--workdir={folder}"], stderr=subprocess.PIPE, text=True, env=os.environ
    )
    for line in process.stderr:
        if line.startswith("epoch 4/6"):
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stderr.close()
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "summary.json").exists()
    done = jaxdna("train", *SMALL, "--config.train.epochs=6", f"--workdir={folder}", "--json")
    assert "resuming after epoch" in done.stderr
    assert result(done)["params_sha256"] == summary["params_sha256"]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, 7))


def test_the_same_seed_gives_the_same_bits(jaxdna, finished, tmp_path):
    _, summary, _ = finished
    again = jaxdna("train", *SMALL, "--config.train.epochs=6", f"--workdir={tmp_path}/a", "--json")
    assert result(again)["params_sha256"] == summary["params_sha256"]


def test_a_run_that_never_learns_says_so(jaxdna, tmp_path):
    done = jaxdna(
        "train", *SMALL, "--config.train.epochs=2", "--config.optimizer.learning_rate=1e-9",
        f"--workdir={tmp_path}/run", "--json",
    )  # fmt: skip
    assert result(done)["left_plateau"] is False
    assert "never left the plateau" in done.stderr


def test_a_loss_that_is_not_finite_ends_with_76_and_names_the_step(jaxdna, tmp_path):
    done = jaxdna(
        "train", *SMALL, "--config.optimizer.name=sgd", "--config.optimizer.learning_rate=1e30",
        f"--workdir={tmp_path}/run",
    )  # fmt: skip
    assert done.returncode == 76
    assert "at step" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_simulate_writes_what_the_config_trains_on(jaxdna, tmp_path):
    output = tmp_path / "simulated"
    done = jaxdna("simulate", *SMALL, f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert "Head of the training split" in done.stdout
    lines = (output / "labels.tsv").read_text().splitlines()
    assert lines[0] == "id\tsplit\tlabel\tembedding"
    rows = [line.split("\t") for line in lines[1:]]
    assert len(rows) == 3000
    sequences = {}
    for name in ("positives", "negatives"):
        records = (output / f"{name}.fa").read_text().splitlines()
        sequences |= {
            key[1:]: (name, seq) for key, seq in zip(records[::2], records[1::2], strict=True)
        }
    assert list(sequences) != [row[0] for row in rows]
    for identity, _, label, embedding in rows:
        name, letters = sequences[identity]
        assert name == ("positives" if label == "1" else "negatives")
        assert bool(embedding) == (label == "1")
        if embedding:
            site = embedding.rsplit("-", 1)[1]
            start = int(embedding.split("_", 1)[0].removeprefix("pos-"))
            assert letters[start : start + 10] == site
    provenance = json.loads((output / "provenance.json").read_text())
    assert provenance["motif"]["name"] == "TAL1_known4"


def test_training_data_take_one_byte_a_base():
    """Resident memory of the recommended training split: 6.4 MB, far under one-hot's 102 MB."""
    splits = load_dataset(load_config("configs/tal1.py")).splits
    assert splits["train"].x.nbytes + splits["train"].y.nbytes < 15e6
    assert splits["train"].x.dtype == np.uint8
