"""Alleles in VCF and TSV: every score against its definition, every row of the file kept."""

import gzip
import io

import jax
import numpy as np
import pytest
from flax import nnx

from jaxdna.analysis.scorers import make_scorer
from jaxdna.analysis.variant_effects import score_variants, write_variants
from jaxdna.cli.main import main
from jaxdna.config import default_config, flat, validate
from jaxdna.data.bgzf import BgzfWriter
from jaxdna.data.genome import Genome
from jaxdna.data.prediction_files import open_output, output_format
from jaxdna.data.sequences import encode, one_hot, reverse_complement
from jaxdna.data.variants import read_variants
from jaxdna.errors import UserError
from jaxdna.models.registry import build_network
from jaxdna.parallel.mesh import flat_mesh
from jaxdna.runs.trained import Trained
from jaxdna.tasks.kinds import of_classes

WIDTH, LENGTH = 5, 24
LETTERS = "".join(np.random.default_rng(0).choice(list("ACGT"), 200))
KEYS = ["REF_PROB", "ALT_PROB", "REF_LOGIT", "ALT_LOGIT", "CHANGE"]
SLID = ["LARGEST_CHANGE", "WINDOW_START"]


@pytest.fixture(scope="module")
def scorer():
    config = validate(
        flat(default_config("fasta", "motif_cnn")) | {"model.filters": 3, "model.width": WIDTH}
    )
    graph, state = nnx.split(build_network(config, 1))
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), nnx.to_pure_dict(state)
    )
    trained = Trained(config, flat_mesh(jax.devices()[:2]), graph, params, LENGTH, of_classes(2))
    return make_scorer(trained), params


@pytest.fixture
def genome(tmp_path):
    (tmp_path / "g.fa").write_text(f">chr1\n{LETTERS}\n")
    return Genome(tmp_path / "g.fa", cache=tmp_path / "cache")


def logit(params, letters):
    """Convolution, maximum, ReLU, a linear map in float64; the mean of both strands."""

    def one(codes):
        windows = np.lib.stride_tricks.sliding_window_view(one_hot(codes), WIDTH, axis=0)
        scores = np.einsum("pcw,wcf->pf", np.float64(windows), params["conv"]["kernel"])
        best = np.maximum(scores.max(axis=0) + params["conv"]["bias"], 0)
        return float(best @ params["dense"]["kernel"][:, 0] + params["dense"]["bias"][0])

    codes = encode(letters)
    return (one(codes) + one(reverse_complement(codes))) / 2


def alleles():
    """Position from 0, reference, alternatives: of each base, of several, at both ends."""
    rng = np.random.default_rng(2)
    rows = []
    for first in [0, 3, 11, 12, 30, 31, 90, 91, 188, 189, 197, 199]:
        size = min(int(rng.integers(1, 7)), 200 - first)
        inserted = "".join(rng.choice(list("ACGT"), 5))
        base = LETTERS[first]
        rows.append((first, base, ["ACGT"["ACGT".index(base) - 1], base + inserted]))
        rows.append((first, LETTERS[first : first + size], [base, inserted]))
    rows.append((100, LETTERS[100:130], [LETTERS[100]]))  # longer than a window
    return rows


def file_of(folder, rows, extra="\t.\tPASS\tDP=9\tGT\t0|1"):
    path = folder / "x.vcf"
    lines = [f"chr1\t{at + 1}\t.\t{ref}\t{','.join(alts)}{extra}\n" for at, ref, alts in rows]
    header = "##fileformat=VCFv4.2\n##source=x\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
    path.write_text(header + "\tFORMAT\ts1\n" * bool(extra) + "\n" * (not extra) + "".join(lines))
    return path


def scored(path, genome, scorer, slide, form):
    header, stream = [], io.StringIO()
    found = score_variants(read_variants(path, genome, LENGTH, slide, header), scorer, slide)
    vcf = header, genome.lengths
    return write_variants([(form, stream)], scorer.task, found, slide, vcf), stream.getvalue()


@pytest.mark.parametrize("slide", [False, True])
def test_every_allele_has_the_scores_of_its_windows(tmp_path, genome, scorer, slide):
    scorer, params = scorer
    rows = alleles()
    counts, text = scored(file_of(tmp_path, rows), genome, scorer, slide, "tsv")
    header, *lines = [line.split("\t") for line in text.splitlines()]
    assert header[-1] == "note" and ("largest_logit_change" in header) == slide
    table = iter(dict(zip(header, line, strict=True)) for line in lines)
    compared = 0
    for first, reference, alternatives in rows:
        after = first + len(reference)
        centre = first + len(reference) // 2 - LENGTH // 2
        for alternative in alternatives:
            row = next(table)
            changed = LETTERS[:first] + alternative + LETTERS[after:]
            if row["logit_change"] == "NA":
                assert len(reference) > LENGTH
                continue
            inside = range(max(0, after - LENGTH), min(first, 200 - LENGTH) + 1)
            starts = inside if slide and centre in inside else [centre]
            pairs = {}
            for start in starts:
                windows = []
                for whole in (LETTERS, changed):
                    padded = "N" * LENGTH + whole + "N" * LENGTH
                    windows.append(logit(params, padded[start + LENGTH : start + 2 * LENGTH]))
                pairs[start] = windows
            near = {"rel": 1e-4, "abs": 1e-4}  # six digits, and float32 sums of 20 terms
            assert float(row["reference_logit"]) == pytest.approx(pairs[centre][0], **near)
            assert float(row["alternative_logit"]) == pytest.approx(pairs[centre][1], **near)
            compared += 1
            if slide:
                changes = {start: other - one for start, (one, other) in pairs.items()}
                largest = max(map(abs, changes.values()))
                found = float(row["largest_logit_change"])
                assert abs(found) == pytest.approx(largest, **near)
                assert found == pytest.approx(changes[int(row["window_start"]) - 1], **near)
    assert compared == counts["rows"] - counts["skipped"] == 48


@pytest.mark.parametrize("slide", [False, True])
def test_vcf_keeps_every_column_and_gains_a_value_for_each_allele(
    tmp_path, genome, scorer, slide, monkeypatch
):
    monkeypatch.setattr("jaxdna.analysis.variant_effects._AT_ONCE", 3)  # rows are never parted
    rows = [*alleles()[:6], (40, LETTERS[40], ["<DEL>", "A" if LETTERS[40] != "A" else "C"])]
    path = file_of(tmp_path, rows)
    _, table = scored(path, genome, scorer[0], slide, "tsv")
    _, text = scored(path, genome, scorer[0], slide, "vcf")
    lines = text.splitlines()
    keys = KEYS + SLID * slide + ["NOTE"]
    declared = [line.split(",")[0] for line in lines if line.startswith("##INFO")]
    assert declared == [f"##INFO=<ID=JAXDNA_{key}" for key in keys]
    assert lines[:2] == ["##fileformat=VCFv4.2", "##source=x"]
    assert "##contig=<ID=chr1,length=200>" in lines
    before = [line for line in path.read_text().splitlines() if not line.startswith("##")]
    after = [line for line in lines if not line.startswith("##")]
    values = iter(line.split("\t")[5:] for line in table.splitlines()[1:])
    assert after[0] == before[0]
    for old, new in zip(before[1:], after[1:], strict=True):
        one, other = old.split("\t"), new.split("\t")
        assert one[:7] + one[8:] == other[:7] + other[8:]
        dp, *ours = other[7].split(";")
        assert dp == "DP=9" and not set(other[7]) & set(" \t")
        info = dict(part.removeprefix("JAXDNA_").split("=") for part in ours)
        rows_of_it = [next(values) for _ in one[4].split(",")]
        for number, key in enumerate(keys[:-1]):
            wanted = [row[number].replace("NA", ".") for row in rows_of_it]
            assert info.get(key, "").split(",") == wanted
    assert "NOTE=allele%20%3CDEL%3E" in after[-1] or "NOTE=allele%20<DEL>" in after[-1]
    (tmp_path / "x.vcf").write_text(text)
    assert scored(tmp_path / "x.vcf", genome, scorer[0], slide, "vcf")[1] == text  # once more


def test_short_rows_and_a_file_without_a_variant_become_whole_vcf(tmp_path, genome, scorer):
    path = file_of(tmp_path, [(50, LETTERS[50], ["A" if LETTERS[50] != "A" else "C"])], extra="")
    _, text = scored(path, genome, scorer[0], False, "vcf")
    *_, columns, row = text.splitlines()
    assert columns.split("\t")[-1] == "INFO" and len(row.split("\t")) == 8
    path.write_text("##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\n")
    counts, text = scored(path, genome, scorer[0], False, "vcf")
    assert counts["rows"] == 0 and text.splitlines()[-1] == columns


def test_gz_is_written_in_blocks_as_bgzip_does(tmp_path):
    rng = np.random.default_rng(3)
    content = rng.integers(0, 256, 300_000, dtype=np.uint8).tobytes() + b"A" * 200_000
    raw = io.BytesIO()
    with BgzfWriter(raw, 4) as writer:
        for first in range(0, len(content), 7919):
            writer.write(content[first : first + 7919])
    packed, at, sizes = raw.getvalue(), 0, []
    while at < len(packed):  # SAM specification, 4.1
        assert (
            packed[at : at + 4] == b"\x1f\x8b\x08\x04"
            and packed[at + 10 : at + 16] == b"\6\0BC\2\0"
        )
        size = int.from_bytes(packed[at + 16 : at + 18], "little") + 1
        sizes.append(len(gzip.decompress(packed[at : at + size])))
        at += size
    assert at == len(packed) and sizes[-1] == 0 and max(sizes) <= 65_280
    assert gzip.decompress(packed) == content
    with open_output(str(tmp_path / "y.vcf.gz")) as stream:
        stream.write("#CHROM\n")
    assert gzip.decompress((tmp_path / "y.vcf.gz").read_bytes()) == b"#CHROM\n"
    assert (tmp_path / "y.vcf.gz").read_bytes().endswith(packed[-28:])


def test_what_does_not_fit_is_one_sentence(capsys):
    assert output_format("y.vcf.gz", False, True) == "vcf"
    with pytest.raises(UserError, match="needs --variants"):
        output_format("y.vcf", False)
    for flags, words in (
        (["--sequences=x.fa", "--sites=all"], "--sites=all needs --variants"),
        (["--sequences=x.fa", "--output=y", "--output=z"], "only --variants takes several"),
        (
            ["--variants=x", "--genome=g", "--output=y.tsv", "--output=./y.tsv"],
            "--output=y.tsv --output=./y.tsv is the same file twice",
        ),
    ):
        assert main(["predict", "--workdir=none", *flags]) == 2
        assert words in capsys.readouterr().err
