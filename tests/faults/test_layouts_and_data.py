"""Rows 8, 14 and 15 of the table of faults: other devices, broken data, uneven sizes."""

import json
import shutil

import jax
import numpy as np
import pytest

from jaxdna.config import flat, validate
from jaxdna.parallel.mesh import make_mesh
from jaxdna.runs.run_folder import RunFolder
from jaxdna.storage.disk import DiskFolder
from jaxdna.tasks.kinds import of_classes
from jaxdna.training.checkpoint import load_best
from jaxdna.training.program import Program
from tests.faults.conftest import pair, rows

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
    return folder


@pytest.fixture(scope="module")
def eight_devices(runner, tmp_path_factory):
    """The first epoch on eight devices."""
    folder = tmp_path_factory.mktemp("eight") / "run"
    output = runner.finish(
        folder, *UNEVEN, "--config.train.epochs=1", "--config.runtime.cpu_devices=8"
    )
    assert "8 x cpu" in output
    return folder


@pytest.fixture(scope="module")
def two_processes(runner, tmp_path_factory):
    """The first epoch on two processes of two devices each; and what they have printed."""
    folder = tmp_path_factory.mktemp("two") / "run"
    two = ["--config.train.epochs=1", "--config.runtime.cpu_devices=2", "--json"]
    jobs = pair(runner, folder, *UNEVEN, *two)
    for job in jobs:
        assert job.end() == 0, job.output
    return folder, [job.output for job in jobs]


def assert_close(found, expected):
    """2e-5 is what the design allows after 20 SGD steps in float32 on any layout."""
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    for row, other in zip(found, expected, strict=True):
        for key in ("train_loss", "val_loss"):
            assert abs(row[key] - other[key]) < 2e-5, (key, row, other)


def test_fault_08_a_run_goes_on_with_other_devices_and_the_same_curve(
    runner, one_device, eight_devices, tmp_path
):
    folder = shutil.copytree(eight_devices, tmp_path / "run")
    for epoch, devices in ((2, 4), (3, 16)):
        output = runner.finish(
            folder, *UNEVEN, f"--config.train.epochs={epoch}",
            f"--config.runtime.cpu_devices={devices}",
        )  # fmt: skip
        assert f"{devices} x cpu" in output
        assert f"resuming after epoch {epoch - 1}" in output
    assert_close(rows(folder), rows(one_device))


def parameters(folder):
    config = validate(flat(RunFolder(folder).read_config()) | {"mesh.data": 1})
    for axis in ("fsdp", "model", "seq"):
        config.mesh[axis] = 1
    mesh = make_mesh(config, jax.devices()[:1])
    program = Program(config, mesh, (60,), of_classes(2), 1283)
    return load_best(DiskFolder(folder / "checkpoints"), program.abstract_state.params)


def test_fault_08_one_process_goes_on_where_two_were_with_other_shardings(
    runner, one_device, two_processes, tmp_path
):
    folder = shutil.copytree(two_processes[0], tmp_path / "run")
    output = runner.finish(
        folder, *UNEVEN, "--config.train.epochs=3", "--config.runtime.cpu_devices=8",
        "--config.mesh.data=2", "--config.mesh.fsdp=2", "--config.mesh.model=2",
    )  # fmt: skip
    assert "resuming after epoch 1" in output
    assert_close(rows(folder), rows(one_device))
    apart = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), parameters(folder), parameters(one_device)
    )
    assert max(jax.tree.leaves(apart)) < 2e-5


def assert_exact(folder, one_device):
    """Holds that the first epoch has all its steps, and counts each example once."""
    found, expected = rows(folder)[:1], rows(one_device)[:1]
    assert_close(found, expected)
    assert found[0]["step"] == 41
    for key, examples in (("train_accuracy", 1283), ("val_accuracy", 61)):
        right = found[0][key] * examples
        assert abs(right - round(right)) < 1e-9, "padding was counted"
        assert found[0][key] == expected[0][key]


def test_fault_15_sizes_that_nothing_divides_are_exact_on_any_number_of_devices(
    one_device, eight_devices
):
    assert_exact(eight_devices, one_device)


def test_fault_15_sizes_that_nothing_divides_are_exact_in_two_processes(one_device, two_processes):
    folder, outputs = two_processes
    of_this_machine = ("seconds", "samples_per_second", "flops_per_second", "mfu")
    assert_exact(folder, one_device)
    for i, output in enumerate(outputs):  # both have found the same
        assert f"process {i} of 2, waiting up to" in output
        summary = json.loads(output.splitlines()[-1])
        assert (summary["processes"], summary["devices"], summary["epochs"]) == (2, 4, 1)
        found = json.loads((folder / "summary.json").read_text())
        del found["motif"]  # known to the process alone that draws
        for key, value in found.items():
            assert summary[key] == value or key in of_this_machine


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
        "train", "--config=configs/fasta.py:small", f"--config.data.positives={bound}",
        f"--config.data.negatives={unbound}", f"--workdir={tmp_path}/run",
    ) as job:  # fmt: skip
        assert job.end() == 2, job.output
    sentence = next(line for line in job.output.splitlines() if line.startswith("jaxdna:"))
    for word in words:
        assert word in sentence
    assert "Traceback" not in job.output
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def store(runner, tmp_path_factory):
    """A command that trains on FASTA files, and a cache where they are converted already."""
    folder = tmp_path_factory.mktemp("store")
    letters = np.random.default_rng(0).choice(list("ACGT"), (2, 50, 80))
    for name, sequences in zip(("bound", "unbound"), letters, strict=True):
        records = (f">{name}{i}\n{''.join(row)}\n" for i, row in enumerate(sequences))
        (folder / f"{name}.fa").write_text("".join(records))
    command = [
        "train", "--config=configs/fasta.py:small", f"--config.data.positives={folder}/bound.fa",
        f"--config.data.negatives={folder}/unbound.fa", "--config.train.epochs=1",
        "--config.train.batch_size=16", "--config.runtime.platform=cpu",
    ]  # fmt: skip
    with runner.start(
        *command, f"--workdir={folder}/run", environment={"XDG_CACHE_HOME": f"{folder}/cache"}
    ) as job:
        assert job.end() == 0, job.output
    return command, folder / "cache"


def flip_a_bit(content):
    return content[:-40] + bytes([content[-40] ^ 1]) + content[-39:]


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("codes.npy", flip_a_bit, "the digest of codes.npy is not the one"),  # another base
        ("codes.npy", lambda content: content[:-1] + b"\x63", "the digest of codes.npy"),  # none
        ("codes.npy", lambda content: content.replace(b"|u1", b"|i1"), "the digest of codes.npy"),
        ("columns.npz", lambda content: content[:9], "columns.npz has 9 bytes instead of"),
        ("store.json", lambda content: b"[]", "store.json has 2 bytes instead of"),
        ("ids.txt", None, "ids.txt is missing"),
    ],
)
def test_fault_14_damaged_converted_sequences_are_named(
    runner, store, tmp_path, name, change, words
):
    command, cache = store
    again = shutil.copytree(cache, tmp_path / "cache")
    (path,) = again.glob(f"jaxdna/codes/*/{name}")
    if change is None:
        path.unlink()
    else:
        assert change(path.read_bytes()) != path.read_bytes()
        path.write_bytes(change(path.read_bytes()))
    with runner.start(
        *command, f"--workdir={tmp_path}/run", environment={"XDG_CACHE_HOME": str(again)}
    ) as job:
        assert job.end() == 2, job.output
    assert f"jaxdna: the converted sequences in {path.parent} are damaged ({words}" in job.output
    assert not (tmp_path / "run").exists()
