"""What a writer writes is what its reader reads: only LF and CR LF end a line."""

import gzip

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jaxdna.analysis.labelled_scores import read_labels
from jaxdna.analysis.variant_effects import ScoredVariants, variant_lines
from jaxdna.config import flat, load_config, validate
from jaxdna.data.bigwig import open_bigwig
from jaxdna.data.code_store import find_or_make
from jaxdna.data.fasta import read_fasta_blocks
from jaxdna.data.genome import Genome
from jaxdna.data.intervals import read_intervals
from jaxdna.data.motif_writers import jaspar, meme
from jaxdna.data.motifs import Motif, read_motifs
from jaxdna.data.prediction_files import header, make_bedgraph, open_output, tsv_lines
from jaxdna.data.records import join
from jaxdna.data.sequences import encode
from jaxdna.data.simulated_files import table_rows, write_simulation
from jaxdna.data.simulator import simulate
from jaxdna.data.split_table import read_split_table
from jaxdna.data.streams import read_lines
from jaxdna.data.variants import read_variants
from jaxdna.runs.run_folder import RunFolder
from jaxdna.tasks.classes import Binary
from jaxdna.tasks.kinds import of_classes

ODD = "\v\f\x1c\x1d\x1e\x1f\x85\u2028\u2029\xa0\u3000 é[/]$\\_#>;\U0001f9ec\ufeff\u202e"
SOME = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def names(*, without: str = ""):
    """Up to three names that differ, without the letters that the format has for itself."""
    letters = "".join(letter for letter in "aB1." + ODD if letter not in without)
    # A name of nothing but blanks is none, and blanks around one are the format's.
    one = st.text(letters, max_size=5).map(lambda text: f"n{text}n")
    return st.lists(one, min_size=1, max_size=3, unique=True)


@SOME
@given(names())
@example(["seq\u2028tail", "a\x85b", "a\rb\x1c"])
def test_test_table(tmp_path, ids):
    folder = RunFolder(tmp_path)
    logits = np.linspace(-3, 1 / 3, len(ids), dtype=np.float32)[:, None]
    labels = np.arange(len(ids)) % 2
    folder.write_test(ids, labels, logits, of_classes(2).headings)
    found, classes, values = folder.read_test(of_classes(2))
    assert found == ids
    np.testing.assert_array_equal(classes, labels)
    np.testing.assert_array_equal(values, logits)


@SOME
@given(names())
def test_config_and_input_names(tmp_path, ids):
    folder = RunFolder(tmp_path)
    leaves = flat(load_config("configs/fasta.py:small")) | {"data.positives": ids[0]}
    folder.open(validate(leaves))
    assert folder.read_config().data.positives == ids[0]


@SOME
@given(names(), st.sampled_from(["error", "pad"]))
def test_code_store(tmp_path, ids, policy):
    records = join(ids, [encode("ACGT")] * len(ids))
    store = find_or_make(ids, tmp_path, lambda writer: writer.add("x", [records]), policy)
    assert store.ids == ids


@SOME
@given(names(without="\v\f\x1c\x1d\x1e\x1f "), st.sampled_from(["\n", "\r\n"]))
@example(["seq\u2028tail", "a\x85b"], "\n")
def test_fasta(tmp_path, ids, end):
    text = "".join(f">{name} words{end}ACGT{end}" for name in ids)
    (tmp_path / "x.fa").write_bytes(text.encode())
    assert [name for block in read_fasta_blocks(tmp_path / "x.fa") for name in block.ids] == ids


@SOME
@given(names(), st.sampled_from(["\n", "\r\n"]))
@example(["seq\u2028tail"], "\n")
def test_split_table_labels_and_bed(tmp_path, ids, end):
    ids = [*ids, "two", "three"]
    splits = ["train", "validation", "test"]
    rows = "".join(f"{name}\t{splits[i % 3]}\t{i % 2}{end}" for i, name in enumerate(ids))
    (tmp_path / "s.tsv").write_bytes(f"id\tsplit\tlabel{end}{rows}".encode())
    found, notes = read_split_table(str(tmp_path / "s.tsv"), ids)
    assert {name: rows.tolist() for name, rows in found.items()} == {
        split: list(range(i, len(ids), 3)) for i, split in enumerate(splits)
    }
    assert notes == []
    assert read_labels(str(tmp_path / "s.tsv")) == {name: [i % 2] for i, name in enumerate(ids)}
    bed = "".join(f"{name}\t5\t9\t{name}{end}" for name in ids if name[:1] != "#")
    (tmp_path / "x.bed").write_bytes(bed.encode())
    intervals = read_intervals(tmp_path / "x.bed")
    assert intervals.ids == intervals.chromosomes.tolist() == ids


@SOME
@given(names(), st.sampled_from(["x.tsv", "x.tsv.gz"]))
def test_predictions(tmp_path, ids, name):
    logits = np.linspace(-3, 3, len(ids)).astype(np.float32)
    logits[0] = np.nan
    with open_output(str(tmp_path / name)) as stream:
        stream.write(header(Binary()) + tsv_lines(Binary(), ids, logits[:, None], {0: "why"}))
    rows = [line.split("\t") for _, line in read_lines(tmp_path / name)]
    assert rows[0] == header(Binary())[:-1].split("\t")
    assert [row[0] for row in rows[1:]] == ids
    assert [row[2] for row in rows[1:]] == ["NA", *(f"{x:.6g}" for x in logits[1:])]


@SOME
@given(names(without=" >;#"))
@example(["n\u2028n", "n\x85n"])
def test_variants(tmp_path, ids):
    (tmp_path / "g.fa").write_text(">1\n" + "ACGT" * 20 + "\n")
    rows = "".join(f"1\t{5 + 4 * i}\t{name}\tA\tC\n" for i, name in enumerate(ids))
    (tmp_path / "x.vcf").write_bytes(f"#CHROM\n{rows}".encode())
    found = list(read_variants(tmp_path / "x.vcf", Genome(tmp_path / "g.fa"), 10))
    score = np.zeros((len(ids), 1), np.float32)
    (tmp_path / "y.tsv").write_bytes(
        variant_lines(ScoredVariants(Binary(), found, score, score)).encode()
    )
    rows = [line.split("\t") for _, line in read_lines(tmp_path / "y.tsv")]
    assert [row[2] for row in rows] == ids
    assert {len(row) for row in rows} == {11}


@SOME
@given(names())
@example(["n\u2028n", "n\x85n"])
def test_tracks(tmp_path, ids):
    library = pytest.importorskip("pyBigWig", reason="bigWig needs the extra")
    path, place = str(tmp_path / "x.bw"), make_bedgraph(5)
    with open_bigwig(path, dict.fromkeys(ids, 10)) as spans:
        for name in ids:
            spans.write(place([name], np.array([0]), np.array([10]), np.full(1, 0.5)))
    file = library.open(path)
    assert set(file.chroms()) == set(ids)
    assert all(file.intervals(name) == ((2, 7, 0.5),) for name in ids)
    file.close()


def test_a_gzipped_mark_of_byte_order_alone_is_an_empty_file(tmp_path):
    for number, content in enumerate([b"\xef\xbb\xbf", gzip.compress(b"\xef\xbb\xbf"), b""]):
        path = tmp_path / f"{number}.tsv"
        path.write_bytes(content)
        for read in (lambda at: read_split_table(at, ["a"]), read_labels):
            with pytest.raises(Exception, match="is empty; give a file with at least one row"):
                read(str(path))


def test_metrics(tmp_path):
    folder = RunFolder(tmp_path)
    row = {
        "epoch": 1, "step": 2, "train_loss": 1 / 3, "train_accuracy": 0.5, "val_loss": 1e-30,
        "val_accuracy": 1.0, "val_auroc": None, "seconds": 0.1,
    }  # fmt: skip
    folder.append_metrics(row)
    folder.append_metrics(row | {"epoch": 2})
    assert folder.read_metrics() == [row, row | {"epoch": 2}]


@SOME
@given(names())
def test_motifs(tmp_path, ids):
    rows = np.random.default_rng(0).dirichlet([0.5] * 4, 5)
    motifs = [Motif(name, "x", rows) for name in ids]
    # Names are ASCII in both formats, and end at their first blank.
    words = ["_".join(name.encode("ascii", "replace").decode().split()) for name in ids]
    for write in (meme, jaspar):
        (tmp_path / "m").write_bytes(write(motifs, [10**6] * len(ids)).encode())
        found = read_motifs(tmp_path / "m")
        assert [motif.name for motif in found] == words
        for motif in found:
            np.testing.assert_allclose(motif.probabilities, rows, atol=2.5e-6)


@SOME
@given(names())
def test_simulations(tmp_path_factory, ids):
    motif = Motif(ids[0], "x", np.eye(4)[[0, 1, 2, 3, 0]])
    made, folder = simulate(motif, 12, 20, 0.5, 0), tmp_path_factory.mktemp("s") / "s"
    splits = {"train": slice(0, 6), "validation": slice(6, 9), "test": slice(9, 12)}
    write_simulation(folder, made, table_rows(made, splits, motif), {})
    blocks = [
        block
        for name in ("positives.fa", "negatives.fa")
        for block in read_fasta_blocks(folder / name)
    ]
    codes = {name: block[i] for block in blocks for i, name in enumerate(block.ids)}
    labels = read_labels(str(folder / "labels.tsv"))
    found, _ = read_split_table(str(folder / "labels.tsv"), list(labels))
    assert [len(rows) for rows in found.values()] == [6, 3, 3]
    for i, (name, label) in enumerate(labels.items()):
        assert label == [made.labels[i]]
        np.testing.assert_array_equal(codes[name], made.codes[i])
