"""The memory-mapped store holds what its inputs hold, and is made once."""

import errno
import fcntl
import gzip
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from jaxdna.data import store_writer, streams
from jaxdna.data.code_store import find_or_make, open_store
from jaxdna.data.digests import file_digest
from jaxdna.data.fasta import read_fasta_blocks
from jaxdna.data.sequences import decode
from jaxdna.errors import UserError


@pytest.fixture
def inputs(tmp_path):
    rng = np.random.default_rng(0)
    for name, records, low, high in (("p.fa", 40, 20, 30), ("n.fa", 30, 25, 26)):
        lines = [
            f">{name[0]}{i} x\n" + "".join(rng.choice(list("ACGTN"), rng.integers(low, high)))
            for i in range(records)
        ]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    return [tmp_path / "p.fa", tmp_path / "n.fa"]


def sequences(paths):
    return [line for path in paths for line in path.read_text().split("\n")[1::2]]


def convert(paths, cache, made=None, **lengths):
    """Stores FASTA files; `made` gets an entry for each time that they are read."""

    def fill(writer):
        for path in paths:
            writer.add(path, read_fasta_blocks(path))
        if made is not None:
            made.append(paths)

    return find_or_make([file_digest(path) for path in paths], cache, fill, **lengths)


def test_ids_lengths_and_counts_are_those_of_the_files(inputs, tmp_path):
    store = convert(inputs, tmp_path / "cache", lengths="pad")
    assert store.lengths.tolist() == [len(text) for text in sequences(inputs)]
    assert store.counts == (40, 30)
    assert store.ids == [f"p{i}" for i in range(40)] + [f"n{i}" for i in range(30)]
    assert isinstance(store.codes, np.memmap)
    assert store.codes.dtype == np.uint8


@pytest.mark.parametrize("lengths", ["pad", "center_crop"])
def test_a_changed_part_has_the_lengths_of_the_first_one(inputs, tmp_path, lengths):
    """Here each sequence is turned round, before it is padded or cropped."""

    def fill(writer):
        writer.add("p.fa", read_fasta_blocks(inputs[0]))
        writer.add_changed("_turned", turn)
        writer.add_column("x", np.arange(3))

    def turn(records, out, _):
        for first, last in zip(records.offsets, records.offsets[1:], strict=False):
            out[first:last] = records.codes[first:last][::-1]

    store = find_or_make("turned", tmp_path / "cache", fill, lengths)
    texts = sequences(inputs[:1])
    (tmp_path / "t.fa").write_text("".join(f">{i}\n{t[::-1]}\n" for i, t in enumerate(texts)))
    both = convert([inputs[0], tmp_path / "t.fa"], tmp_path / "cache", lengths=lengths)
    np.testing.assert_array_equal(store.codes, both.codes)
    np.testing.assert_array_equal(store.lengths, both.lengths)
    assert store.ids == [f"p{i}{end}" for end in ("", "_turned") for i in range(40)]
    assert (store.counts, store.shortest) == (both.counts, both.shortest)
    assert store.columns["x"].tolist() == [0, 1, 2]


def test_names_with_odd_letters_stay_apart(inputs, tmp_path):
    def fill(writer):
        for block in read_fasta_blocks(inputs[1]):
            block.ids[:3] = ["a\rb", "\x85", "naïve \u2028"]
            writer.add("n.fa", [block])

    ids = find_or_make("odd", tmp_path / "cache", fill).ids
    assert ids[:4] == ["a\rb", "\x85", "naïve \u2028", "n3"]


@pytest.mark.parametrize("block", [50, 2**20])
def test_padded_and_cropped_stores_have_centred_rows(inputs, tmp_path, monkeypatch, block):
    monkeypatch.setattr(streams, "BLOCK_BYTES", block)
    monkeypatch.setattr(store_writer, "_CHUNK_BASES", block)
    letters = sequences(inputs)
    for policy, length in (
        ("pad", max(map(len, letters))),
        ("center_crop", min(map(len, letters))),
    ):
        store = convert(inputs, tmp_path / "cache", lengths=policy)
        assert store.codes.shape == (70, length)
        for row, text in zip(store.codes, letters, strict=True):
            spare = abs(length - len(text)) // 2
            if policy == "pad":
                expected = "N" * spare + text + "N" * (length - len(text) - spare)
            else:
                expected = text[spare : spare + length]
            assert decode(row) == expected
        done = "padded" if policy == "pad" else "cropped"
        assert any(done in note for note in store.notes[0])


@pytest.mark.parametrize("block", [50, 2**20])
def test_lengths_that_differ_are_an_error_that_knows_the_whole_file(
    inputs, tmp_path, monkeypatch, block
):
    monkeypatch.setattr(streams, "BLOCK_BYTES", block)
    with pytest.raises(UserError) as caught:
        convert(inputs, tmp_path / "cache", lengths="error", length=25)
    wrong = [(i, len(s)) for i, s in enumerate(sequences(inputs[:1])) if len(s) != 25]
    named = ", ".join(f"'p{i}' ({bases})" for i, bases in wrong[:3])
    assert f"p.fa: records {named} and {len(wrong) - 3} more are not 25 bases" in str(caught.value)
    with pytest.raises(UserError, match="length=20 or less"):
        convert(inputs, tmp_path / "cache", lengths="center_crop", length=25)
    with pytest.raises(UserError, match="length=29 or more"):
        convert(inputs, tmp_path / "cache", lengths="pad", length=25)
    assert not list((tmp_path / "cache").iterdir())  # nothing half-made stays


def test_equal_lengths_need_no_length(inputs, tmp_path):
    store = convert(inputs[1:], tmp_path / "cache")
    assert store.codes.shape == (30, 25)
    assert [decode(row) for row in store.codes] == sequences(inputs[1:])
    assert store.lengths.tolist() == [25] * 30


def test_store_is_reused_until_bytes_or_settings_change(inputs, tmp_path):
    cache, made = tmp_path / "cache", []
    first = convert(inputs, cache, made, lengths="pad")
    moved = tmp_path / "moved.fa"
    inputs[0].rename(moved)
    inputs[0] = moved
    assert convert(inputs, cache, made, lengths="pad").folder == first.folder
    assert len(made) == 1
    assert convert(inputs, cache, made, lengths="center_crop").folder != first.folder
    moved.write_text(moved.read_text() + ">new\nACGT\n")
    other = convert(inputs, cache, made, lengths="pad")
    assert other.folder != first.folder
    assert other.counts == (41, 30)
    assert len(made) == 3
    assert open_store(first.folder).ids == first.ids


def test_gzip_and_plain_give_the_same_codes(inputs, tmp_path):
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(inputs[0].read_bytes()))
    one, other = (convert([path], tmp_path / "c", lengths="pad") for path in (inputs[0], packed))
    assert one.folder != other.folder
    np.testing.assert_array_equal(one.codes, other.codes)


def test_several_at_once_make_one_store(inputs, tmp_path):
    found, made = [], []
    work = [
        threading.Thread(
            target=lambda: found.append(convert(inputs, tmp_path / "cache", made, lengths="pad"))
        )
        for _ in range(6)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len({store.folder for store in found}) == 1
    assert len(found) == 6
    assert len(made) == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [found[0].folder.name]


def test_a_bad_input_leaves_nothing_behind(inputs, tmp_path):
    inputs[1].write_text(">a\nACGT\n>b\nMKL*\n")
    with pytest.raises(UserError, match="record 'b', line 4"):
        convert(inputs, tmp_path / "cache", lengths="pad")
    assert not list((tmp_path / "cache").iterdir())
    with pytest.raises(UserError, match="stdin"):
        convert(["-"], tmp_path / "cache")
    with pytest.raises(UserError, match="no such file"):
        convert([tmp_path / "absent"], tmp_path / "cache")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        convert(inputs[:1], tmp_path / "file", lengths="pad")


@pytest.mark.parametrize("name", ["codes.npy", "lengths.npy", "columns.npz", "store.json"])
@pytest.mark.parametrize("damage", ["absent", "empty", "short"])
def test_a_damaged_store_is_told_by_its_folder(inputs, tmp_path, name, damage):
    """Such as by a cleaner of caches, which takes files that nobody has read for long."""
    folder = convert(inputs, tmp_path / "cache", lengths="pad").folder
    path = folder / name
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: -50 if damage == "short" else 0])
    with pytest.raises(UserError, match=f"{folder} are damaged .*; remove that folder"):
        convert(inputs, tmp_path / "cache", lengths="pad")
    shutil.rmtree(folder)
    assert len(convert(inputs, tmp_path / "cache", lengths="pad")) == 70


def test_what_a_killed_conversion_left_is_removed_by_the_next(inputs, tmp_path):
    script = """
import os, sys
from jaxdna.data.code_store import find_or_make
from jaxdna.data.fasta import read_fasta_blocks
def fill(writer):
    writer.add("n.fa", read_fasta_blocks(sys.argv[1]))
    os._exit(3)
find_or_make("n", sys.argv[2], fill)
"""
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", script, str(inputs[1]), str(cache)]
    assert subprocess.run(command, timeout=60).returncode == 3
    assert [path.name[:9] for path in cache.iterdir() if path.is_dir()] == [".partial-"]
    store = find_or_make("n", cache, lambda w: w.add("n.fa", read_fasta_blocks(inputs[1])))
    assert list(cache.iterdir()) == [store.folder]
    assert len(store) == 30


def test_without_locks_each_makes_the_store_and_one_is_kept(inputs, tmp_path, monkeypatch):
    def no_lock(handle, how):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", no_lock)
    cache, at_once, made = tmp_path / "cache", threading.Barrier(2), []

    def fill(writer):
        at_once.wait(timeout=30)
        writer.add("n.fa", read_fasta_blocks(inputs[1]))
        made.append(1)

    work = [threading.Thread(target=find_or_make, args=("n", cache, fill)) for _ in range(2)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(made) == 2
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1
    assert len(convert(inputs[1:], cache)) == 30
