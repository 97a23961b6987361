"""Rows 8, 14 and 15 of the table of faults: other devices, broken data, uneven sizes."""

import pytest

from tests.faults.conftest import rows

# 41 steps, the last of 3 examples; 61 validation examples: nothing divides by anything.
UNEVEN = [
    "--config.data.train_examples=1283",
    "--config.data.validation_examples=61",
    "--config.optimizer.name=sgd",
    "--config.optimizer.schedule=constant",
    "--config.optimizer.learning_rate=0.2",
]


@pytest.fixture(scope="module")
def one_device(runner, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "run"
    runner.finish(folder, *UNEVEN, "--config.train.epochs=3")
    return rows(folder)


def assert_close(found, expected):
    """2e-5 is what the design allows after 20 SGD steps in float32 on any layout."""
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    for row, other in zip(found, expected, strict=True):
        for key in ("train_loss", "val_loss"):
            assert abs(row[key] - other[key]) < 2e-5, (key, row, other)


def test_fault_08_a_run_goes_on_with_other_devices_and_the_same_curve(runner, tmp_path, one_device):
    folder = tmp_path / "run"
    for epoch, devices in ((1, 8), (2, 4), (3, 16)):
        output = runner.finish(
            folder, *UNEVEN, f"--config.train.epochs={epoch}",
            f"--config.runtime.cpu_devices={devices}",
        )  # fmt: skip
        assert f"{devices} x cpu" in output
        assert ("resuming after epoch" in output) == (epoch > 1)
    assert_close(rows(folder), one_device)


def test_fault_15_sizes_that_nothing_divides_are_exact_on_any_number_of_devices(
    runner, tmp_path, one_device
):
    folder = tmp_path / "run"
    runner.finish(folder, *UNEVEN, "--config.train.epochs=1", "--config.runtime.cpu_devices=8")
    found, expected = rows(folder)[:1], one_device[:1]
    assert_close(found, expected)
    assert found[0]["step"] == 41
    for key, examples in (("train_accuracy", 1283), ("val_accuracy", 61)):
        right = found[0][key] * examples
        assert abs(right - round(right)) < 1e-9, "padding was counted"
        assert found[0][key] == expected[0][key]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b">a\nACGT\n>b\nAC!T\n", ["bound.fa", "b", "'!'"]),
        (b"ACGT\n", ["bound.fa", "line 1"]),
        (b"", ["bound.fa"]),
        (b"\x1f\x8b\x08\x00garbage", ["bound.fa"]),
        (bytes(range(256)) * 9, ["bound.fa"]),
    ],
)
def test_fault_14_a_corrupt_data_file_is_named_with_the_record(runner, tmp_path, content, words):
    bound, unbound = tmp_path / "bound.fa", tmp_path / "unbound.fa"
    bound.write_bytes(content)
    unbound.write_bytes(b"".join(b">r%d\n%s\n" % (i, b"ACGT" * 20) for i in range(50)))
    with runner.start(
        "train", "--config=configs/fasta.py", f"--config.data.positives={bound}",
        f"--config.data.negatives={unbound}", f"--workdir={tmp_path}/run",
    ) as job:  # fmt: skip
        assert job.end() == 2, job.output
    sentence = next(line for line in job.output.splitlines() if line.startswith("jaxdna:"))
    for word in words:
        assert word in sentence
    assert "Traceback" not in job.output
    assert not (tmp_path / "run").exists()
