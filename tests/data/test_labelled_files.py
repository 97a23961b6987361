"""The user's own files become a data set, or one sentence."""

import gzip
from itertools import pairwise

import jax
import numpy as np
import pytest

from jaxdna.config import flat, load_config, validate
from jaxdna.data import labelled_files
from jaxdna.data.dataset import SPLITS
from jaxdna.data.labelled import read_labelled
from jaxdna.data.mapped_rows import MappedRows
from jaxdna.data.registry import load_dataset
from jaxdna.data.sequences import decode, reverse_complement
from jaxdna.data.shortcuts import shortcut_notes
from jaxdna.errors import UserError
from jaxdna.parallel.mesh import make_mesh
from jaxdna.training.feed import evaluation_batches


def letters(rng, records, low, high):
    return ["".join(rng.choice(list("ACGT"), rng.integers(low, high + 1))) for _ in range(records)]


def fasta(path, sequences, prefix):
    path.write_text("".join(f">{prefix}{i}\n{text}\n" for i, text in enumerate(sequences)))
    return path


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    chromosomes = {f"chr{i}": "".join(rng.choice(list("ACGT"), 3000)) for i in range(1, 5)}
    (tmp_path / "g.fa").write_text("".join(f">{k}\n{v}\n" for k, v in chromosomes.items()))
    rows = [f"{name}\t{at}\t{at + 40}\n" for name in chromosomes for at in range(300, 2500, 200)]
    (tmp_path / "x.bed").write_text("".join(rows))
    others = [f"{name}\t{at}\t{at + 40}\n" for name in chromosomes for at in range(400, 2500, 200)]
    (tmp_path / "y.bed").write_text("".join(others))
    positives, negatives = letters(rng, 50, 40, 60), letters(rng, 40, 30, 60)
    fasta(tmp_path / "p.fa", positives, "p")
    fasta(tmp_path / "n.fa", negatives, "n")
    table = [f"{text}\t1\n" for text in positives] + [f"{text}\t0\n" for text in negatives]
    (tmp_path / "t.tsv").write_text("".join(table))
    return tmp_path


def config(files, **data):
    """Settings of data.*; a value that is the name of one of the files becomes its path."""
    leaves = flat(load_config("configs/fasta.py:small"))
    for key, value in data.items():
        there = isinstance(value, str) and value and (files / value).is_file()
        leaves[f"data.{key}"] = str(files / value) if there else value
    return validate(leaves)


def load(files, **data):
    return load_dataset(config(files, **data))


def everything(dataset):
    return sorted(
        (decode(row).strip("N"), int(label))
        for split in dataset.splits.values()
        for row, label in zip(split.x, split.y, strict=True)
    )


def test_fasta_and_table_give_every_sequence_once_with_its_class(files):
    two = load(files, positives="p.fa", negatives="n.fa", lengths="pad")
    table = load(files, table="t.tsv", lengths="pad")
    expected = sorted(
        (line, int(name == "p"))
        for name in "pn"
        for line in (files / f"{name}.fa").read_text().split()[1::2]
    )
    assert everything(two) == everything(table) == expected
    assert {name: len(split) for name, split in two.splits.items()} == {
        "train": 63, "validation": 9, "test": 18,
    }  # fmt: skip
    for name in SPLITS:
        assert [text[0] == "p" for text in two.ids(name)] == two.splits[name].y.tolist()
    assert len(two.inputs[0].sha256) == 64
    assert any("are padded" in note for note in two.notes)


def test_data_that_do_not_fit_into_memory_stay_on_disk(files, monkeypatch):
    settings = {"positives": "p.fa", "negatives": "n.fa", "lengths": "center_crop"}
    inside = load(files, **settings)
    monkeypatch.setattr(labelled_files, "_IN_MEMORY_BYTES", 100)
    mapped = load(files, **settings)
    for name in SPLITS:
        rows = mapped.splits[name].x
        assert isinstance(rows, MappedRows)
        assert isinstance(rows.values, np.memmap)
        np.testing.assert_array_equal(rows, inside.splits[name].x)
        assert (rows.shape, rows.nbytes) == (
            inside.splits[name].x.shape, inside.splits[name].x.nbytes
        )  # fmt: skip
    mesh = make_mesh(load_config("configs/tal1.py"), jax.devices())
    test = inside.splits["test"].x
    fed = np.asarray(evaluation_batches(mapped.splits["test"].x, 16, mesh))
    np.testing.assert_array_equal(fed.reshape(-1, test.shape[1])[: len(test)], test)


@pytest.mark.parametrize("negatives", ["dinucleotide_shuffle", "gc_matched", "y.bed", "n60.fa"])
def test_intervals_with_every_kind_of_negatives(files, negatives):
    fasta(files / "n60.fa", letters(np.random.default_rng(1), 30, 60, 60), "n")
    data = load(files, bed="x.bed", genome="g.fa", negatives=negatives, length=60)
    assert data.example_shape == (60,)
    assert sum(split.y.sum() for split in data.splits.values()) == 44
    genome = (files / "g.fa").read_text().split()[1::2]
    for name, split in data.splits.items():
        for text, row, label in zip(data.ids(name), split.x, split.y, strict=True):
            if label:
                chromosome, span = text.split(":")
                center = sum(map(int, span.split("-"))) // 2
                there = genome[int(chromosome[3:]) - 1][center - 30 : center + 30]
                assert decode(row) == there


@pytest.mark.parametrize("source", [{"positives": "p.fa"}, {"bed": "x.bed", "genome": "g.fa"}])
def test_a_sequence_and_its_shuffle_share_a_split_and_a_fold(files, source):
    settings = source | {"negatives": "dinucleotide_shuffle", "lengths": "pad", "length": 60}
    for more in ({}, {"folds": 4, "fold": 2}):
        data = load(files, **settings, **more)
        for name in SPLITS:
            ids = data.ids(name)
            bound = {text for text in ids if not text.endswith("_shuffled")}
            assert {f"{text}_shuffled" for text in bound} == set(ids) - bound


@pytest.mark.parametrize("negatives", ["dinucleotide_shuffle", "gc_matched", "near.bed"])
def test_windows_that_overlap_stay_in_one_split(files, negatives):
    """Pairs of peaks 50 bases apart, with windows of 60: every pair is one piece of genome."""
    places = [(f"chr{i}", at) for i in (1, 2, 3, 4) for at in range(300, 2700, 400)]
    peaks = [f"{name}\t{at}\t{at + 20}\n" for name, at in places]
    shifted = [f"{name}\t{at + 50}\t{at + 70}\n" for name, at in places]
    (files / "near.bed").write_text("".join(shifted))
    (files / "z.bed").write_text("".join(peaks if negatives == "near.bed" else peaks + shifted))
    data = load(files, bed="z.bed", genome="g.fa", negatives=negatives, length=60)
    split_of = {text: name for name in SPLITS for text in data.ids(name)}
    for name, at in places:
        assert split_of[f"{name}:{at}-{at + 20}"] == split_of[f"{name}:{at + 50}-{at + 70}"]
    assert len(set(split_of.values())) == 3
    note = next(note for note in data.notes if "overlap another one" in note)
    assert int(note.split()[0]) >= 48 and "test_chroms" in note


def test_windows_that_do_not_overlap_are_split_as_if_they_had_no_groups(files):
    groups = read_labelled(config(files, bed="x.bed", genome="g.fa", negatives="y.bed", length=60))
    assert groups.groups.tolist() == list(range(88))
    assert not any("overlap" in note for note in groups.notes)


def test_too_few_groups_are_told(files):
    with pytest.raises(UserError, match="44 in all the data in 4 groups that stay together"):
        load(files, bed="x.bed", genome="g.fa", negatives="y.bed", folds=5)


def shortcuts(data):
    return [note for note in data.notes if "alone tells" in note]


def test_a_length_that_gives_the_class_away_is_noted_where_it_is_padded(files):
    rng = np.random.default_rng(5)
    fasta(files / "long.fa", letters(rng, 200, 180, 200), "p")
    fasta(files / "brief.fa", letters(rng, 200, 100, 120), "n")
    noise = {"positives": "long.fa", "negatives": "brief.fa"}
    (note,) = shortcuts(load(files, **noise, lengths="pad"))
    assert "the length alone tells the classes apart with AUROC 1.00" in note
    assert not shortcuts(load(files, **noise, lengths="center_crop"))
    (files / "both.tsv").write_text(
        "".join(
            f"{line}\t{label}\n"
            for label, name in ((1, "long.fa"), (0, "brief.fa"))
            for line in (files / name).read_text().split()[1::2]
        )
    )
    assert len(shortcuts(load(files, table="both.tsv", lengths="pad"))) == 1


def test_n_and_gc_that_give_the_class_away_are_noted(files):
    rng = np.random.default_rng(6)
    plain = letters(rng, 200, 60, 60)
    fasta(files / "plain.fa", plain, "p")
    fasta(files / "masked.fa", [text[:50] + "N" * 10 for text in plain], "n")
    (note,) = shortcuts(load(files, positives="plain.fa", negatives="masked.fa"))
    assert "the share of N alone tells the classes apart with AUROC 1.00" in note
    rich = ["".join(rng.choice(list("ACGT"), 60, p=[0.15, 0.35, 0.35, 0.15])) for _ in range(200)]
    fasta(files / "rich.fa", rich, "p")
    (note,) = shortcuts(load(files, positives="rich.fa", negatives="plain.fa"))
    assert "GC content alone" in note and "gc_matched" in note


def test_chance_among_few_sequences_is_no_shortcut(files):
    found = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        codes = rng.integers(0, 4, (40, 50), dtype=np.uint8)
        lengths = rng.integers(30, 51, 40)
        found += len(shortcut_notes(codes, np.arange(40, dtype=np.int32) % 2, lengths, True))
    assert found == 0


def test_folds_hold_out_every_record_once(files):
    held_out = []
    for fold in range(5):
        data = load(files, positives="p.fa", negatives="n.fa", lengths="pad", folds=5, fold=fold)
        held_out += data.ids("test")
        names = [text for name in SPLITS for text in data.ids(name)]
        assert len(names) == len(set(names)) == 90
        assert data.splits["test"].y.sum() == 10
    assert len(set(held_out)) == 90


def test_split_by_chromosome(files):
    data = load(
        files, bed="x.bed", genome="g.fa", negatives="gc_matched", length=60,
        valid_chroms="chr2", test_chroms="chr3, chr4",
    )  # fmt: skip
    for name, chromosomes in {
        "train": {"chr1"}, "validation": {"chr2"}, "test": {"chr3", "chr4"}
    }.items():  # fmt: skip
        assert {text.split(":")[0] for text in data.ids(name)} == chromosomes


def test_split_table_decides_rows_and_order(files):
    (files / "s.tsv").write_text(
        "id\tlabel\tsplit\nn3\t0\ttest\np7\t1\ttrain\nn0\t0\ttrain\np1\t1\tvalidation\n"
    )
    data = load(files, positives="p.fa", negatives="n.fa", lengths="pad", split_table="s.tsv")
    assert [data.ids(name) for name in SPLITS] == [["p7", "n0"], ["p1"], ["n3"]]
    assert any("86 of 90 records are in no split" in note for note in data.notes)


def test_the_same_sequence_in_two_splits_is_reported(files):
    first = (files / "p.fa").read_text().split()[1]
    copy = decode(reverse_complement(np.array(["ACGT".index(b) for b in first], np.uint8)))
    with (files / "p.fa").open("a") as stream:
        stream.write("".join(f">copy{i}\n{copy}\n" for i in range(12)))
    data = load(files, positives="p.fa", negatives="n.fa", lengths="pad", similarity=0.0)
    assert any("in two splits" in note and "'p0'" in note for note in data.notes)


def test_classes_of_the_same_sequences_under_other_names_are_refused(files):
    (files / "copy.fa").write_text((files / "p.fa").read_text().replace(">p", ">q").lower())
    with pytest.raises(UserError, match=r"every sequence has a copy of the other class \('p0' and"):
        load(files, positives="p.fa", negatives="copy.fa", lengths="pad")


@pytest.mark.parametrize("bases", [100, 101])
@pytest.mark.parametrize("fit", [{"lengths": "pad", "length": 121}, {"lengths": "center_crop"}])
def test_a_leak_is_seen_on_both_strands_whatever_is_padded_or_cropped(files, bases, fit):
    rng = np.random.default_rng(1)
    for name in "pn":
        one = letters(rng, 30, bases, bases)
        both = one + [text.translate(str.maketrans("ACGT", "TGCA"))[::-1] for text in one]
        fasta(files / f"d{name}.fa", both, name)
    crop = {"length": 95} if fit["lengths"] == "center_crop" else {}
    data = load(files, positives="dp.fa", negatives="dn.fa", similarity=0.0, **fit, **crop)
    split_of = {name: split for split in SPLITS for name in data.ids(split)}
    leaks = sum(
        2
        for name in "pn"
        for i in range(30)
        if split_of[f"{name}{i}"] != split_of[f"{name}{i + 30}"]
    )
    assert leaks > 10
    (note,) = (note for note in data.notes if "in two splits" in note)
    assert note.startswith(f"{leaks} sequences, or their reverse complements, are in two splits")


def test_a_leak_is_seen_where_only_what_is_cropped_is_the_same(files):
    rng = np.random.default_rng(2)
    middle = letters(rng, 40, 50, 50)
    wide = [
        f"{left}{text}{left}" for left, text in zip(letters(rng, 40, 9, 9), middle, strict=True)
    ]
    fasta(files / "w.fa", middle + wide, "w")
    data = load(files, positives="w.fa", negatives="n.fa", lengths="center_crop", length=30)
    assert any("sequences are in two splits" in note for note in data.notes)


def mutants(rng, families, copies, rate, bases=200):
    """Text of near-copies, the copies of one family side by side, every other one turned."""
    parents = rng.integers(0, 4, (families, bases)).repeat(copies, axis=0)
    changed = rng.random(parents.shape) < rate
    codes = np.where(changed, rng.integers(0, 4, parents.shape), parents).astype(np.uint8)
    codes[1::2] = 3 - codes[1::2, ::-1]
    return [decode(row) for row in codes]


@pytest.mark.parametrize("more", [{}, {"folds": 3, "fold": 1}])
def test_families_of_near_copies_stay_in_one_split_and_are_counted(files, more):
    rng = np.random.default_rng(7)
    for name in "pn":
        fasta(files / f"f{name}.fa", mutants(rng, 30, 5, 0.04), name)
    settings = {"positives": "fp.fa", "negatives": "fn.fa", **more}
    apart, together = load(files, **settings, similarity=0.0), load(files, **settings)
    for data, kept in ((apart, False), (together, True)):
        split_of = {name: split for split in SPLITS for name in data.ids(split)}
        homes = [{split_of[f"{n}{5 * i + j}"] for j in range(5)} for n in "pn" for i in range(30)]
        assert all(len(home) == 1 for home in homes) == kept
    assert not any("-mers" in note for note in apart.notes)
    (note,) = (note for note in together.notes if "-mers" in note)
    assert note.startswith("300 sequences share 25% or more of their 9-mers with another one")
    assert "60 families; the largest has 5" in note
    shares = [len(split) / 300 for split in together.splits.values()]
    np.testing.assert_allclose(shares, [0.6, 0.07, 1 / 3] if more else [0.7, 0.1, 0.2], atol=0.09)


def test_near_copies_in_splits_that_the_user_gives_are_told(files):
    fasta(files / "f.fa", mutants(np.random.default_rng(8), 10, 2, 0.04, 60), "f")
    split = [("train", "validation", "test")[i % 3] for i in range(20)]
    rows = [f"f{i}\t{name}\n" for i, name in enumerate(split)]
    rows += [f"n{i}\t{name}\n" for i, name in enumerate(split[:6])]
    (files / "s.tsv").write_text("id\tsplit\n" + "".join(rows))
    fasta(files / "n.fa", letters(np.random.default_rng(9), 6, 60, 60), "n")
    data = load(files, positives="f.fa", negatives="n.fa", split_table="s.tsv")
    (note,) = (note for note in data.notes if "-mers" in note)
    assert note.startswith("20 sequences share 25% or more of their 8-mers with another one in")


def test_a_family_that_would_leave_a_split_empty_is_split_and_told(files):
    fasta(files / "one.fa", mutants(np.random.default_rng(10), 1, 50, 0.02), "one")
    fasta(files / "n.fa", letters(np.random.default_rng(11), 50, 200, 200), "n")
    given = {"positives": "one.fa", "negatives": "n.fa"}
    data, before = load(files, **given), load(files, **given, similarity=0.0)
    assert any("would leave too few for a split" in note for note in data.notes)
    for name in SPLITS:
        assert data.ids(name) == before.ids(name)


def test_random_sequences_are_split_as_if_nobody_had_looked(files):
    for name in "pn":
        fasta(files / f"{name}.fa", letters(np.random.default_rng(ord(name)), 200, 60, 60), name)
    given = {"positives": "p.fa", "negatives": "n.fa"}
    data, before = load(files, **given), load(files, **given, similarity=0.0)
    assert data.notes == before.notes == []
    for name in SPLITS:
        assert data.ids(name) == before.ids(name)


@pytest.mark.parametrize(
    "form", ["{0}:{1}-{2}", "{0}:{3}-{2}", "{0}:{1}-{2}(-)", "peak::{0}:{1}-{2}", "{0}_{1}_{2}"]
)
def test_names_that_are_places_keep_what_overlaps_together(files, form):
    """Random letters: only the names say that pairs 150 bases apart share 50 of 200."""
    rng = np.random.default_rng(12)
    for name in "pn":
        starts = [at for base in range(0, 20_000, 1000) for at in (base, base + 150)]
        names = [form.format(f"chr{name}", at, at + 200, at + 1) for at in starts]
        text = letters(rng, 40, 200, 200)
        rows = [f">{one}\n{bases}\n" for one, bases in zip(names, text, strict=True)]
        (files / f"{name}.fa").write_text("".join(rows))
    data = load(files, positives="p.fa", negatives="n.fa")
    split_of = {name: split for split in SPLITS for name in data.ids(split)}
    assert len(split_of) == 80
    for name in "pn":
        for base in range(0, 20_000, 1000):
            pair = [form.format(f"chr{name}", a, a + 200, a + 1) for a in (base, base + 150)]
            assert split_of[pair[0]] == split_of[pair[1]]
    assert any(note.startswith("80 sequences overlap another one") for note in data.notes)


def test_a_name_that_is_not_as_long_as_its_sequence_is_no_place(files):
    for name in "pn":
        text = letters(np.random.default_rng(ord(name)), 40, 60, 60)
        rows = [f">gene:{i}-{i + 500}\n{bases}\n" for i, bases in enumerate(text)]
        (files / f"{name}.fa").write_text("".join(rows))
    assert load(files, positives="p.fa", negatives="n.fa").notes == []


def test_files_of_the_test_are_the_test_split_and_nothing_else_is(files):
    rng = np.random.default_rng(1)
    bound, unbound = letters(rng, 7, 40, 70), letters(rng, 5, 30, 60)
    fasta(files / "tp.fa", bound, "tp")
    fasta(files / "tn.fa", unbound, "tn")
    rows = [f"{text}\t1\n" for text in bound] + [f"{text}\t0\n" for text in unbound]
    (files / "tt.tsv").write_text("".join(rows))
    tests = {"test_positives": "tp.fa", "test_negatives": "tn.fa"}
    wanted = sorted([(text, 1) for text in bound] + [(text, 0) for text in unbound])
    without = everything(load(files, positives="p.fa", negatives="n.fa", lengths="pad"))
    for given in (
        TWO | tests,
        {"table": "t.tsv", "test_table": "tt.tsv"},
        {"positives": "p.fa", "negatives": "dinucleotide_shuffle"} | tests,
    ):
        found = load(files, **given, lengths="pad")
        test = found.splits["test"]
        assert test.x.shape[1] == max(map(len, [*bound, *(text for text, _ in without)]))
        rows = zip(test.x, test.y, strict=True)
        assert sorted((decode(row).strip("N"), int(label)) for row, label in rows) == wanted
        others = [one for one in everything(found) if one not in wanted]
        assert (others == without) == ("shuffle" not in given.get("negatives", ""))
        assert sum(map(len, found.splits.values())) == len(others) + 12
        assert len(found.splits["validation"]) == round(0.1 * len(others))
    fasta(
        files / "tn.fa",
        [*unbound, decode(load(files, **TWO, lengths="pad").splits["train"].x[0]).strip("N")],
        "tn",
    )
    notes = " ".join(load(files, **TWO, **tests, lengths="pad").notes)
    assert "2 sequences, or their reverse complements, are in two splits" in notes


def test_deepbind_s_tables_of_bound_sequences_get_shuffled_ones(files):
    rng = np.random.default_rng(2)
    bound, tested = letters(rng, 40, 60, 60), letters(rng, 12, 60, 60)
    head = "FoldID\tEventID\tseq\tBound\n"
    rows = [f"{'AC'[i % 2]}\tseq_{i:05d}_peak\t{text}\t1\n" for i, text in enumerate(bound)]
    tests = [f"B\tseq_{i:05d}_x\t{text}\t{i % 2}\n" for i, text in enumerate([*tested, bound[0]])]
    with gzip.open(files / "AC.seq.gz", "wt") as file:
        file.write(head + "".join(rows))
    with gzip.open(files / "B.seq.gz", "wt") as file:
        file.write(head + "".join(tests))
    given = {"table": "AC.seq.gz", "test_table": "B.seq.gz"}
    found = load(files, **given, negatives="dinucleotide_shuffle")
    test = found.splits["test"]
    assert sorted(map(decode, test.x)) == sorted([*tested, bound[0]])
    assert [test.y[list(map(decode, test.x)).index(text)] for text in tested[:2]] == [0, 1]
    assert "2 sequences, or their reverse complements, are in two splits" in " ".join(found.notes)
    split = {name: dict(zip(found.ids(name), found.splits[name].y, strict=True)) for name in SPLITS}
    kept = split["train"] | split["validation"]
    assert len(kept) == 80
    for name, label in kept.items():
        pair = name.removesuffix("_shuffled")
        assert label == (name == pair)
        assert (pair in split["train"]) == (f"{pair}_shuffled" in split["train"])
    others = [found.splits[one].x for one in ("train", "validation")]
    texts = {decode(codes) for split in others for codes in split}
    assert len(texts) == 80  # a shuffled one is another sequence, with the same pairs of letters
    assert len({tuple(sorted(pairwise(text))) for text in texts}) == 40


TWO = {"positives": "p.fa", "negatives": "n.fa"}
PEAKS = {"bed": "x.bed", "genome": "g.fa"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "no data given"),
        ({"positives": "p.fa", "table": "t.tsv"}, "data.positives="),
        ({"positives": "p.fa"}, "legal: a FASTA file or dinucleotide_shuffle"),
        ({"positives": "p.fa", "negatives": "gc_matched"}, "needs --config.data.bed"),
        ({"bed": "x.bed", "negatives": "y.bed"}, "data.genome"),
        (PEAKS, "dinucleotide_shuffle or gc_matched"),
        (TWO | {"genome": "g.fa"}, "needs --config.data.bed"),
        (TWO | {"test_positives": "t.tsv"}, "test_negatives= go together"),
        (TWO | {"test_table": "t.tsv"}, "needs --config.data.table"),
        (
            TWO | {"lengths": "pad", "test_positives": "p.fa", "test_negatives": "g.fa"},
            "p.fa contain the same bytes; give bound",
        ),
        (
            {"table": "t.tsv", "lengths": "pad", "folds": 3, "test_table": "t2.tsv"},
            "t2.tsv and --config.data.folds=3 both define the test split",
        ),
        ({"table": "t.tsv", "negatives": "n.fa"}, "whose rows have both classes"),
        (
            {"table": "t.tsv", "negatives": "dinucleotide_shuffle", "lengths": "pad"},
            "t.tsv has 40 unbound sequences of its own",
        ),
        (
            {"table": "t.tsv", "negatives": "dinucleotide_shuffle", "task": "counts"},
            "task=counts does not go with --config.data.table with negatives=",
        ),
        ({"table": "one.tsv"}, "negatives=dinucleotide_shuffle for bound ones alone"),
        ({"table": "one.tsv", "test_table": "t.tsv"}, "t.tsv: records 'line"),
        (TWO, "center_crop or pad"),
        (TWO | {"positives": "long.fa"}, "legal: lengths=center_crop or pad"),
        (TWO | {"length": 300}, "legal: lengths=pad"),
        (PEAKS | {"negatives": "gc-matched"}, "did you mean gc_matched?"),
        (TWO | {"negatives": "shuffle"}, "did you mean dinucleotide_shuffle?"),
        (TWO | {"negatives": "gc-matched"}, "gc-matched cannot be read"),
        (TWO | {"lengths": "pad", "folds": 5, "fold": 5}, "-1 to 4"),
        (TWO | {"lengths": "pad", "folds": 5, "test_chroms": "chr1"}, "needs --config.data.bed"),
        (PEAKS | {"negatives": "y.bed", "length": 60, "test_chroms": "chr3"}, "go together"),
        (
            PEAKS | {"negatives": "y.bed", "folds": 3, "test_chroms": "3", "valid_chroms": "2"},
            "both define",
        ),
        (
            PEAKS | {"negatives": "y.bed", "length": 60, "test_chroms": "3", "valid_chroms": "2"},
            "chr2",
        ),
        (TWO | {"lengths": "pad", "validation_fraction": 0.6, "test_fraction": 0.4}, "below 1"),
        (TWO | {"positives": "empty.fa"}, "is empty"),
        (TWO | {"positives": "protein.fa"}, "(a protein?)"),
        (TWO | {"positives": "bare.fa"}, "has no sequence"),
        (TWO | {"positives": "junk.fa"}, "this is not text"),
        (TWO | {"positives": "cut.fa.gz"}, "truncated gzip"),
        (TWO | {"positives": "short.fa", "lengths": "pad"}, "shorter than a filter"),
        (TWO | {"positives": "p.fa", "negatives": "absent.fa"}, "absent.fa cannot be read"),
        (
            PEAKS | {"negatives": "short.fa", "lengths": "pad"},
            "'tiny' (4) is shorter than a filter",
        ),
        (TWO | {"negatives": "few.fa", "lengths": "pad"}, "gets no record of class 0"),
        ({"table": "one.tsv"}, "class 1 only"),
        (TWO | {"lengths": "pad", "split_table": "t.tsv"}, "no columns id and split"),
        (TWO | {"lengths": "pad", "split_table": "bad.tsv"}, "is the id of no record"),
        (TWO | {"lengths": "pad", "split_table": "bom.tsv"}, "bom.tsv is empty"),
        (TWO | {"lengths": "pad", "split_table": "row.tsv"}, "line 2: '' is the id of no record"),
        (
            {"bed": "far.bed", "genome": "g.fa", "negatives": "y.bed"},
            "reaches beyond its chromosome",
        ),
        ({"bed": "style.bed", "genome": "g.fa", "negatives": "y.bed"}, "it is called chr1"),
    ],
)
def test_bad_input_is_one_sentence(files, data, words):
    (files / "empty.fa").write_bytes(b"")
    (files / "protein.fa").write_text(">a\nMKLV\n")
    (files / "bare.fa").write_text(">a\n>b\nACGT\n")
    (files / "junk.fa").write_bytes(bytes(range(256)) * 4)
    (files / "cut.fa.gz").write_bytes(gzip.compress((files / "p.fa").read_bytes())[:-9])
    (files / "short.fa").write_text((files / "p.fa").read_text() + ">tiny\nACGT\n")
    (files / "few.fa").write_text(">a\n" + "ACGT" * 10 + "\n")
    (files / "long.fa").write_text(">a\n" + "ACGT" * 2000 + "\n>b\n" + "ACGT" * 10 + "\n")
    (files / "one.tsv").write_text(("ACGT" * 10 + "\t1\n") * 20)
    (files / "t2.tsv").write_text((files / "t.tsv").read_text() * 2)
    (files / "bad.tsv").write_text("id\tsplit\nnobody\ttest\n")
    (files / "bom.tsv").write_bytes(b"\xef\xbb\xbf")
    (files / "row.tsv").write_text("split\tid\ntrain\n")
    (files / "far.bed").write_text("chr1\t900000\t900100\n")
    (files / "style.bed").write_text("1\t900\t1000\n")
    with pytest.raises(UserError) as raised:
        load(files, **data)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_relative_path_is_told_with_the_folder_it_was_followed_from(files, monkeypatch):
    """A run keeps the paths that it was given; `interpret` may be called from elsewhere."""
    runs = [
        config(files, negatives="dinucleotide_shuffle", **data)
        for data in ({"positives": "bound.fa"}, {"bed": "b.bed", "genome": "g.fa"})
    ]
    (files / "elsewhere").mkdir()
    monkeypatch.chdir(files / "elsewhere")
    for run in runs:
        with pytest.raises(UserError, match=f"no such file or directory in {files}/elsewhere"):
            load_dataset(run)


def test_odd_but_legal_input_is_counted_and_noted(files):
    """Soft-masked letters, CRLF, a record of one long line, repeated ids, all N."""
    rng = np.random.default_rng(3)
    texts = letters(rng, 30, 50, 50)
    cut = [f"{text[:20].lower()}\r\n{text[20:]}" for text in texts]
    body = "".join(f">p{i % 29}\r\n{lines}\r\n" for i, lines in enumerate(cut))
    (files / "odd.fa").write_bytes(body.encode() + b">allN\r\n" + b"N" * 50 + b"\r\n")
    data = load(files, positives="odd.fa", negatives="n.fa", lengths="pad", length=60)
    notes = " ".join(data.notes)
    assert "repeat an earlier id" in notes
    assert "1 of 31 sequences contain only N" in notes
    bound = [text for text, label in everything(data) if label]
    assert sorted(bound) == sorted([*texts, ""])
