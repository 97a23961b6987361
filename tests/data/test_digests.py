"""Digests are remembered while a file stays as it is, and no longer."""

import hashlib
import os
import resource
import time

import pytest

from jaxdna.data import digests
from jaxdna.data.digests import file_digest
from jaxdna.errors import UserError


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Digests with a memory; `read.count` is how often a file was read for it."""
    monkeypatch.setattr(digests, "_SETTLED_SECONDS", 0.0)
    whole = hashlib.file_digest

    def counted(*given):
        call.count += 1
        return whole(*given)

    def call(path):
        time.sleep(0.05)  # more than the resolution of a file's times
        return file_digest(path, tmp_path / "memory")

    call.count = 0
    monkeypatch.setattr(digests.hashlib, "file_digest", counted)
    return call


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_a_file_that_stays_is_read_once_under_all_its_names(tmp_path, read):
    (tmp_path / "a").write_bytes(b"ACGT")
    (tmp_path / "link").symlink_to("a")
    assert [read(tmp_path / name) for name in ("a", "a", "link")] == [sha256(b"ACGT")] * 3
    assert read.count == 1


def test_other_bytes_are_noticed_though_size_and_time_are_set_back(tmp_path, read):
    path = tmp_path / "a"
    path.write_bytes(b"ACGT")
    assert read(path) == sha256(b"ACGT")
    before = path.stat()
    path.write_bytes(b"ACGA")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert read(path) == sha256(b"ACGA")


def test_another_file_in_its_place_is_noticed(tmp_path, read):
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"ACGT")
    other.write_bytes(b"TTTT")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    assert read(path) == sha256(b"ACGT")
    other.rename(path)
    assert read(path) == sha256(b"TTTT")


def test_a_file_that_was_just_written_is_not_remembered(tmp_path, read, monkeypatch):
    monkeypatch.setattr(digests, "_SETTLED_SECONDS", 60.0)
    (tmp_path / "a").write_bytes(b"ACGT")
    assert [read(tmp_path / "a") for _ in range(2)] == [sha256(b"ACGT")] * 2
    assert read.count == 2


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"state": [], "sha256": 1}', b"\xff\0"])
def test_a_damaged_memory_is_made_anew(tmp_path, read, content):
    (tmp_path / "a").write_bytes(b"ACGT")
    read(tmp_path / "a")
    (remembered,) = (tmp_path / "memory").iterdir()
    remembered.write_bytes(content)
    assert read(tmp_path / "a") == sha256(b"ACGT")
    assert read(tmp_path / "a") == sha256(b"ACGT")
    assert read.count == 2


def test_a_memory_that_cannot_be_written_changes_nothing(tmp_path, read):
    (tmp_path / "memory").write_text("a file")
    (tmp_path / "a").write_bytes(b"ACGT")
    assert [read(tmp_path / "a") for _ in range(2)] == [sha256(b"ACGT")] * 2


def test_a_memory_without_room_leaves_nothing_behind(tmp_path, read):
    (tmp_path / "a").write_bytes(b"ACGT")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))  # bytes of a file, then a write fails
    try:
        assert read(tmp_path / "a") == sha256(b"ACGT")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "memory").iterdir()) == []


@pytest.mark.parametrize(("name", "words"), [("absent", "no such file"), (".", "is a directory")])
def test_what_cannot_be_read_is_one_sentence(tmp_path, name, words):
    with pytest.raises(UserError, match=words):
        file_digest(tmp_path / name, tmp_path / "memory")
    with pytest.raises(UserError, match="stdin"):
        file_digest("-")
