"""Targets of every kind of task, as tables, FASTA headers and bigWig tracks give them."""

import gzip
import json

import numpy as np
import pytest

from jaxdna.config import flat, load_config, validate
from jaxdna.data.registry import load_dataset
from jaxdna.data.sequences import decode
from jaxdna.errors import UserError
from jaxdna.schema import TASK_CHOICES
from jaxdna.tasks.kinds import KINDS

RNG = np.random.default_rng(0)
RECORDS = 60
SEQUENCES = ["".join(RNG.choice(list("ACGT"), 40)) for _ in range(RECORDS)]
NUMBERS = RNG.normal([1, -500], [3, 20], (RECORDS, 2)).astype(np.float32)
COUNTED = RNG.poisson(2, (RECORDS, 2))
LABELS = (RNG.random((RECORDS, 3)) < 0.4).astype(int)
CLASSES = RNG.integers(0, 3, RECORDS)
NAMES = np.array(["none", "E box", "[/b]GATA"])  # a console would obey it
TABLE = {
    "id": [f"r{i}" for i in range(RECORDS)],
    "note": ["by hand"] * RECORDS,
    "dev": NUMBERS[:, 0],
    "hk": NUMBERS[:, 1],
    "plus": COUNTED[:, 0],
    "minus": COUNTED[:, 1],
    "a": LABELS[:, 0],
    "b": LABELS[:, 1],
    "c": LABELS[:, 2],
    "number": CLASSES,
    "kind": NAMES[CLASSES],
    "sequence": SEQUENCES,
}


def tsv(*columns, header=True):
    rows = [columns] * header + list(zip(*(TABLE[name] for name in columns), strict=True))
    return "".join("\t".join(map(str, row)) + "\n" for row in rows).encode()


def load(path, content=None, **data):
    if content is not None:
        path.write_bytes(content)
    key = "positives" if data.get("labels_in_headers") else "bed" if "tracks" in data else "table"
    leaves = flat(load_config("configs/fasta.py:small")) | {f"data.{key}": str(path)}
    return load_dataset(validate(leaves | {f"data.{name}": value for name, value in data.items()}))


def by_sequence(dataset):
    """The target of each sequence over all splits."""
    return {
        decode(x): y
        for part in dataset.splits.values()
        for x, y in zip(part.x, part.y, strict=True)
    }


def assert_targets(dataset, expected):
    found = by_sequence(dataset)
    assert sum(map(len, dataset.splits.values())) == len(found) == RECORDS
    assert dataset.splits["train"].y.dtype == dataset.task.target_dtype
    np.testing.assert_array_equal([found[one] for one in SEQUENCES], expected)


def test_the_configuration_offers_every_kind_of_task():
    assert list(TASK_CHOICES) == ["auto", *KINDS]


@pytest.mark.parametrize(
    ("task", "columns", "targets", "names", "expected"),
    [
        ("auto", "a", "", ("bound",), LABELS[:, 0]),
        ("binary", "abc", "b", ("bound",), LABELS[:, 1]),
        ("multilabel", "abc", "", ("a", "b", "c"), LABELS),
        ("multiclass", ["number", "note"], "", ("0", "1", "2"), CLASSES),
        ("multiclass", ["kind", "dev"], "kind", tuple(sorted(NAMES)),
         [sorted(NAMES).index(name) for name in NAMES[CLASSES]]),
        ("regression", ["dev", "hk", "note"], "", ("dev", "hk"), NUMBERS),
        ("regression", ["dev", "hk"], "hk,dev", ("hk", "dev"), NUMBERS[:, ::-1]),
        ("counts", ["plus", "minus"], "", ("plus", "minus"), COUNTED),
    ],
)  # fmt: skip
def test_columns_of_a_table_are_the_targets(tmp_path, task, columns, targets, names, expected):
    content = tsv(*columns, "sequence", "id")
    data = load(tmp_path / "t.tsv", gzip.compress(content), task=task, targets=targets)
    assert (data.task.kind, data.task.names) == (task.replace("auto", "binary"), names)
    assert_targets(data, expected)
    assert sorted(data.ids("train") + data.ids("validation") + data.ids("test")) == sorted(
        TABLE["id"]
    )
    assert all(name in data.describe for name in names)


@pytest.mark.parametrize("header", [b"", b"seq\ttarget\n"])
def test_a_table_of_two_columns_needs_no_header(tmp_path, header):
    content = header + tsv("sequence", "dev", header=False)
    data = load(tmp_path / "t.tsv", content, task="regression")
    assert data.task.names == ("target",)
    assert_targets(data, NUMBERS[:, :1])


def test_units_are_those_of_the_training_split_of_each_fold(tmp_path):
    means = []
    for fold in range(3):
        data = load(
            tmp_path / "t.tsv", tsv("sequence", "dev", "hk"), task="regression", folds=3, fold=fold
        )
        train = data.splits["train"].y.astype(np.float64)
        np.testing.assert_allclose(data.task.mean, train.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(data.task.scale, train.std(axis=0), rtol=1e-12)
        means.append(data.task.mean)
    assert len(set(means)) == 3


def test_pairs_of_strands_are_exchanged(tmp_path):
    data = load(
        tmp_path / "t.tsv",
        tsv("sequence", "plus", "dev", "minus"),
        task="regression",
        strand_pairs="plus:minus",
    )
    assert data.task.swaps == (2, 1, 0)
    assert data.task.mean[0] == data.task.mean[2]


def test_another_choice_of_columns_is_another_store(tmp_path):
    """What decides the targets is part of the key under which they are kept."""
    path, content = tmp_path / "t.tsv", tsv("sequence", "plus", "a")
    assert_targets(load(path, content, task="counts", targets="plus"), COUNTED[:, :1])
    assert_targets(load(path, content, task="counts", targets="a"), LABELS[:, :1])
    assert_targets(load(path, content, task="binary", targets="a"), LABELS[:, 0])
    assert_targets(load(path, content, task="multilabel", targets="a"), LABELS[:, :1])


@pytest.mark.parametrize(
    ("task", "column", "form", "expected"),
    [
        ("auto", "a", ">{y}", LABELS[:, 0]),
        ("auto", "a", ">{id} label={y}", LABELS[:, 0]),
        ("auto", "a", ">{id}|{y}", LABELS[:, 0]),
        ("binary", "a", ">{id}|{y}|training", LABELS[:, 0]),
        ("binary", "a", "> chr1,+,5,45; class:{y}", LABELS[:, 0]),
        ("multiclass", "number", ">{id} gene=x label={y}", CLASSES),
        ("regression", "dev", ">{id} label={y}", NUMBERS[:, :1]),
        ("counts", "plus", ">{id}|{y}", COUNTED[:, :1]),
    ],
)
def test_headers_of_fasta_say_the_targets(tmp_path, task, column, form, expected):
    heads = [form.format(id=f"r{i}", y=TABLE[column][i]) for i in range(RECORDS)]
    content = "".join(f"{head}\n{text}\n" for head, text in zip(heads, SEQUENCES, strict=True))
    data = load(tmp_path / "s.fa", content.encode(), task=task, labels_in_headers=True)
    assert data.task.kind == task.replace("auto", "binary")
    assert_targets(data, expected)
    names = [name for split in data.splits for name in data.ids(split)]
    wanted = {
        ">{y}": {f"record{i + 1}" for i in range(RECORDS)},
        "> chr1,+,5,45; class:{y}": {"chr1,+,5,45"},
    }
    assert set(names) == wanted.get(form, set(TABLE["id"]))


def fasta(*heads):
    return "".join(f"{head}\n{'ACGT' * 10}\n" for head in heads).encode()


@pytest.mark.parametrize(
    ("data", "content", "words"),
    [
        ({}, tsv("sequence", "dev", "hk"), ["columns 'dev', 'hk'", "regression or counts"]),
        ({}, tsv("sequence", "a", "b"), ["'a', 'b'", "--config.data.task=multilabel"]),
        ({}, tsv("sequence", "dev"), ["line 2", "column 'dev'", "0 or 1", "regression"]),
        ({}, tsv("sequence", "dev", header=False), ["line 1", "label", "regression"]),
        ({}, tsv("sequence", "note"), ["column", "'note'", "none of numbers"]),
        ({"task": "multiclass"}, tsv("sequence", "dev"), ["line 2", "an integer from 0"]),
        ({"task": "multiclass"}, tsv("sequence", "kind", header=False), ["without a header"]),
        ({"task": "multiclass"}, tsv("sequence", "number", "a"), ["'number', 'a'", "targets"]),
        ({"task": "multilabel"}, tsv("sequence", "a", "plus"), ["column 'plus'", "0 or 1"]),
        ({"task": "counts"}, tsv("sequence", "hk"), ["column 'hk' is '-", "0 or more"]),
        ({"task": "regression", "targets": "de"}, tsv("sequence", "dev"), ["did you mean 'dev'?"]),
        ({"task": "regression", "targets": "hk,dev"}, tsv("sequence", "hk", header=False),
         ["no column 'hk'", "a header"]),
        ({"task": "regression"}, tsv("sequence", "dev", "dev"), ["two columns 'dev'"]),
        ({"task": "regression", "strand_pairs": "dev"}, tsv("sequence", "dev"), ["plus:minus"]),
        ({"task": "regression", "strand_pairs": "hk:de"}, tsv("sequence", "dev", "hk"),
         ["did you mean 'dev'?"]),
        ({"task": "regression", "strand_pairs": "dev:dev"}, tsv("sequence", "dev"), ["in a pair"]),
        ({"task": "multiclass", "strand_pairs": "a:b"}, tsv("sequence", "kind"), ["multilabel"]),
        ({"task": "regression"}, b"sequence\tx\nACGT\t1\nAC\tnan\n", ["line 3", "'x'", "nan"]),
        ({"task": "regression"}, b"sequence\tx\nACGT\t\nAC\t1\n", ["line 2", "'x'", "''"]),
        ({"task": "regression"}, b"sequence\tx\ty\nACGT\t1\t2\nAC\t1\n", ["line 3", "2 columns"]),
        ({"task": "regression"}, b"sequence\tx\nACGT\t1e39\n", ["line 2", "1e39"]),
        ({"task": "regression"}, b"sequence\tx\n" + b"ACGTACGTACGTACGTACGT\t7\n" * 40,
         ["x is 7 in all training examples"]),
        ({"task": "multilabel"}, b"sequence\tx\n" + b"ACGTACGTACGTACGTACGT\t0\n" * 40,
         ["label x is 0 in all 40"]),
        ({"task": "multiclass"}, b"sequence\tx\nACGT\t0\nACGT\t2\n", ["class 1 has no"]),
        ({"task": "multiclass"}, b"sequence\tx\nACGT\t0\nACGT\tb\n", ["numbers", "'b'"]),
        ({"task": "multiclass", "similarity": 0.0}, b"sequence\tx\n"
         + b"ACGTACGTACGTACGTACGT\ta b\n" * 40, ["have class a b only (40 records)"]),
        ({"task": "multiclass", "similarity": 0.0}, b"sequence\tx\nACGTACGTACGTACGTACGT\tz\n"
         + b"ACGTACGTACGTACGTACGT\ta b\n" * 40, ["gets no record of class z (1 in all the data"]),
        ({"labels_in_headers": True}, fasta(">a label=0", ">b label=2"), ["record 2", "'2'"]),
        ({"labels_in_headers": True}, fasta(">a label=0", ">1"), ["record 2", "another form"]),
        ({"labels_in_headers": True}, fasta(">gi|1|ref|NM_1"), ["no target", ">name label=1"]),
        ({"labels_in_headers": True, "task": "multilabel"}, fasta(">a label=0"), ["does not go"]),
        ({"labels_in_headers": True, "negatives": "n.fa"}, fasta(">1"), ["n.fa does not go"]),
    ],
)  # fmt: skip
def test_what_is_not_certain_is_one_sentence(tmp_path, data, content, words):
    with pytest.raises(UserError) as caught:
        load(tmp_path / "x", content, **data)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


@pytest.fixture
def tracks(tmp_path):
    """Two tracks of small integers on two chromosomes, a stretch of which says nothing."""
    library = pytest.importorskip("pyBigWig", reason="bigWig needs the extra")
    rng = np.random.default_rng(1)
    genome = {name: "".join(rng.choice(list("ACGT"), 4000)) for name in ("chr1", "chr2")}
    values = {name: rng.poisson(3, (2, 4000)).astype(np.float64) for name in genome}
    values["chr2"][:, 1000:1500] = np.nan
    (tmp_path / "g.fa").write_text("".join(f">{k}\n{v}\n" for k, v in genome.items()))

    def write(name, track, sizes=(4000, 4000), prefix="chr"):
        with library.open(str(tmp_path / name), "w") as file:
            file.addHeader([(f"{prefix}{i}", size) for i, size in enumerate(sizes, 1)])
            for i in (1, 2):
                for at in np.flatnonzero(~np.isnan(values[f"chr{i}"][track])).tolist():
                    value = values[f"chr{i}"][track][at]
                    file.addEntries([f"{prefix}{i}"], [at], ends=[at + 1], values=[value])

    places = [(name, at) for name in genome for at in range(100, 3800, 100)]
    rows = [
        f"{name}\t{at}\t{at + 60}\t{name}.{at}\t0\t{'+-'[i % 2]}\n"
        for i, (name, at) in enumerate(places)
    ]
    (tmp_path / "x.bed").write_text("".join(rows))
    return tmp_path, write, values, places


@pytest.mark.parametrize(
    ("statistic", "bases", "measure"),
    [("mean", 0, np.mean), ("sum", 20, np.sum), ("max", 21, np.max)],
)
def test_a_track_says_the_target_of_each_window(tracks, statistic, bases, measure):
    folder, write, values, places = tracks
    write("plus.bw", 0)
    write("minus.bw", 1)
    data = load(
        folder / "x.bed",
        genome=str(folder / "g.fa"),
        tracks=f"{folder}/plus.bw,{folder}/minus.bw",
        task="counts",
        length=60,
        track_statistic=statistic,
        track_bases=bases,
        strand_pairs="plus:minus",
    )
    assert (data.task.names, data.task.swaps) == (("plus", "minus"), (1, 0))
    first = {0: 0, 20: 20, 21: 19}[bases]
    expected = {}
    for i, (name, at) in enumerate(places):
        part = np.nan_to_num(values[name][:, at + first : at + first + (bases or 60)])
        # A window on the other strand is read there, where plus is minus.
        expected[f"{name}.{at}"] = measure(part, axis=1)[:: -1 if i % 2 else 1]
    found = {
        name: y
        for split, part in data.splits.items()
        for name, y in zip(data.ids(split), part.y, strict=True)
    }
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "prefix", "data", "words"),
    [
        ((4000, 3999), "chr", {}, ["3,999 bases of chr2", "4,000"]),
        ((4000, 4000), "", {}, ["lacks chromosome chr1", "it is called 1"]),
        ((4000, 4000), "chr", {"task": "auto"}, ["--config.data.task=auto", "regression, counts"]),
        ((4000, 4000), "chr", {"task": "binary"}, ["regression, counts"]),
        ((4000, 4000), "chr", {"track_bases": 61}, ["61", "60 bases", "0 to 60"]),
        ((4000, 4000), "chr", {"negatives": "gc_matched"}, ["does not go with"]),
        ((4000, 4000), "chr", {"tracks": "{}/g.fa"}, ["g.fa", "bigWig"]),
        ((4000, 4000), "chr", {"tracks": "{}/a.bw,{}/a.bw"}, ["two tracks are called 'a'"]),
    ],
)
def test_a_track_of_another_genome_is_one_sentence(tracks, sizes, prefix, data, words):
    folder, write, *_ = tracks
    write("a.bw", 0, sizes, prefix)
    settings = {"tracks": "{}/a.bw", "task": "regression", "length": 60} | data
    settings["tracks"] = settings["tracks"].replace("{}", str(folder))
    with pytest.raises(UserError) as caught:
        load(folder / "x.bed", genome=str(folder / "g.fa"), **settings)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 3, 64, 100, 400, 2000])
def test_a_part_of_a_track_is_one_sentence(tracks, size):
    """The library itself crashes on some."""
    folder, write, *_ = tracks
    write("a.bw", 0)
    (folder / "cut.bw").write_bytes((folder / "a.bw").read_bytes()[:size])
    with pytest.raises(UserError, match=r"cut\.bw cannot be read as a bigWig"):
        load(
            folder / "x.bed",
            genome=str(folder / "g.fa"),
            tracks=str(folder / "cut.bw"),
            task="counts",
            length=60,
        )


def test_two_files_of_classes_have_no_other_task(tmp_path):
    (tmp_path / "n.fa").write_text(">a\nACGT\n")
    leaves = flat(load_config("configs/fasta.py:small")) | {
        "data.positives": str(tmp_path / "n.fa"),
        "data.negatives": "dinucleotide_shuffle",
        "data.task": "regression",
    }
    with pytest.raises(UserError, match=r"data\.task=regression does not go with two sets"):
        load_dataset(validate(leaves))


def test_the_task_is_kept_as_json(tmp_path):
    data = load(tmp_path / "t.tsv", tsv("sequence", "kind"), task="multiclass", targets="kind")
    assert json.loads(json.dumps(data.task.record()))["names"] == sorted(NAMES)
