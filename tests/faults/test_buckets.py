"""Runs in a bucket keep the promises of runs on a disk, whatever the store answers."""

import json
import time

import numpy as np
import pytest

import jaxdna
from jaxdna.cli.main import main as jaxdna_main
from tests.faults.conftest import SHORT, rows
from tools.object_store import STORES, Fault

TWICE = "--config.checkpoint.every_epochs=4"  # saved, of eight epochs: a save makes many requests


@pytest.fixture(scope="module", params=STORES)
def store(request):
    with STORES[request.param]() as store:
        yield store


def contents(store, workdir):
    """The bits and the metrics of a run, as `Finished.assert_same` compares them."""
    above = workdir.partition("://bkt/")[2] + "/"
    files = {name.removeprefix(above): value for name, value in store.objects(above).items()}
    rows = [json.loads(line) for line in files["metrics.jsonl"].splitlines()]
    return files, [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def assert_same(store, workdir, finished, rows):
    files, found = contents(store, workdir)
    assert json.loads(files["summary.json"])["params_sha256"] == finished.sha
    assert found == rows
    return files


@pytest.fixture(scope="module")
def trained(runner, store):
    """A run in a bucket, whose store refuses, is slow, and cuts answers off, a few times each."""
    store.faults[:] = [
        Fault(store.files, status=429, times=1),
        Fault(store.arrays, status=503, times=1),
        Fault(store.files, status=0, times=1),
        Fault(store.reads, status=0, times=1),
        Fault(store.writes, seconds=0.2, times=10),
    ]
    workdir = f"{store.scheme}://bkt/runs/a"
    runner.finish(workdir, TWICE, environment=store.environment)
    assert [fault.times for fault in store.faults] == [0] * 5
    store.faults.clear()
    return workdir


def test_fault_33_a_run_in_a_bucket_has_the_bits_of_one_on_a_disk(store, trained, finished):
    files = assert_same(store, trained, finished, rows(finished.path))
    on_disk = {path.relative_to(finished.path).parts[0] for path in finished.path.rglob("*")}
    assert {name.split("/")[0] for name in files} - {".lock"} == on_disk - {".lock"}
    for split in ("train", "validation"):
        (events,) = (name for name in files if name.startswith(f"tensorboard/{split}/"))
        (same,) = (finished.path / "tensorboard" / split).iterdir()
        assert len(files[events]) == same.stat().st_size


@pytest.mark.parametrize("store", ["gs"], indirect=True)  # tests/storage hold that s3 is as gs is
def test_every_verb_reads_a_run_in_a_bucket(store, trained, finished, monkeypatch, capsys):
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    run = jaxdna.open_run(trained, quiet=True)
    same = jaxdna.open_run(finished.path, quiet=True)
    letters = ["ACGTACGTTGACCAGATGGTTACGATTTACCAGCTGGTAATGCAAATTTCCCGGGTAAACC"]
    np.testing.assert_array_equal(run.predict(letters), same.predict(letters))
    assert run.evaluate()["params_sha256"] == finished.sha
    assert run.summary["params_sha256"] == finished.sha
    assert [row["val_loss"] for row in run.history] == [row["val_loss"] for row in same.history]
    run.interpret(mutate=1)
    assert "runs/a/interpret/filters.meme" in store.names("runs/a/interpret/")
    assert jaxdna_main(["train", *SHORT, TWICE, f"--workdir={trained}"]) == 0
    assert "finished run" in capsys.readouterr().err


def test_fault_05_34_a_damaged_checkpoint_is_passed_over_and_rights_that_are_taken_away_end_a_run(
    runner, store, trained, finished
):
    """The rerun of both has the same bits."""
    store.delete("runs/a/summary.json")
    name = "runs/a/checkpoints/epoch-8/progress.json"
    store.put(name, store.get(name).replace(b"0", b"1"))
    environment = store.environment | {"WATCH_SECONDS": "4"}  # of the lock, which stays there too
    with runner.train(trained, TWICE, environment=environment) as job:
        assert job.until(lambda job: "epoch 5/8" in job.output)
        store.faults[:] = [Fault("POST|PUT|DELETE", status=403)]
        assert job.end() == 1, job.output
    said = " ".join(job.output.split())
    assert f"DAMAGED: the checkpoint {trained}/checkpoints/epoch-8 cannot be used" in said
    assert "falling back to the newest intact checkpoint, epoch-4" in said
    assert f"cannot be written to {trained}" in said
    assert "by the test" in said  # what the store has said
    assert "the same command resumes from it" in said
    assert "Traceback" not in said
    store.faults.clear()
    assert "resuming after epoch 4" in runner.finish(trained, TWICE, environment=environment)
    assert_same(store, trained, finished, rows(finished.path))


@pytest.mark.parametrize(
    ("workdir", "said"),
    [
        ("://nowhere/runs/a", "cannot be written (there is no bucket nowhere); give another"),
        ("://bkt/runs", "://bkt/runs holds files but no run"),
    ],
)
def test_fault_04_a_bucket_that_cannot_hold_the_run_is_refused(
    runner, store, trained, workdir, said
):
    begun = time.monotonic()
    given = store.scheme + workdir
    found = " ".join(runner.finish(given, code=2, environment=store.environment).split())
    assert said in found
    assert time.monotonic() - begun < 30  # 10 on a machine that does nothing else


def test_fault_04_a_bucket_that_may_only_be_read_is_refused(runner, store):
    workdir = f"{store.scheme}://bkt/runs/c"
    store.faults[:] = [Fault("POST|PUT|DELETE", status=403)]
    said = runner.finish(workdir, code=2, environment=store.environment).split()
    store.faults.clear()
    assert f"--workdir={workdir} cannot be written (permission denied" in " ".join(said)


def test_a_run_on_a_disk_imports_nothing_of_a_cloud(finished):
    assert "jaxdna.runs.loop" in finished.modules
    clouds = ("gcsfs", "s3fs", "fsspec", "google.cloud.", "google.auth", "boto3", "aiohttp")
    assert [name for name in finished.modules if name.startswith(clouds)] == []
