"""Files of answers: whole or absent, whatever becomes of the command that writes them."""

import os
import subprocess
import sys

import pytest

from jaxdna.cli.main import main
from jaxdna.data.prediction_files import open_output
from jaxdna.storage.disk import DiskFolder

SIMULATE = [
    "simulate", "--config=configs/tal1.py", "--config.data.length=50",
    *(f"--config.data.{split}_examples=20" for split in ("train", "validation", "test")),
]  # fmt: skip
# Each stops amid its work, says so, and waits.
STOPPED = {
    "simulate": f"""
from jaxdna.cli.main import main
from jaxdna.data import simulated_files
rows = simulated_files.table_rows
simulated_files.table_rows = lambda *of: (stop() or row for row in rows(*of))
main({SIMULATE} + ["--output=" + sys.argv[1]])
""",
    "write": """
import os
from pathlib import Path
from jaxdna.storage.disk import DiskFolder
os.fsync = lambda handle: stop()
DiskFolder(Path(sys.argv[1]).parent).write(Path(sys.argv[1]).name, "theirs")
""",
}
AGAIN = {
    "simulate": lambda path: main([*SIMULATE, f"--output={path}"]),
    "write": lambda path: DiskFolder(path.parent).write(path.name, "ours"),
}


def test_what_a_killed_command_left_is_removed_and_nobody_elses_files_are(tmp_path):
    def part(name, age):
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, times=(0, (tmp_path / name).stat().st_mtime - age))

    part(".x[1].tsv.abcd_123.part", 60)  # of a killed command
    part(".x[1].tsv.abcd_456.part", 0)  # of one that has not locked it yet
    part(".x1.tsv.abcd_123.part", 60)
    part(".x[1].tsv.abcd_123", 60)
    path = str(tmp_path / "x[1].tsv")
    with open_output(path) as stream:
        stream.write("first")
        [ours] = set(os.listdir(tmp_path)) - {
            ".x[1].tsv.abcd_456.part", ".x1.tsv.abcd_123.part", ".x[1].tsv.abcd_123"
        }  # fmt: skip
        stream.flush()
        os.utime(tmp_path / ours, times=(0, 0))
        with open_output(path) as other:  # finds one at work, however old
            other.write("second")
        assert (tmp_path / "x[1].tsv").read_text() == "second"
    assert (tmp_path / "x[1].tsv").read_text() == "first"
    assert len(os.listdir(tmp_path)) == 4


def test_nothing_is_left_where_writing_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), open_output(str(tmp_path / "y.tsv.gz")):
        raise ZeroDivisionError
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("writer", STOPPED)
def test_the_next_command_removes_what_sigkill_left_and_nothing_of_one_at_work(tmp_path, writer):
    stop = "import sys\ndef stop():\n    print('amid', flush=True)\n    sys.stdin.read()\n"
    command = [sys.executable, "-c", stop + STOPPED[writer], tmp_path / "x"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as job:
        assert job.stdout.readline() == b"amid\n"
        [part] = tmp_path.glob(".x.*")
        os.utime(part, times=(0, 0))  # at work for long
        before = sorted(tmp_path.rglob("*"))
        AGAIN[writer](tmp_path / "x")
        assert set(before) < set(tmp_path.rglob("*"))
        job.kill()
    (tmp_path / "x").rename(tmp_path / "y")
    AGAIN[writer](tmp_path / "x")
    assert sorted(os.listdir(tmp_path)) == ["x", "y"]


def test_a_folder_that_we_did_not_make_stays(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_text("theirs")
    (tmp_path / ".x.abcd_123.part").symlink_to("theirs")
    (tmp_path / ".x.abcd_456.part" / "folder").mkdir(parents=True)
    for path in tmp_path.iterdir():
        os.utime(path, times=(0, 0))
    before = set(tmp_path.rglob("*"))
    AGAIN["simulate"](tmp_path / "x")
    assert before < set(tmp_path.rglob("*"))
