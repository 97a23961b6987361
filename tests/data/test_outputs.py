"""Files of answers: whole or absent, whatever becomes of the command that writes them."""

import os

import pytest

from jaxdna.data.prediction_files import open_output


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
