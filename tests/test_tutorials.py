"""The shell blocks of quick start and tutorials run as they stand, in turn, in an empty folder."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent

# At full size these take minutes: the same commands on fewer sequences.
SMALL = {
    "index": "--config.data.train_examples=640 --config.data.validation_examples=200 "
    "--config.data.test_examples=200 --config.data.length=120 --config.train.epochs=3",
    "tutorials/fasta_to_motif": "",
    "tutorials/report_experiment": "--config.data.train_examples=2000 "
    "--config.data.validation_examples=400 --config.data.test_examples=400 "
    "--config.data.length=120 --config.train.epochs=4",
}


@pytest.mark.parametrize("tutorial", SMALL)
def test_the_commands_of_a_tutorial_run(tutorial, tmp_path):
    text = (REPOSITORY / "docs" / f"{tutorial}.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 4
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    command = tmp_path / "bin" / "jaxdna"
    command.parent.mkdir()
    smaller = f'case "$1" in train|simulate) set -- "$@" {SMALL[tutorial]};; esac'
    command.write_text(f'#!/bin/sh\n{smaller}\nexec {sys.executable} -m jaxdna "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    done = subprocess.run(
        ["bash", "-eu", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "PATH": f"{command.parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        },
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
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
        assert words in done.stdout
