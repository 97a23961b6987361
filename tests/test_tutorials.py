"""The commands of quick start and tutorials run, in turn, in an empty folder.

Where they take minutes, on less data; `tools/run_docs.py` runs those of every page as they stand.
"""

import stat
import subprocess
import sys
import time

import psutil
import pytest

from tools.run_docs import REPOSITORY, run, script

# Flags that are added to each `train` and `simulate`.
SMALL = {
    "index": "--config.data.train_examples=640 --config.data.validation_examples=200 "
    "--config.data.test_examples=200 --config.data.length=120 --config.train.epochs=3",
    "tutorials/fasta_to_motif": "",
    "tutorials/report_experiment": "--config.data.train_examples=2000 "
    "--config.data.validation_examples=400 --config.data.test_examples=400 "
    "--config.data.length=120 --config.train.epochs=4",
}


@pytest.mark.parametrize("tutorial", SMALL)
def test_the_commands_of_a_tutorial_run(tutorial, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    commands = script(REPOSITORY / "docs" / f"{tutorial}.md")
    command = tmp_path / "bin" / "jaxdna"
    command.parent.mkdir()
    smaller = f'case "$1" in train|simulate) set -- "$@" {SMALL[tutorial]};; esac'
    command.write_text(f'#!/bin/sh\n{smaller}\nexec {sys.executable} -m jaxdna "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    code = run(commands, tmp_path, first=command.parent, timeout=900)
    shown, said = capfd.readouterr()
    assert code == 0, said[-3000:]
    expected = {
        "index": ("95 % interval", "id\tprobability\tlogit\tnote", "Bayes ceiling", "filter0"),
        "tutorials/fasta_to_motif": (
            "TAL1_known4",
            "recall at 10% FDR",
            "id\tprobability\tlogit\tnote",
        ),
        "tutorials/report_experiment": ("TAL1_known4", "Bayes ceiling", '"epoch": 3'),
    }
    for words in expected[tutorial]:
        assert words in shown


def test_commands_that_hang_are_ended_with_all_that_they_have_started(tmp_path):
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        run("sleep 60 & echo $! > pid; wait", tmp_path, timeout=1)
    assert time.monotonic() - began < 30
    pid = int((tmp_path / "pid").read_text())

    def ended():
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    deadline = time.monotonic() + 20  # a signal is delivered when the machine has a moment
    while not ended() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ended()
