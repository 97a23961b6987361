"""Rows 26 and 27 of the table of faults: processes that disagree, hosts without a common folder."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from jaxdna.config import load_config
from jaxdna.parallel.cluster import free_port
from jaxdna.runs.run_folder import RunFolder
from tests.faults.conftest import SHORT

ONE = ["--config.train.epochs=1"]


def joining(port, process):
    flags = {"coordinator": f"127.0.0.1:{port}", "processes": 2, "process_id": process}
    return [f"--config.cluster.{key}={value}" for key, value in flags.items()]


def start_two(runner, *arguments, own=((), ()), folders=(None, None)):
    """Starts the same command as two processes, each with flags and a working folder of its own."""
    port = free_port()
    return [runner.start(*arguments, *joining(port, i), *own[i], folder=folders[i]) for i in (0, 1)]


def assert_all_end_with(sentence, jobs):
    assert [job.end() for job in jobs] == [2, 2], [job.output for job in jobs]
    for job in jobs:
        assert job.output.splitlines()[-1].startswith(f"jaxdna: {sentence}"), job.output
        assert "Traceback" not in job.output


@pytest.mark.parametrize(
    ("key", "first", "second"),
    [("seed", 0, 1), ("optimizer.learning_rate", 0.001, 0.01), ("checkpoint.every_epochs", 1, 2)],
)
def test_fault_26_processes_with_other_settings_end_with_the_key_and_both_values(
    runner, tmp_path, key, first, second
):
    own = [f"--config.{key}={first}"], [f"--config.{key}={second}"]
    jobs = start_two(runner, "train", *SHORT, f"--workdir={tmp_path / 'run'}", own=own)
    assert_all_end_with(
        f"the processes disagree: --config.{key} is {first} in process 0 and {second} in process 1",
        jobs,
    )
    assert not (tmp_path / "run").exists()


def test_fault_26_a_process_that_the_folder_refuses_says_so_to_those_that_wait(runner, tmp_path):
    begun = tmp_path / "run"
    begun.mkdir()
    settings = [flag.removeprefix("--config.") for flag in SHORT if flag.startswith("--config.")]
    RunFolder(begun).open(load_config("configs/tal1.py", settings))
    own = ["--config.seed=0"], ["--config.seed=1"]
    jobs = start_two(runner, "train", *SHORT, f"--workdir={begun}", own=own)
    assert_all_end_with(
        "the processes disagree: --config.seed is 0 in process 0 and 1 in process 1", jobs
    )


def test_fault_26_what_concerns_a_process_alone_may_differ(runner, tmp_path):
    own = (
        [],
        [
            "--config.watchdog.step=1000",
            f"--config.runtime.data_cache={tmp_path / 'cache'}",
            "--config.cluster.heartbeat_seconds=99",
        ],
    )
    jobs = start_two(runner, "train", *SHORT, *ONE, f"--workdir={tmp_path / 'run'}", own=own)
    assert [job.end(300) for job in jobs] == [0, 0], [job.output for job in jobs]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    """Two working folders with files of the same names, whose positives differ in one base."""
    rng = np.random.default_rng(0)
    letters = rng.choice(list("ACGT"), (400, 40))
    folders = [tmp_path_factory.mktemp(f"host{i}") for i in (0, 1)]
    for folder in folders:
        for name, rows in (("bound.fa", letters[:200]), ("unbound.fa", letters[200:])):
            records = (f">{name}{i}\n{''.join(row)}\n" for i, row in enumerate(rows))
            (folder / name).write_text("".join(records))
        letters[7, 7] = "A" if letters[7, 7] != "A" else "C"
    return folders


OF_FILES = [
    "--config=fasta",
    "--config.data.positives=bound.fa",
    "--config.data.negatives=unbound.fa",
    "--config.train.epochs=1",
    "--config.runtime.platform=cpu",
]


def test_fault_26_processes_with_another_data_file_end_with_its_name_and_both_digests(
    runner, tmp_path, hosts
):
    train = ["train", *OF_FILES, f"--workdir={tmp_path / 'run'}"]
    jobs = start_two(runner, *train, own=([], []), folders=hosts)
    assert_all_end_with("the processes disagree: bound.fa is SHA-256 ", jobs)
    assert not (tmp_path / "run" / "config.json").exists()


def test_fault_26_processes_with_another_motif_file_end_with_its_name(runner, tmp_path):
    hosts = [tmp_path / "a", tmp_path / "b"]
    for i, folder in enumerate(hosts):
        folder.mkdir()
        columns = [[9 - i, 1, 1, 1 + i]] * 8
        (folder / "m.meme").write_text(
            "MEME version 4\n\nALPHABET= ACGT\n\nMOTIF one\nletter-probability matrix: alength= 4 "
            "w= 8\n" + "".join(" ".join(f"{x / 12:.6f}" for x in row) + "\n" for row in columns)
        )
    config = os.path.abspath("configs/tal1.py")
    train = ["train", *SHORT, f"--config={config}", f"--workdir={tmp_path / 'run'}"]
    jobs = start_two(runner, *train, "--config.data.motif=m.meme", folders=hosts)
    assert_all_end_with("the processes disagree: m.meme is SHA-256 ", jobs)


def test_fault_26_processes_with_another_version_of_a_package_end_with_both(tmp_path):
    other = tmp_path / "packages"
    (other / "optax-0.0.1.dist-info").mkdir(parents=True)
    (other / "optax-0.0.1.dist-info" / "METADATA").write_text("Name: optax\nVersion: 0.0.1\n")
    port = free_port()
    command = [sys.executable, "-m", "jaxdna", "train", *SHORT, f"--workdir={tmp_path / 'run'}"]
    started = [
        subprocess.Popen(
            [*command, *joining(port, i)],
            env={**os.environ, "PYTHONPATH": path},
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, path in enumerate(["", str(other)])
    ]
    said = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [2, 2], said
    for text in said:
        assert "the processes disagree: optax is " in text
        assert " in process 0 and 0.0.1 in process 1" in text


def test_fault_26_processes_that_evaluate_another_checkpoint_end_with_its_name(
    runner, finished, tmp_path
):
    """Run folders of the same settings, one of them trained in another way."""
    other = tmp_path / "other"
    shutil.copytree(finished.path, other)
    newest = other / "checkpoints" / "epoch-8"
    (newest / "manifest.json").write_text((newest / "manifest.json").read_text() + " ")
    own = [f"--workdir={finished.path}"], [f"--workdir={other}"]
    assert_all_end_with(
        "the processes disagree: the manifest of the checkpoint ",
        start_two(runner, "evaluate", own=own),
    )


def test_fault_11_an_error_of_one_process_in_evaluate_ends_the_other(runner, finished):
    evaluate = ["evaluate", f"--workdir={finished.path}"]
    jobs = start_two(runner, *evaluate, own=([], ["--config.runtime.require_accelerator=true"]))
    assert [job.end() for job in jobs] == [70, 2], [job.output for job in jobs]
    assert "another process failed first: process 1: --config.runtime.require" in jobs[0].output


def test_scoring_sequences_in_several_processes_is_one_sentence(runner, finished, tmp_path):
    (tmp_path / "x.fa").write_text(">a\n" + 15 * "ACGT" + "\n")
    predict = ["predict", f"--workdir={finished.path}", f"--sequences={tmp_path / 'x.fa'}"]
    assert_all_end_with(
        "2 processes have joined, but sequences are scored in one", start_two(runner, *predict)
    )


def test_fault_27_hosts_without_a_common_run_folder_end_before_compiling(runner, tmp_path):
    """The same relative path on both, and on each a disk of its own."""
    hosts = [tmp_path / "a", tmp_path / "b"]
    for folder in hosts:
        folder.mkdir()
    config = os.path.abspath("configs/tal1.py")
    train = ["train", *SHORT, f"--config={config}", "--workdir=runs/one"]
    jobs = start_two(runner, *train, folders=hosts)
    assert_all_end_with("--workdir=runs/one: process 1 on ", jobs)
    assert "give a folder on a disk that all hosts share" in jobs[1].output
    assert not (hosts[0] / "runs" / "one").exists()
    assert not (hosts[1] / "runs").exists()
