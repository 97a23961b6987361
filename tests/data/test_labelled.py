"""Every kind of input goes through one store, and comes out with the bits that it always had."""

import gzip
import hashlib
import os
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from genome_files import bgzip, two_bit

from jaxdna.config import flat, load_config, validate
from jaxdna.data import code_store, intervals, shuffle, store_writer, tables
from jaxdna.data import labelled as labelled_module
from jaxdna.data.dataset import SPLITS
from jaxdna.data.labelled import read_labelled
from jaxdna.data.registry import load_dataset
from jaxdna.errors import UserError

PEAKS = {"bed": "x.bed", "genome": "g.fa", "length": 60}
# SHA-256 of all splits as they were while tables and windows were still built in memory.
KINDS = [
    ({"positives": "p.fa", "negatives": "n.fa", "lengths": "pad"}, "62d8a7ef40df97d9"),
    (
        {"positives": "p.fa", "negatives": "dinucleotide_shuffle", "lengths": "pad"},
        "547b79244e0134aa",
    ),
    (
        {
            "positives": "p.fa",
            "negatives": "dinucleotide_shuffle",
            "lengths": "center_crop",
            "ambiguous": "uniform",
        },
        "e2afe803905cb8c0",
    ),
    ({"positives": "n60.fa", "negatives": "dinucleotide_shuffle"}, "aedadb0a576edab8"),
    ({"table": "t.tsv", "lengths": "pad"}, "b86b50acefa60095"),
    ({"table": "t.tsv", "lengths": "center_crop", "length": 33}, "b1641bb27f676ac4"),
    (PEAKS | {"negatives": "dinucleotide_shuffle"}, "5c3a82a817e6997e"),
    (PEAKS | {"negatives": "gc_matched"}, "59fed79ca73cf1e9"),
    (
        PEAKS | {"negatives": "gc_matched", "test_chroms": "g1", "valid_chroms": "g0"},
        "78d2421ecd9cc062",
    ),
    (PEAKS | {"negatives": "y.bed"}, "90c94f5ca4602a9a"),
    (PEAKS | {"negatives": "n.fa", "lengths": "pad"}, "2f684d79e934a36e"),
    (PEAKS | {"negatives": "n60.fa"}, "9184c967b04ff1b6"),
]
NAMES = ["-".join(map(str, data.values())) for data, _ in KINDS]


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(7)
    weights = [0.13] * 4 + [0.11] * 4 + [0.04]

    def letters(records, low, high):
        sizes = (rng.integers(low, high + 1) for _ in range(records))
        return ["".join(rng.choice(list("ACGTacgtN"), size, p=weights)) for size in sizes]

    def fasta(name, texts):
        rows = (f">{name[0]}{i}\n{text}\n" for i, text in enumerate(texts))
        (tmp_path / name).write_text("".join(rows))

    def bed(name, first, step):
        rows = (
            f"g{i}\t{at}\t{at + 40}\tp{i}_{at}\t0\t{'+-'[at // 7 % 2]}\n"
            for i in range(4)
            for at in range(first, 4900, step)
        )
        (tmp_path / name).write_text("".join(rows))

    bound, unbound = letters(70, 40, 60), letters(60, 30, 60)
    fasta("p.fa", bound)
    fasta("n.fa", unbound)
    fasta("n60.fa", letters(50, 60, 60))
    table = (f"{text}\t{i % 2}\n" for i, text in enumerate(bound))
    (tmp_path / "t.tsv").write_text("seq\tbound\n" + "".join(table))
    fasta("g.fa", letters(4, 5000, 6000))
    bed("x.bed", 10, 197)
    bed("y.bed", 100, 211)
    return tmp_path


def config(files, data, seed=0):
    leaves = flat(load_config("configs/fasta.py:small")) | {"seed": seed}
    for key, value in data.items():
        there = isinstance(value, str) and (files / value).is_file()
        leaves[f"data.{key}"] = str(files / value) if there else value
    return validate(leaves)


def digest(dataset):
    sha = hashlib.sha256()
    for name in SPLITS:
        split = dataset.splits[name]
        for part in (split.x.tobytes(), split.y.tobytes(), "\n".join(dataset.ids(name)).encode()):
            sha.update(part)
    return sha.hexdigest()[:16]


def stores(files):
    return [path.parent for path in (files / "cache" / "jaxdna" / "codes").glob("*/store.json")]


@pytest.mark.parametrize("small_blocks", [True, False])
@pytest.mark.parametrize(("data", "expected"), KINDS, ids=NAMES)
def test_splits_have_the_bits_that_they_had_in_memory(
    files, data, expected, small_blocks, monkeypatch
):
    monkeypatch.setattr(shuffle, "_CHUNK_ROWS", 16)  # part of what the numbers depend on
    if small_blocks:
        monkeypatch.setattr(intervals, "_BLOCK_BASES", 500)
        monkeypatch.setattr(store_writer, "_CHUNK_BASES", 500)
        monkeypatch.setattr(tables, "_BLOCK_ROWS", 7)
    first = load_dataset(config(files, data))
    assert digest(first) == expected
    monkeypatch.setattr(code_store, "StoreWriter", None)  # to fill another one would fail
    again = load_dataset(config(files, data))
    assert digest(again) == expected
    assert again.notes == first.notes


@pytest.mark.parametrize("ambiguous", ["zero", "uniform"])
@pytest.mark.parametrize(
    ("positives", "lengths", "length"),
    [
        ("p.fa", "pad", 0),
        ("p.fa", "pad", 71),
        ("p.fa", "center_crop", 0),
        ("p.fa", "center_crop", 30),
        ("p.fa", "center_crop", 33),
        ("n60.fa", "error", 0),
    ],
)
def test_a_shuffle_has_the_dinucleotides_of_its_original_as_the_network_sees_both(
    files, positives, lengths, length, ambiguous
):
    data = {"positives": positives, "lengths": lengths, "length": length, "ambiguous": ambiguous}
    labelled = read_labelled(config(files, data | {"negatives": "dinucleotide_shuffle"}))
    bound, shuffled = np.split(np.asarray(labelled.codes), 2)
    for one, other in zip(bound.tolist(), shuffled.tolist(), strict=True):
        assert Counter(pairwise(one)) == Counter(pairwise(other))
    assert (bound != shuffled).any(axis=1).mean() > 0.9
    ids = labelled.ids()
    assert ids[len(bound) :] == [f"{name}_shuffled" for name in ids[: len(bound)]]


@pytest.mark.parametrize(("data", "_"), KINDS, ids=NAMES)
def test_sequences_lie_in_one_store_on_disk(files, data, _):
    labelled = read_labelled(config(files, data))
    assert isinstance(labelled.codes, np.memmap)
    assert len(stores(files)) == 1
    assert len(labelled.ids()) == len(labelled.codes) == len(labelled.lengths) == len(labelled)


@pytest.mark.parametrize(
    ("change", "new"),
    [
        ({"seed": 1}, True),
        ({"negatives": "gc_matched"}, True),
        ({"length": 61}, True),
        ({"ambiguous": "uniform"}, True),
        ({"negatives": "y.bed"}, True),
        ({"test_fraction": 0.3}, False),
        ({"folds": 3, "fold": 1}, False),
    ],
)
def test_what_decides_the_sequences_makes_another_store(files, change, new):
    data = PEAKS | {"negatives": "dinucleotide_shuffle"}
    load_dataset(config(files, data))
    load_dataset(config(files, data | {k: v for k, v in change.items() if k != "seed"},
                        change.get("seed", 0)))  # fmt: skip
    assert len(stores(files)) == 1 + new


def test_the_seed_makes_no_other_store_where_nothing_is_drawn(files):
    for seed in (0, 1):
        load_dataset(config(files, PEAKS | {"negatives": "y.bed"}, seed))
        load_dataset(config(files, {"table": "t.tsv", "lengths": "pad"}, seed))
    assert len(stores(files)) == 2


@pytest.mark.parametrize("name", ["x.bed", "g.fa", "y.bed"])
def test_a_changed_input_is_converted_again(files, name):
    data = PEAKS | {"negatives": "y.bed"}
    first = read_labelled(config(files, data))
    text = (files / name).read_text()
    last = text.rstrip()[-1]
    changed = text.rstrip()[:-1] + {"+": "-", "-": "+", "A": "C"}.get(last, "A") + "\n"
    assert len(changed) == len(text)
    assert changed != text
    (files / name).write_text(changed)
    again = read_labelled(config(files, data))
    which = [one.path.endswith(name) for one in first.inputs]
    assert [a != b for a, b in zip(first.inputs, again.inputs, strict=True)] == which
    assert len(stores(files)) == 2


def test_a_genome_that_changes_while_it_is_read_leaves_no_store(files, monkeypatch):
    def change_then_read(path):
        text = (files / "g.fa").read_text()
        (files / "g.fa").write_text(text[:-20] + text[-20:-1][::-1] + "\n")
        return intervals.read_intervals(path)

    monkeypatch.setattr(labelled_module, "read_intervals", change_then_read)
    data = PEAKS | {"negatives": "dinucleotide_shuffle"}
    with pytest.raises(UserError, match=r"g.fa changed while it was being read"):
        read_labelled(config(files, data))
    assert not stores(files)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(files / "cache"))
    read_labelled(config(files, data))
    assert len(stores(files)) == 1


def test_another_genome_under_the_same_name_gives_its_own_windows(files):
    """Re-pointed, as a link to the newest assembly is, beside an index of the old one."""
    for name, swap in (("one.fa", "ACGTacgtN"), ("two.fa", "TGCAtgcaN")):
        lines = (files / "g.fa").read_text().split("\n")
        lines[1::2] = (line.translate(str.maketrans("ACGTacgtN", swap)) for line in lines[1::2])
        (files / name).write_text("\n".join(lines))
        os.utime(files / name, ns=(10**18, 10**18))
    (files / "g.fa").unlink()
    data, seen = PEAKS | {"negatives": "y.bed"}, []
    for name in ("one.fa", "two.fa"):
        (files / "g.fa").unlink(missing_ok=True)
        (files / "g.fa").symlink_to(files / name)
        seen.append(np.asarray(read_labelled(config(files, data)).codes))
    known = seen[0] < 4
    np.testing.assert_array_equal(np.where(known, 3 - seen[0], 4), seen[1])


@pytest.mark.parametrize("negatives", ["dinucleotide_shuffle", "gc_matched", "y.bed"])
@pytest.mark.parametrize("pack", [gzip.compress, bgzip, "2bit"])
def test_a_packed_genome_gives_the_windows_of_the_plain_one(files, pack, negatives):
    plain = (files / "g.fa").read_bytes()
    lines = plain.decode().split("\n")
    letters = {line[1:]: bases for line, bases in zip(lines[::2], lines[1::2], strict=False)}
    (files / "packed").write_bytes(two_bit(letters) if pack == "2bit" else pack(plain))
    one, other = (
        read_labelled(config(files, PEAKS | {"negatives": negatives, "genome": genome}))
        for genome in ("g.fa", "packed")
    )
    np.testing.assert_array_equal(one.codes, other.codes)
    assert one.ids() == other.ids()


def test_negatives_of_peaks_are_fasta_with_a_bom_or_a_comment_too(files):
    plain = (files / "n60.fa").read_bytes()
    data = PEAKS | {"negatives": "n60.fa"}
    expected = read_labelled(config(files, data)).codes
    for head in (b"\xef\xbb\xbf", b"; by hand\n"):
        (files / "n60.fa").write_bytes(head + plain)
        np.testing.assert_array_equal(read_labelled(config(files, data)).codes, expected)


def test_one_file_cannot_be_both_classes(files):
    (files / "copy.fa").write_bytes((files / "p.fa").read_bytes())
    with pytest.raises(
        UserError, match=r"positives=.*p\.fa and .*negatives=.*copy\.fa contain the same"
    ):
        read_labelled(
            config(files, {"positives": "p.fa", "negatives": "copy.fa", "lengths": "pad"})
        )
