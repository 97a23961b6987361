"""Rows 1, 3 to 7, 17, 18 and 20 of the table of faults: files that are broken or missing."""

import errno
import itertools
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdna.errors import NoCheckpointError, StorageError
from jaxdna.storage.disk import DiskFolder
from jaxdna.storage.manifest import damage, write_manifest
from jaxdna.training.checkpoint import Checkpoints, load_best
from jaxdna.training.early_stopping import EarlyStopping
from jaxdna.training.positions import positions
from jaxdna.training.progress import NetworkProgress
from jaxdna.training.state import TrainState
from tests.faults.conftest import SHORT
from tools.jobs import failing_calls

NEWEST, BEFORE = "epoch-8", "epoch-7"


def unfinished(workdir):
    return list((workdir / "checkpoints").glob("*.unfinished"))


def test_fault_01_sigkill_in_mid_save_costs_nothing(runner, finished, tmp_path):
    for saves in (1, 3):  # nothing is saved yet; something is
        workdir = tmp_path / str(saves)
        begun = set()

        def saving(job, workdir=workdir, begun=begun, saves=saves):
            begun |= {path.name for path in unfinished(workdir)}
            return len(begun) == saves

        with runner.train(workdir) as job:
            assert job.until(saving), job.output
            job.send(signal.SIGKILL)
            assert job.end() == -signal.SIGKILL
        assert unfinished(workdir), "the save was over before the signal came"
        saved = DiskFolder(workdir / "checkpoints")
        whole = positions(saved)
        assert len(whole) <= saves - 1
        assert all(damage(saved, f"epoch-{epoch}") is None for epoch, _ in whole)
        runner.finish(workdir)
        finished.assert_same(workdir)
        assert not unfinished(workdir)


def namespace():
    """The command that gives a shell mounts of its own, for root and, mostly, for anybody."""
    for command in (["unshare", "-Urm"], ["unshare", "-m"]):
        if (
            shutil.which("unshare")
            and not subprocess.run(
                [*command, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True
            ).returncode
        ):
            return command
    pytest.skip("neither root nor user namespaces: no small file system can be mounted")


def on_a_small_disk(runner, tmp_path, script):
    """Runs a shell script with `disk`, a folder to mount one on, and `run`, the short run on it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    train = f"{sys.executable} -m jaxdna train {' '.join(SHORT)} --workdir={disk}/run"
    done = subprocess.run(
        [*namespace(), "sh", "-c", f"disk={disk}\nrun='{train}'\n{script}"],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert "Traceback" not in done.stderr
    return done, disk


def test_fault_03_disk_full_says_where_and_leaves_the_earlier_checkpoints(
    runner, finished, tmp_path
):
    script = f"""
      mount -t tmpfs -o size=400k none $disk
      $run; echo code $?
      find $disk/run/checkpoints -mindepth 1 -maxdepth 1
      mount -o remount,size=16m $disk
      $run; echo code $?
      cp $disk/run/summary.json $disk/run/metrics.jsonl {tmp_path}
    """
    done, disk = on_a_small_disk(runner, tmp_path, script)
    first, second = done.stdout.split("code ")[1:]
    assert first.startswith("1\n"), done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("jaxdna:")]
    assert f"{disk}/run" in error
    assert "No space left on device" in error
    assert "MB of 0.4 MB are free" in error
    left = [Path(line).name for line in first.splitlines()[1:] if str(disk) in line]
    assert left
    assert all("unfinished" not in name for name in left)
    assert second.startswith("0\n")
    finished.assert_same(tmp_path)


def test_fault_03_a_disk_that_is_full_before_the_first_step_is_one_sentence(runner, tmp_path):
    """Room for the lock and config.json; for data.json too; for all but TensorBoard's events."""
    script = "".join(
        f"mount -t tmpfs -o size={size}k none $disk && $run; echo code $?; umount $disk\n"
        for size in (8, 12, 16)
    )
    done, disk = on_a_small_disk(runner, tmp_path, script)
    assert done.stdout.splitlines() == ["code 1"] * 3, done.stderr
    sentence = f"jaxdna: a file of the run cannot be written to {disk}/run (No space left on device"
    assert sum(line.startswith(sentence) for line in done.stderr.splitlines()) == 3


def test_fault_03_a_disk_without_room_for_shuffled_sequences_is_one_sentence(runner, tmp_path):
    """They are written through memory, where a full disk would end the process with SIGBUS."""
    bound = tmp_path / "bound.fa"
    bound.write_text("".join(f">{i}\n{'ACGTTGCA' * 125}\n" for i in range(300)))
    script = f"""
      mount -t tmpfs -o size=400k none $disk
      {sys.executable} -m jaxdna train --config=fasta --config.runtime.platform=cpu \\
        --config.data.positives={bound} --config.data.negatives=dinucleotide_shuffle \\
        --config.runtime.data_cache=$disk/cache --workdir={tmp_path}/other
      echo code $?; find $disk -type f
    """
    done, disk = on_a_small_disk(runner, tmp_path, script)
    assert done.stdout == "code 2\n", done.stdout + done.stderr
    assert f"the converted sequences cannot be written to {disk}/cache (no space" in done.stderr


def test_fault_03_an_output_that_is_full_is_one_sentence(runner, finished, tmp_path):
    sequences = tmp_path / "x.fa"
    sequences.write_text(">a\n" + "ACGT" * 15 + "\n")
    with runner.start(
        "predict", f"--workdir={finished.path}", f"--sequences={sequences}", "--output=/dev/full"
    ) as job:
        assert job.end() == 2, job.output
    assert "jaxdna: --output=/dev/full cannot be written (no space left on device)" in job.output
    assert "Traceback" not in job.output


@pytest.mark.parametrize("kind", ["file", "below a file", "read-only", "too long"])
def test_fault_04_a_workdir_that_cannot_be_written_fails_before_any_work(runner, tmp_path, kind):
    workdir = tmp_path / "run"
    if kind == "file":
        workdir.write_text("")
    elif kind == "below a file":
        (tmp_path / "file").write_text("")
        workdir = tmp_path / "file" / "run"
    elif kind == "too long":
        workdir = tmp_path / ("r" * 300)
    else:
        workdir = Path("/proc/self/run")  # a file system that nobody can write to, root included
    output = runner.finish(workdir, code=2)
    assert f"--workdir={workdir}" in output
    assert "devices" not in output
    assert "Traceback" not in output


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def zero_a_page(path):
    data = bytearray(path.read_bytes())
    data[-4096:] = bytes(len(data[-4096:]))
    path.write_bytes(data)


def garble(path):
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def test_fault_05_every_kind_of_damage_to_any_file_is_found(finished, tmp_path):
    """The digests alone, for each file of a checkpoint and each way to damage it."""
    original = finished.path / "checkpoints" / NEWEST
    files = [path.relative_to(original) for path in original.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert damage(DiskFolder(original)) is None
    folder = tmp_path / "copy"
    shutil.copytree(original, folder)
    for name, hurt in itertools.product(
        files, (flip_a_bit, zero_a_page, garble, truncate, Path.unlink)
    ):
        before = (folder / name).read_bytes()
        if before.strip():  # an empty file has nothing to damage
            hurt(folder / name)
            if not (folder / name).exists() or (folder / name).read_bytes() != before:
                assert damage(DiskFolder(folder)) is not None, (name, hurt)
        (folder / name).write_bytes(before)
    assert damage(DiskFolder(folder)) is None
    (folder / "arrays" / "extra").touch()
    assert damage(DiskFolder(folder)) == "arrays/extra does not belong to it"


@pytest.mark.parametrize("hurt", [flip_a_bit, zero_a_page, garble, truncate])
def test_fault_05_a_damaged_checkpoint_is_replaced_by_the_one_before(
    runner, finished, tmp_path, hurt
):
    workdir = finished.copy(tmp_path / "run")
    newest = workdir / "checkpoints" / NEWEST
    hurt(max((newest / "arrays" / "state" / "d").iterdir(), key=lambda path: path.stat().st_size))
    output = runner.finish(workdir)
    assert f"DAMAGED: the checkpoint {newest} cannot be used" in " ".join(output.split())
    assert f"falling back to the newest intact checkpoint, {BEFORE}" in output
    assert "resuming after epoch 7" in output
    finished.assert_same(workdir)
    assert damage(DiskFolder(newest)) is None


def test_fault_06_no_intact_checkpoint_is_77_and_never_a_start_from_zero(
    runner, finished, tmp_path
):
    workdir = finished.copy(tmp_path / "run")
    for checkpoint in (workdir / "checkpoints").iterdir():
        flip_a_bit(checkpoint / "progress.json")
    before = (workdir / "metrics.jsonl").read_bytes()
    for _ in range(2):  # the first refusal must not make the second run start anew
        output = runner.finish(workdir, code=77)
        assert "no checkpoint in" in output
        assert output.count("the digest of progress.json") >= 3
    assert (workdir / "metrics.jsonl").read_bytes() == before
    with runner.start("evaluate", f"--workdir={workdir}") as job:
        assert job.end() == 77


@pytest.mark.skipif(failing_calls() is None, reason="needs a C compiler")
def test_fault_06_checkpoints_that_cannot_be_read_are_not_called_damaged(
    runner, finished, tmp_path
):
    workdir = finished.copy(tmp_path / "run")
    fault = {
        "FAIL_CALL": "open", "FAIL_AT": "1", "FAIL_LAST": "1",
        "FAIL_BELOW": str(workdir / "checkpoints"), "FAIL_ERRNO": str(errno.EIO),
    }  # fmt: skip
    with runner.start("evaluate", f"--workdir={workdir}", environment=fault) as job:
        assert job.end() == 77, job.output
    said = " ".join(job.output.split())
    assert f"no checkpoint in {workdir / 'checkpoints'} can be read (epoch-8: it cannot" in said
    assert "check the disk or file server, then run the same command to resume" in said
    with runner.start("evaluate", f"--workdir={workdir}") as job:
        assert job.end() == 0, job.output


def empty(checkpoints):
    for checkpoint in checkpoints.iterdir():
        shutil.rmtree(checkpoint)


def leave_an_unfinished_one(checkpoints):
    empty(checkpoints)
    (checkpoints / "epoch-9.unfinished").mkdir()


@pytest.mark.parametrize("lose", [shutil.rmtree, empty, leave_an_unfinished_one])
def test_fault_06_lost_checkpoints_are_77_and_never_a_start_from_zero(
    runner, finished, tmp_path, lose
):
    workdir = finished.copy(tmp_path / "run")
    lose(workdir / "checkpoints")
    before = (workdir / "metrics.jsonl").read_bytes()
    for _ in range(2):
        output = runner.finish(workdir, code=77)
        assert (
            f"{workdir}/checkpoints held checkpoints before, but holds none now; restore them"
            in output
        )
        assert "Traceback" not in output
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_fault_06_a_run_that_was_killed_before_its_first_save_starts_anew(
    runner, finished, tmp_path
):
    workdir = tmp_path / "run"
    with runner.train(workdir, "--config.checkpoint.every_epochs=1000") as job:
        assert job.until(lambda job: "\nepoch 3/" in job.output)
        job.send(signal.SIGKILL)
        assert job.end() == -signal.SIGKILL
    assert len((workdir / "metrics.jsonl").read_text().splitlines()) >= 3
    assert not positions(DiskFolder(workdir / "checkpoints"))
    output = runner.finish(workdir)
    assert "resuming" not in output
    finished.assert_same(workdir)


def test_fault_07_changed_data_model_or_seed_is_refused_and_a_schedule_noted(
    runner, finished, tmp_path
):
    workdir = finished.copy(tmp_path / "run")
    output = runner.finish(
        workdir, "--config.seed=3", "--config.model.filters=8", "--config.data.gc=0.5", code=2
    )
    assert "data.gc: 0.4 -> 0.5; model.filters: 16 -> 8; seed: 0 -> 3" in output
    output = runner.finish(workdir, "--config.train.epochs=9", "--config.checkpoint.keep=2")
    assert "note     changed since this run began: checkpoint.keep: 3 -> 2" in output
    assert "note     changed since this run began: train.epochs: 8 -> 9" in output
    assert positions(DiskFolder(workdir / "checkpoints")) == [(8, 0), (9, 0)]


def big_state(size=3_000_000):
    params = {"layer": {"kernel": jnp.arange(size, dtype=jnp.float32)}}
    return TrainState(jnp.int32(1), jnp.zeros(2, jnp.uint32), params, (jnp.ones(size),))


def begun(epoch=1):
    rows = [
        {"epoch": i + 1, "step": i + 1, "train_loss": 0.5, "train_accuracy": 0.5, "val_loss": 0.5,
         "val_accuracy": 0.5, "val_auroc": None, "seconds": 0.1}
        for i in range(epoch)
    ]  # fmt: skip
    return NetworkProgress(EarlyStopping("val_loss", 0, 0.0, 0.69), epoch=epoch, rows=rows)


def abstract(state):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )


def test_fault_17_a_checkpoint_holds_the_values_at_the_call(tmp_path):
    """The next step gets the state donated, and overwrites it, while the save still reads."""
    overwrite = jax.jit(lambda state: jax.tree.map(lambda x: x * 0 + 7, state), donate_argnums=0)
    state = big_state()
    checkpoints = Checkpoints(DiskFolder(tmp_path), keep=2)
    expected, target = jax.tree.map(np.array, state), abstract(state)
    best = jax.tree.map(jnp.copy, state.params)
    checkpoints.save(state, best, begun())
    for _ in range(3):
        state = jax.block_until_ready(overwrite(state))
    assert state.params["layer"]["kernel"][5] == 7
    checkpoints.wait()
    restored = checkpoints.restore(target, print)
    assert restored is not None
    jax.tree.map(np.testing.assert_array_equal, restored[0], expected)


def test_fault_16_the_best_parameters_are_read_while_a_job_saves_and_removes(tmp_path):
    """Whatever is chosen may be gone, or half gone, when it is read: there is a newer one then."""
    state, damaged = big_state(1_000), []
    checkpoints = Checkpoints(DiskFolder(tmp_path), keep=1)
    checkpoints.save(state, state.params, begun())
    checkpoints.wait()

    def save_and_remove():
        for epoch in range(2, 40):
            checkpoints.save(state, state.params, begun(epoch))
        checkpoints.wait()

    with ThreadPoolExecutor() as pool:
        saving = pool.submit(save_and_remove)
        while not saving.done():
            load_best(DiskFolder(tmp_path / "checkpoints"), abstract(state).params, damaged.append)
        saving.result()
    assert damaged == []


def poll(checkpoints):
    """What the loop does between two calls."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        checkpoints.check()


def test_fault_18_a_failed_save_surfaces_at_the_next_step_and_is_no_latest(tmp_path):
    folder, state = tmp_path / "checkpoints", big_state()
    checkpoints = Checkpoints(DiskFolder(tmp_path), keep=2)
    checkpoints.save(state, state.params, begun(1))
    checkpoints.wait()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))  # no file may grow beyond 64 KiB
    try:
        checkpoints.save(state, state.params, begun(2))
        with pytest.raises(StorageError, match=f"the checkpoint cannot be written to {folder}"):
            poll(checkpoints)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in folder.iterdir()] == ["epoch-1"]
    assert positions(DiskFolder(folder)) == [(1, 0)]
    checkpoints.save(state, state.params, begun(2))  # and the next save is as good as any
    checkpoints.wait()
    assert positions(DiskFolder(folder)) == [(1, 0), (2, 0)]


def test_fault_20_restoring_unpickles_nothing_and_executes_nothing(runner, finished):
    """Python's own audit events of `evaluate` on a run folder: no pickle, no exec of its files."""
    script = f"""
import sys
from jaxdna.cli import main
import jaxdna.runs.loop, jaxdna.strategies.prepare, jaxdna.cli.evaluate
def hook(event, arguments):
    if event == "pickle.find_class" or (
        event in ("compile", "exec", "import") and {str(finished.path)!r} in str(arguments)):
        print("AUDIT", event, arguments)
sys.addaudithook(hook)
import pickle; pickle.loads(pickle.dumps(print))
print("BEGIN", flush=True)
sys.exit(main.main(["evaluate", "--workdir={finished.path}", "--json"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    control, _, rest = done.stdout.partition("BEGIN")
    assert "AUDIT pickle.find_class" in control  # the hook does hear
    assert "AUDIT" not in rest
    assert json.loads(rest.splitlines()[-1])["params_sha256"] == finished.sha


def rewritten(folder, change):
    """Changes the declared shape or the JSON of a checkpoint and signs it with new digests."""
    for path in folder.rglob("*"):
        if path.is_file():
            change(path)
    (folder / "manifest.json").unlink()
    write_manifest(DiskFolder(folder))


def test_fault_20_a_hostile_checkpoint_cannot_claim_more_memory_than_the_model_has(
    finished, tmp_path
):
    state = big_state(100)
    checkpoints = Checkpoints(DiskFolder(tmp_path), keep=2)
    checkpoints.save(big_state(1_000), big_state(1_000).params, begun())
    checkpoints.wait()
    with pytest.raises(NoCheckpointError, match=r"kernel is float32\(1000,\), but the model's"):
        checkpoints.restore(abstract(state), print)

    folder = tmp_path / "checkpoints" / "epoch-1"

    def deep(path):
        if path.name == "progress.json":
            path.write_text("[" * 100_000)

    rewritten(folder, deep)
    with pytest.raises(NoCheckpointError, match=r"progress.json is not JSON"):
        checkpoints.restore(abstract(big_state(1_000)), print)
    (folder / "progress.json").unlink()
    os.mkfifo(folder / "progress.json")  # opening it would wait for ever
    assert stat.S_ISFIFO((folder / "progress.json").stat().st_mode)
    with pytest.raises(NoCheckpointError, match=r"progress.json is not a regular file"):
        checkpoints.restore(abstract(big_state(1_000)), print)
    (folder / "progress.json").unlink()
    (folder / "progress.json").symlink_to("/etc/hostname")
    with pytest.raises(NoCheckpointError, match=r"progress.json is not a regular file"):
        checkpoints.restore(abstract(big_state(1_000)), print)
