"""Rows 25, 31 and 32 of the table of faults, and links: what may become of a run folder."""

import errno
import shutil
import time
from contextlib import suppress

import pytest

from tools.jobs import failing_calls
from tools.lossy_disk import LossyDisk


def test_fault_25_after_a_power_cut_a_finished_run_is_finished(runner, finished, tmp_path):
    try:
        disk = LossyDisk(tmp_path)
    except OSError as error:
        pytest.skip(f"no file system whose power can be cut: {error}")
    with disk:
        workdir = disk.path / "runs" / "run"
        runner.finish(workdir)
        disk.fail()
        disk.start_again()
        finished.assert_same(workdir)
        said = " ".join(runner.finish(workdir).split())  # a long path breaks the line anywhere
        assert "holds a finished run: nothing to train" in said
        (workdir / "summary.json").unlink()
        assert "resuming after epoch 8" in runner.finish(workdir)
        finished.assert_same(workdir)
        assert (workdir / "test.tsv").read_text() == (finished.path / "test.tsv").read_text()


@pytest.mark.parametrize("way", ["moved", "replaced", "removed"])
def test_fault_31_a_folder_that_goes_away_is_noticed_and_not_made_anew(
    runner, finished, tmp_path, way
):
    workdir, away, theirs = (tmp_path / name for name in ("run", "away", "another"))
    theirs.mkdir()
    (theirs / "theirs").touch()
    with runner.train(workdir, "--config.train.epochs=100000") as job:
        assert job.until(lambda job: "\nepoch 2/" in job.output)
        workdir.rename(away)
        if way == "removed":
            shutil.rmtree(away)
        until = time.monotonic() + 20
        while way == "replaced" and theirs.exists() and time.monotonic() < until:
            with suppress(OSError):  # what a late writer makes there goes at once
                theirs.rename(workdir)
        assert job.end() == 1, job.output
    said = " ".join(job.output.split())
    assert f"jaxdna: {workdir} was moved, removed or replaced while it was written to" in said
    assert "Traceback" not in job.output
    left = [path.name for path in workdir.iterdir()] if workdir.exists() else None
    assert left == (["theirs"] if way == "replaced" else None)
    if way == "moved":
        away.rename(workdir)
        runner.finish(workdir, code=0)
        assert [path.name for path in workdir.glob(".*unfinished")] == []


@pytest.mark.skipif(failing_calls() is None, reason="needs a C compiler")
@pytest.mark.parametrize(
    ("call", "at", "legal"), [("unlink", 1, {0, 1}), ("fsync", 60, {1}), ("rename", 3, {1, 2})]
)
def test_fault_32_a_call_that_fails_from_then_on_is_a_sentence_and_the_rerun_has_the_same_bits(
    runner, finished, tmp_path, call, at, legal
):
    workdir = tmp_path / "run"
    fault = {
        "FAIL_CALL": call, "FAIL_AT": str(at), "FAIL_LAST": "1", "FAIL_BELOW": str(workdir),
        "FAIL_ERRNO": str(errno.EIO),
    }  # fmt: skip
    with runner.train(workdir, environment=fault) as job:
        assert job.end() in legal, job.output
    assert f"FAILING: {call} number {at}, of {workdir}" in job.output
    assert "Traceback" not in job.output
    assert "Exception ignored" not in job.output
    runner.finish(workdir)
    finished.assert_same(workdir)


def test_fault_20_no_verb_writes_through_a_link_in_a_run_folder(runner, finished, tmp_path):
    workdir, outside = tmp_path / "run", tmp_path / "outside"
    shutil.copytree(finished.path, workdir)
    outside.mkdir()
    (outside / "README.md").write_text("theirs")
    (workdir / "export").mkdir()
    (workdir / "export" / "README.md").symlink_to(outside / "README.md")
    (workdir / "interpret").symlink_to(outside)
    for verb, named, flags in (
        ("export", "export/README.md", []),
        ("interpret", "interpret", ["--mutate=1"]),
        ("interpret", "interpret", [f"--output={workdir / 'interpret'}"]),
    ):
        with runner.start(verb, f"--workdir={workdir}", *flags) as job:
            assert job.end() == 2, job.output
        assert f"jaxdna: {workdir / named} is a symbolic link: nothing is written" in job.output
    (workdir / "checkpoints" / "epoch-9.unfinished").symlink_to(outside)
    runner.finish(workdir, "--config.train.epochs=9")
    assert [path.name for path in outside.iterdir()] == ["README.md"]
    assert (outside / "README.md").read_text() == "theirs"
