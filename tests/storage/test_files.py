"""What is written into a folder is whole, on the disk, and nowhere else."""

import os
import shutil
import threading
import time

import pytest

from jaxdna.errors import UserError
from jaxdna.runs.cross_validation import fold_folder
from jaxdna.runs.run_folder import RunFolder
from jaxdna.storage.disk import DiskFolder
from jaxdna.storage.files import FolderLost
from jaxdna.storage.made_once import made_once
from jaxdna.storage.manifest import damage
from tools.lossy_disk import LossyDisk


@pytest.fixture
def disk(tmp_path):
    try:
        with LossyDisk(tmp_path) as disk:
            yield disk
    except OSError as error:
        pytest.skip(f"no file system whose power can be cut: {error}")


def test_what_was_written_outlives_a_power_cut(disk):
    run = disk.path / "runs" / "a"
    folder = DiskFolder(run)
    folder.make("deep/below")
    folder.write("config.json", "old" * 2000)
    folder.write("config.json", "new" * 2000)
    folder.write("metrics.jsonl", "row\n")
    folder.append("metrics.jsonl", "another row\n")
    (folder.place("deep/below") / "arrays").write_bytes(b"of a library" * 1000)
    folder.flush("deep")
    folder.rename("deep", "whole")
    folder.make("gone")
    lost = run / "lost"
    lost.write_text("by hand, and not flushed" * 100)
    disk.fail()
    del folder  # it has the folder open
    disk.start_again()
    assert (run / "config.json").read_text() == "new" * 2000
    assert (run / "metrics.jsonl").read_text() == "row\nanother row\n"
    assert (run / "whole" / "below" / "arrays").read_bytes() == b"of a library" * 1000
    assert not lost.exists() or not lost.read_text()  # the disk does lose what nobody flushes


def test_a_folder_that_is_made_once_outlives_a_power_cut_whole(disk):
    target = disk.path / "cache" / "a"

    def fill(folder):
        (folder / "below").mkdir()
        (folder / "below" / "codes").write_bytes(b"codes" * 10_000)

    made_once(target, fill)
    disk.fail()
    disk.start_again()
    assert damage(DiskFolder(target)) is None


WRITERS = {
    "write": lambda folder, name: folder.write(name, "x"),
    "append": lambda folder, name: folder.append(name, "x"),
    "make": lambda folder, name: folder.make(name),
    "rename to": lambda folder, name: folder.rename("own", name),
    "flush": lambda folder, name: folder.flush(name),
}


@pytest.mark.parametrize("name", ["link", "link/below", "link/below/deep"])
@pytest.mark.parametrize("writer", WRITERS)
def test_nothing_is_written_through_a_link(tmp_path, writer, name):
    outside = tmp_path / "outside"
    (outside / "below").mkdir(parents=True)
    (outside / "below" / "deep").write_text("theirs")
    folder = DiskFolder(tmp_path / "run")
    folder.make()
    folder.write("own", "")
    (folder.path / "link").symlink_to(outside)
    before = sorted(outside.rglob("*"))
    with pytest.raises(UserError, match="run/link is a symbolic link: nothing is written through"):
        WRITERS[writer](folder, name)
    assert sorted(outside.rglob("*")) == before
    assert (outside / "below" / "deep").read_text() == "theirs"
    folder.remove("link")  # the link itself
    assert sorted(outside.rglob("*")) == before
    assert folder.names() == ["own"]


def test_the_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "run").symlink_to("scratch")
    folder = DiskFolder(tmp_path / "run")
    folder.make("deep")
    folder.write("deep/file", "x")
    assert (tmp_path / "scratch" / "deep" / "file").read_text() == "x"


@pytest.mark.parametrize(
    "name", [".lock", "checkpoints", "tensorboard/train", "metrics.jsonl", "report.html"]
)
def test_training_refuses_a_link_before_any_work(tmp_path, name):
    target = tmp_path / "target"
    target.write_text("theirs")
    run = RunFolder(tmp_path / "run")
    (run.path / name).parent.mkdir(parents=True)
    (run.path / name).symlink_to(target)
    with pytest.raises(UserError, match=f"{name} is a symbolic link"), run.locked(print):
        pass
    assert target.read_text() == "theirs"


def test_the_folder_of_a_fold_is_inside_of_the_run_folder(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "fold1").symlink_to(outside)
    fold = fold_folder(tmp_path / "run", 1)
    with pytest.raises(UserError, match="fold1 is a symbolic link"), fold.locked(print):
        pass
    assert not any(outside.iterdir())


def leave(path):
    pass


@pytest.mark.parametrize("replace", [leave, os.mkdir, lambda path: path.write_text("a file")])
@pytest.mark.parametrize("lose", [lambda path: path.rename(f"{path}.away"), shutil.rmtree])
def test_a_folder_that_was_moved_or_replaced_gets_nothing(tmp_path, lose, replace):
    folder = DiskFolder(tmp_path / "run")
    folder.make("checkpoints")
    lose(folder.path)
    replace(folder.path)
    before = sorted(tmp_path.rglob("*"))
    for writer in (*WRITERS.values(), DiskFolder.remove):
        with pytest.raises(FolderLost, match="run was moved, removed or replaced while"):
            writer(folder, "checkpoints")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_is_moved_just_after_a_look_is_not_made_anew(tmp_path):
    folder = DiskFolder(tmp_path / "run")
    folder.make()
    folder.guard = lambda: folder.path.rename(tmp_path / "away")  # asked once the folder was seen
    with pytest.raises(FileNotFoundError):
        folder.make("checkpoints")
    assert os.listdir(tmp_path) == ["away"]


def test_what_a_late_writer_makes_where_the_folder_was_goes_at_once(tmp_path):
    """Not only when all is quiet: the process may be ended by another one's failure before."""
    folder = DiskFolder(tmp_path / "run")
    folder.begin("checkpoints/epoch-2")
    folder.path.rename(tmp_path / "away")
    refused = []

    def discard():
        with pytest.raises(FolderLost) as lost:
            folder.discard("checkpoints/epoch-2")
        refused.append(lost)

    waiting = threading.Thread(target=discard)
    waiting.start()
    for _ in range(3):
        (tmp_path / "run" / folder.unfinished("checkpoints/epoch-2") / "arrays").mkdir(parents=True)
        until = time.monotonic() + 2
        while (tmp_path / "run").exists() and time.monotonic() < until:
            time.sleep(0.01)
        assert os.listdir(tmp_path) == ["away"] and waiting.is_alive()
    waiting.join()
    assert refused and os.listdir(tmp_path) == ["away"]


def test_readers_see_the_old_file_or_the_new_one(tmp_path):
    folder, seen, done = DiskFolder(tmp_path), set(), threading.Event()
    folder.write("file", "a" * 100_000)

    def read():
        while not done.is_set():
            seen.update(set((tmp_path / "file").read_text()))

    reader = threading.Thread(target=read)
    reader.start()
    for letter in "bcdefgh":
        folder.write("file", letter * 100_000)
        text = (tmp_path / "file").read_text()
        assert text == letter * 100_000
    done.set()
    reader.join()
    assert folder.names() == ["file"]
    assert seen <= set("abcdefgh")
