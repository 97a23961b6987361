"""Images through the ordinary path: a prepared data set on disk, `jaxdna train`, the run folder."""

import json

import pytest

from tests.data.digits import write_digits


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared")
    write_digits(root)
    return root


def test_handwritten_digits_reach_97_percent(jaxdna, prepared, tmp_path):
    arguments = [
        "--config=configs/mnist.py", f"--config.data.data_dir={prepared}",
        "--config.train.epochs=5", "--config.optimizer.learning_rate=2e-3",
        f"--workdir={tmp_path}/run", "--json",
    ]  # fmt: skip
    done = jaxdna("train", *arguments)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["params"] == 669_706
    assert summary["test"]["accuracy"] >= 0.97
    assert summary["test"]["auroc"] > 0.99
    assert summary["ceiling"] is None
    assert summary["left_plateau"]
    assert summary["data"] == f"mnist from {prepared}/mnist/3.0.1"
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows[0]["val_loss"] > rows[-1]["val_loss"]
    assert rows[-1]["val_auroc"] > 0.99


def test_random_images_train_too_and_the_summary_says_so(jaxdna, tmp_path):
    done = jaxdna(
        "train", "--config=configs/cifar10.py", "--config.data.synthetic=true",
        "--config.data.train_examples=64", "--config.data.test_examples=16",
        "--config.train.batch_size=32", "--config.train.epochs=1", "--config.model.filters=4,4",
        "--config.model.dense=8", "--config.runtime.cpu_devices=2", f"--workdir={tmp_path}/run",
        "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["data"].startswith("synthetic")
    assert summary["left_plateau"] is False  # there is nothing to learn
    assert summary["mesh"]["data"] == 2


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--config.data.name=mnist2", "data.name=mnist2"),
        (
            "--config.train.early_stopping.metric=val_pearson",
            "val_pearson is for numbers",
        ),
        ("--config.model.filters=8,,8", "integers, 1 or more, joined by commas"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(jaxdna, tmp_path, flag, words):
    done = jaxdna("train", "--config=configs/mnist.py", flag, f"--workdir={tmp_path}/run")
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
