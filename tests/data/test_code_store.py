"""The memory-mapped store holds what the FASTA files hold, and is made once."""

import gzip
import threading

import numpy as np
import pytest

from jaxdna.data import code_store, streams
from jaxdna.data.code_store import convert, open_store
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


def test_ragged_store_equals_the_files(inputs, tmp_path):
    store = convert(inputs, tmp_path / "cache", lengths="any")
    records = store.records()
    assert [decode(records[i]) for i in range(len(store))] == sequences(inputs)
    assert store.counts == (40, 30)
    assert store.ids == [f"p{i}" for i in range(40)] + [f"n{i}" for i in range(30)]
    assert isinstance(store.codes, np.memmap)
    assert store.codes.dtype == np.uint8


@pytest.mark.parametrize("block", [50, 2**20])
def test_padded_and_cropped_stores_have_centred_rows(inputs, tmp_path, monkeypatch, block):
    monkeypatch.setattr(streams, "BLOCK_BYTES", block)
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


def test_lengths_that_differ_are_an_error_that_names_the_first(inputs, tmp_path):
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
    np.testing.assert_array_equal(store.offsets, np.arange(31) * 25)


def test_store_is_reused_until_bytes_or_settings_change(inputs, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = convert(inputs, cache, lengths="any")
    moved = tmp_path / "moved.fa"
    inputs[0].rename(moved)
    monkeypatch.setattr(code_store, "_write", None)  # a second conversion would fail
    assert convert([moved, inputs[1]], cache, lengths="any").folder == first.folder
    monkeypatch.undo()
    assert convert([moved, inputs[1]], cache, lengths="pad").folder != first.folder
    moved.write_text(moved.read_text() + ">new\nACGT\n")
    other = convert([moved, inputs[1]], cache, lengths="any")
    assert other.folder != first.folder
    assert other.counts == (41, 30)
    assert other.digests[1] == first.digests[1]
    assert open_store(first.folder).ids == first.ids


def test_gzip_and_plain_give_the_same_codes(inputs, tmp_path):
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(inputs[0].read_bytes()))
    one, other = (convert([path], tmp_path / "c", lengths="pad") for path in (inputs[0], packed))
    assert one.digests != other.digests
    np.testing.assert_array_equal(one.codes, other.codes)


def test_several_at_once_make_one_store(inputs, tmp_path):
    found = []
    work = [
        threading.Thread(
            target=lambda: found.append(convert(inputs, tmp_path / "cache", lengths="any"))
        )
        for _ in range(6)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len({store.folder for store in found}) == 1
    assert len(found) == 6
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [found[0].folder.name]


def test_a_bad_input_leaves_nothing_behind(inputs, tmp_path):
    inputs[1].write_text(">a\nACGT\n>b\nMKL*\n")
    with pytest.raises(UserError, match="record 'b', line 4"):
        convert(inputs, tmp_path / "cache", lengths="any")
    assert not list((tmp_path / "cache").iterdir())
    with pytest.raises(UserError, match="stdin"):
        convert(["-"], tmp_path / "cache")
    with pytest.raises(UserError, match="no such file"):
        convert([tmp_path / "absent"], tmp_path / "cache")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        convert(inputs[:1], tmp_path / "file", lengths="any")
