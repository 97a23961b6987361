"""What a user does with a trained run: predict, evaluate, interpret, export, look at the report.

One small run on simulated FASTA files, and calls of the verbs in this process.
"""

import gzip
import io
import itertools
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import h5py
import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jaxdna.analysis import interpretation
from jaxdna.cli.main import main
from jaxdna.data.fasta import read_fasta_blocks
from jaxdna.data.motifs import read_motifs

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def trained(jaxdna, tmp_path_factory):
    """A folder with sim/ (the files) and run/ (trained on them), made by two process starts."""
    folder = tmp_path_factory.mktemp("sequences")
    simulated = jaxdna(
        "simulate", "--config=configs/tal1.py", "--config.data.train_examples=3000",
        "--config.data.validation_examples=600", "--config.data.test_examples=600",
        "--config.data.length=100", f"--output={folder}/sim",
    )  # fmt: skip
    assert simulated.returncode == 0, simulated.stderr
    done = jaxdna(
        "train", "--config=configs/fasta.py:small",
        f"--config.data.positives={folder}/sim/positives.fa",
        f"--config.data.negatives={folder}/sim/negatives.fa",
        f"--config.data.split_table={folder}/sim/labels.tsv", "--config.data.lengths=pad",
        "--config.train.epochs=8", f"--config.runtime.data_cache={folder}/cache",
        f"--workdir={folder}/run", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["test"]["auroc"] > 0.95
    return folder, summary


@pytest.fixture
def call(trained, capsys):
    """Runs a verb on the run; returns stdout, or the last line of stderr for another exit code."""

    def run(verb, *flags, code=0):
        done = main([verb, f"--workdir={trained[0]}/run", *map(str, flags)])
        out, err = capsys.readouterr()
        assert done == code, err
        assert "Traceback" not in err
        return out if code == 0 else err.splitlines()[-1]

    return run


def rows_of(text):
    lines = [line.split("\t") for line in text.splitlines()]
    assert lines[0] == ["id", "probability", "logit", "note"]
    return lines[1:]


def test_predict_agrees_with_the_run_s_own_test_scores(call, trained):
    folder, _ = trained
    expected = {}
    for line in (folder / "run" / "test.tsv").read_text().splitlines()[1:]:
        name, _, logit = line.split("\t")
        expected[name] = float(logit)
    seen = 0
    for path in ("positives.fa", "negatives.fa"):
        rows = rows_of(call("predict", f"--sequences={folder}/sim/{path}"))
        blocks = read_fasta_blocks(folder / "sim" / path)
        assert [row[0] for row in rows] == [name for block in blocks for name in block.ids]
        for name, probability, logit, _ in rows:
            assert float(probability) == pytest.approx(1 / (1 + np.exp(-float(logit))), rel=1e-4)
            if name in expected:
                seen += 1
                assert float(logit) == pytest.approx(expected[name], abs=1e-4)  # six digits
    assert seen == len(expected) == 600


def test_rows_without_a_score_stand_in_their_place(call, tmp_path):
    path = tmp_path / "odd.fa.gz"
    text = ">a\nACGTACGTACGTACGTACGT\r\n>empty\n\n>tiny\nACG\n>allN\n" + "N" * 30
    path.write_bytes(gzip.compress((text + "\n>a\nacgtuRYNacgtacgtacgtacgt").encode()))
    rows = rows_of(call("predict", f"--sequences={path}"))
    assert [row[0] for row in rows] == ["a", "empty", "tiny", "allN", "a"]
    assert [row[1] == "NA" for row in rows] == [False, True, True, True, False]
    assert [row[3] for row in rows] == [
        "", "no sequence", "3 bases, shorter than a filter of 15", "no known base",
        "3 of 24 letters unknown",
    ]  # fmt: skip


def test_stdin_stdout_and_gzip_give_the_same_rows(call, trained, tmp_path, monkeypatch):
    source = trained[0] / "sim" / "negatives.fa"
    plain = call("predict", f"--sequences={source}")

    class Stdin:
        buffer = io.BytesIO(gzip.compress(source.read_bytes()))

    monkeypatch.setattr(sys, "stdin", Stdin)
    out = tmp_path / "y.tsv.gz"
    counted = json.loads(
        call("predict", "--sequences=-", f"--output={out}", "--json").splitlines()[-1]
    )
    assert gzip.decompress(out.read_bytes()).decode() == plain
    assert counted["rows"] == len(plain.splitlines()) - 1
    assert list(tmp_path.iterdir()) == [out]


def test_windows_as_tsv_bed_and_bedgraph(call, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "g.fa").write_text(f">chrA\n{''.join(rng.choice(list('ACGT'), 1030))}\n")
    flags = [f"--sequences={tmp_path}/g.fa", "--window=100", "--stride=50"]
    rows = rows_of(call("predict", *flags))
    begins = [*range(0, 931, 50), 930]
    assert [row[0] for row in rows] == [f"chrA:{at}-{at + 100}" for at in begins]
    call("predict", *flags, f"--output={tmp_path}/y.bed")
    bed = [line.split("\t") for line in (tmp_path / "y.bed").read_text().splitlines()]
    assert [(int(r[1]), int(r[2])) for r in bed] == [(at, at + 100) for at in begins]
    assert [int(r[4]) for r in bed] == [round(1000 * float(row[1])) for row in rows]
    call("predict", *flags, f"--output={tmp_path}/y.bedGraph")
    graph = [line.split("\t") for line in (tmp_path / "y.bedGraph").read_text().splitlines()]
    spans = [(int(r[1]), int(r[2])) for r in graph]
    assert spans[0] == (25, 75)
    assert all(one[1] == other[0] for one, other in itertools.pairwise(spans))
    assert [r[3] for r in graph] == [row[1] for row in rows]


def test_a_bigwig_holds_what_the_bedgraph_holds(call, tmp_path):
    """Records in no order, one of them shorter than a window; browsers want the names sorted."""
    pyBigWig = pytest.importorskip("pyBigWig", reason="writes bigWig (extra [bigwig])")
    rng = np.random.default_rng(0)
    sizes = {"chrB": 1030, "chrA": 410, "chrC": 60, "chrD": 8}
    text = "".join(f">{k}\n{''.join(rng.choice(list('ACGT'), n))}\n" for k, n in sizes.items())
    (tmp_path / "g.fa").write_text(text)
    flags = [f"--sequences={tmp_path}/g.fa", "--window=100", "--stride=50"]
    for name in ("y.bedGraph", "y.bw"):
        call("predict", *flags, f"--output={tmp_path}/{name}")
    with pyBigWig.open(str(tmp_path / "y.bw")) as track:
        assert track.chroms() == sizes and list(track.chroms()) == sorted(sizes)
        found = {k: track.intervals(k) or () for k in sizes}
    lines = [line.split("\t") for line in (tmp_path / "y.bedGraph").read_text().splitlines()]
    for name, spans in found.items():
        expected = [(int(a), int(b), float(c)) for k, a, b, c in lines if k == name]
        assert [span[:2] for span in spans] == [span[:2] for span in expected]
        np.testing.assert_allclose(  # float32
            [span[2] for span in spans], [span[2] for span in expected], rtol=1e-6
        )
    (tmp_path / "g.fa").write_text(text + text)
    sentence = call("predict", *flags, f"--output={tmp_path}/z.bw", code=2)
    assert "two records are called 'chrA'" in sentence
    assert not list(tmp_path.glob("*z.bw*"))


def test_windows_shorter_than_a_padded_training_have_a_note(trained, tmp_path, capsys):
    (tmp_path / "x.fa").write_text(f">x\n{'ACGTTGCA' * 30}\n")
    said = {}
    for bases in (60, 100):
        flags = [f"--workdir={trained[0]}/run", f"--sequences={tmp_path}/x.fa"]
        assert main(["predict", *flags, f"--window={bases}"]) == 0
        said[bases] = "scored without padding" in capsys.readouterr().err
    assert said == {60: True, 100: False}


def test_variants(call, trained, tmp_path):
    """A site is put into a genome base by base: each allele that breaks it lowers the score."""
    rng = np.random.default_rng(1)
    letters = rng.choice(list("AT"), 400)
    letters[195:205] = list("ACCATCTGTT")
    (tmp_path / "g.fa").write_text(f">chr1\n{''.join(letters)}\n")
    (tmp_path / "x.vcf").write_text(
        "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\n"
        "chr1\t197\trs1\tC\tA,G\nchr1\t10\trs2\tG\tA\nchr1\t200\trs3\tTC\tT\nchr1\t201\t.\tC\t<DEL>\n"
        "chr9\t5\t.\tA\tC\n"
    )
    text = call("predict", f"--variants={tmp_path}/x.vcf", f"--genome={tmp_path}/g.fa")
    header, *rows = [line.split("\t") for line in text.splitlines()]
    table = [dict(zip(header, row, strict=True)) for row in rows]
    assert [(r["position"], r["alternative"]) for r in table] == [
        ("197", "A"), ("197", "G"), ("10", "A"), ("200", "T"), ("201", "<DEL>"), ("5", "C"),
    ]  # fmt: skip
    assert all(float(table[i]["logit_change"]) < -1 for i in (0, 1, 3))
    assert "reference mismatch" in table[2]["note"]
    assert table[4]["logit_change"] == table[5]["logit_change"] == "NA"
    assert "no chromosome chr9" in table[5]["note"]
    both = [f"--output={tmp_path}/y.tsv", f"--output={tmp_path}/y.vcf.gz"]
    files = f"--variants={tmp_path}/x.vcf", f"--genome={tmp_path}/g.fa"
    counts = json.loads(call("predict", *files, *both, "--json").splitlines()[-1])
    assert counts["output"] == [flag.removeprefix("--output=") for flag in both]
    assert counts["rows"] == 6
    assert (tmp_path / "y.tsv").read_text() == text
    scored = gzip.decompress((tmp_path / "y.vcf.gz").read_bytes()).decode().splitlines()
    info = scored[-5].split("\t")[7]
    assert f"JAXDNA_CHANGE={table[0]['logit_change']},{table[1]['logit_change']}" in info


def test_a_vcf_without_a_variant_gives_a_table_without_a_row(trained, tmp_path, capsys):
    (tmp_path / "g.fa").write_text(f">chr1\n{'ACGT' * 100}\n")
    (tmp_path / "x.vcf").write_text("##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\n")
    files = f"--variants={tmp_path}/x.vcf", f"--genome={tmp_path}/g.fa"
    assert main(["predict", f"--workdir={trained[0]}/run", *files]) == 0
    text, said = capsys.readouterr()
    assert text.startswith("chromosome\t") and text.count("\n") == 1
    assert "bases are centred on the middle of REF" in said


def test_evaluate_on_labelled_files_equals_the_summary(call, trained, tmp_path):
    folder, summary = trained
    keep = {line.split("\t")[0] for line in (folder / "run/test.tsv").read_text().splitlines()[1:]}
    letters = {}
    for kind, label in (("positives", 1), ("negatives", 0)):
        lines = (folder / "sim" / f"{kind}.fa").read_text().split()
        pairs = zip(lines[::2], lines[1::2], strict=True)
        letters[label] = {name[1:]: text for name, text in pairs if name[1:] in keep}
        (tmp_path / f"{kind}.fa").write_text(
            "".join(f">{name}\n{text}\n" for name, text in letters[label].items())
        )
    table = "".join(f"{text}\t{k}\n" for k, part in letters.items() for text in part.values())
    (tmp_path / "t.tsv").write_text(table)
    both = (tmp_path / "positives.fa").read_text() + (tmp_path / "negatives.fa").read_text()
    (tmp_path / "all.fa").write_text(both)
    for flags in (
        [f"--positives={tmp_path}/positives.fa", f"--negatives={tmp_path}/negatives.fa"],
        [f"--table={tmp_path}/t.tsv"],
        [f"--sequences={tmp_path}/all.fa", f"--labels={folder}/sim/labels.tsv"],
        [],
    ):
        found = json.loads(call("evaluate", *flags, "--json").splitlines()[-1])
        assert found["params_sha256"] == summary["params_sha256"]
        for key, value in summary["test"].items():
            assert found["test"][key] == pytest.approx(value, abs=1e-5)
            assert found["measures"][key]["low"] <= value <= found["measures"][key]["high"]
        assert set(found["measures"]) >= {"balanced_accuracy", "recall_at_5_fdr"}
        assert not found.get("trained_on")
        sizes = [len(letters[0]), len(letters[1])]
        assert found["chance"]["examples"] == summary["chance"]["examples"] == sizes
        assert found["chance"]["auprc"] == pytest.approx(sizes[1] / sum(sizes))
        assert found["chance"]["accuracy"] == pytest.approx(max(sizes) / sum(sizes))
    shown = call("evaluate", *flags)
    assert "recall at 10% FDR" in shown
    assert f"Measures: {sizes[1]} bound, {sizes[0]} unbound" in shown
    assert "chance" in shown


def test_scores_on_files_of_the_training_are_said_to_be_so(trained, tmp_path, capsys):
    folder, _ = trained
    positives = shutil.copy(folder / "sim/positives.fa", tmp_path / "renamed.fa")
    flags = [f"--positives={positives}", f"--negatives={folder}/sim/negatives.fa"]
    assert main(["evaluate", f"--workdir={folder}/run", *flags, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["trained_on"] == [part.split("=")[1] for part in flags]
    assert "this run was trained on" in err
    flags[1] = f"--negatives={folder}/sim/positives.fa"
    assert main(["evaluate", f"--workdir={folder}/run", *flags]) == 2
    assert "contain the same bytes; give bound sequences in one" in capsys.readouterr().err


def test_sequences_of_the_training_split_are_found_in_whatever_file(trained, tmp_path, capsys):
    folder, _ = trained
    rows = [line.split("\t") for line in (folder / "sim/labels.tsv").read_text().splitlines()]
    split = {row[rows[0].index("id")]: row[rows[0].index("split")] for row in rows[1:]}

    def records(kind):
        lines = (folder / f"sim/{kind}.fa").read_text().split()
        return [*zip((name[1:] for name in lines[::2]), lines[1::2], strict=True)]

    def write(name, found):
        content = "".join(f">x{i}\n{text.lower()}\n" for i, (_, text) in enumerate(found))
        (tmp_path / name).write_bytes(gzip.compress(content.encode()))
        return tmp_path / name

    def evaluate(positives, negatives):
        flags = [f"--positives={positives}", f"--negatives={negatives}", "--json"]
        assert main(["evaluate", f"--workdir={folder}/run", *flags]) == 0
        out, err = capsys.readouterr()
        return json.loads(out.splitlines()[-1]), err

    some = records("positives")[5:300]
    other_strand = [(n, t[::-1].translate(str.maketrans("ACGT", "TGCA"))) for n, t in some]
    unknown = [one for one in records("negatives") if split[one[0]] == "test"]
    count = sum(split[name] == "train" for name, _ in some)
    for part in (some, other_strand):
        found, err = evaluate(write("p.gz", part), write("n.gz", unknown))
        assert found["trained_on"] == [f"{tmp_path}/p.gz"]
        total = len(some) + len(unknown)
        share = pytest.approx(count / total, abs=1e-6)
        assert found["in_training"] == {"examples": count, "share": share}
        assert f"trained on {count} of the {total} scored sequences" in err
    tested = [one for one in records("positives") if split[one[0]] == "test"]
    found, err = evaluate(write("p.gz", tested), write("n.gz", unknown))
    assert (found["trained_on"], found["in_training"]["examples"]) == ([], 0)
    assert "trained on" not in err


def test_user_text_that_looks_like_markup_or_mathematics_is_shown_as_it_is(
    trained, tmp_path, capsys
):
    folder, _ = trained
    motif = "letter-probability matrix: alength= 4 w= 5\n" + "0.25 0.25 0.25 0.25\n" * 5
    meme = tmp_path / "[b]motifs[red].meme"
    meme.write_text(f"MEME version 4\n\nALPHABET= ACGT\n\nMOTIF [/b] x[red]\n{motif}")
    lines = (folder / "sim/positives.fa").read_text().split()[:40]
    fasta = tmp_path / "x[red].fa"
    names = [r">$\frac$", ">chr1[/dup]", ">\u202egpj", *lines[6::2]]
    fasta.write_text("".join(f"{a}\n{b}\n" for a, b in zip(names, lines[1::2], strict=True)))
    flags = [f"--sequences={fasta}", f"--motifs={meme}", f"--output={tmp_path}/out[dim]"]
    assert main(["interpret", f"--workdir={folder}/run", *flags, "--mutate=20"]) == 0
    out, err = capsys.readouterr()
    shown = "".join((out + err).split())
    assert "[b]motifs[red].meme" in shown
    assert "out[dim]" in shown
    assert main(["predict", f"--workdir={folder}/run", f"--sequences={fasta}\x1b[31m"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_interpret_finds_the_motif(call, trained, tmp_path):
    out = tmp_path / "interpret"
    found = json.loads(call("interpret", f"--output={out}", "--json").splitlines()[-1])
    best = found["filters"][0]["match"]
    assert best["target"] == "TAL1_known4"
    assert best["p_value"] < 1e-4
    names = {path.name for path in out.iterdir()}
    assert names == {
        "filters.tsv", "filters.meme", "filters.jaspar", "logos", "mutagenesis.tsv",
        "mutagenesis.png",
    }  # fmt: skip
    meme, jaspar = read_motifs(out / "filters.meme"), read_motifs(out / "filters.jaspar")
    sites = {f"filter{row['filter']}": row["sites"] for row in found["filters"]}
    counts = re.findall(r"nsites= (\d+)", (out / "filters.meme").read_text())
    matrices = re.findall(r">(\S+)\nA +\[ (.*) \]\nC +\[ (.*) \]\nG +\[ (.*) \]\nT +\[ (.*) \]",
                          (out / "filters.jaspar").read_text())  # fmt: skip
    assert len(set(sites.values())) > 1
    for one, count, (name, *rows) in zip(meme, counts, matrices, strict=True):
        assert int(count) == sites[one.name] == sites[name]
        assert set(np.sum([list(map(int, row.split())) for row in rows], axis=0)) == {int(count)}
    for one, other in zip(meme, jaspar, strict=True):
        assert one.name == other.name
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-3)
    logo = out / "logos" / f"{meme[0].name}.png"
    assert logo.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in logo.with_suffix(".svg").read_text()
    lines = [line.split("\t") for line in (out / "mutagenesis.tsv").read_text().splitlines()]
    assert lines[0] == ["id", "position", "base", "A", "C", "G", "T"]
    assert len(lines) == 1 + 3 * 100
    changes = np.array([row[3:] for row in lines[1:]], dtype=float).reshape(3, 100, 4)
    assert np.abs(changes).max() > 1
    for row in lines[1:]:
        assert float(row["ACGT".index(row[2]) + 3]) == 0


def test_exported_files_run_where_jaxdna_is_not(call, trained, tmp_path):
    pytest.importorskip("flatbuffers", reason="jax serialises with flatbuffers (extra [export])")
    pytest.importorskip("safetensors", reason="the example reads with safetensors")
    files = json.loads(call("export", f"--output={tmp_path}", "--json").splitlines()[-1])["files"]
    assert {path.name for path in tmp_path.iterdir()} == set(files)
    examples = re.findall(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)
    assert len(examples) == 2
    metadata = json.loads((tmp_path / "model.safetensors").read_bytes()[8:].split(b"}")[0] + b"}}")
    assert metadata["__metadata__"].items() >= {"lengths": "pad", "length": "100"}.items()
    # Shorter and longer than the 100 bases of training: `predict` pads what is shorter.
    rng = np.random.default_rng(2)
    known = "".join(rng.choice(list("ACGT"), 120))
    odd = known[:60].lower().replace("t", "u") + "NRY" + known[63:]
    cases = [(odd, "average", 0), (known, "forward", 1)]
    cases += [(odd[:31], "average", 0), (known[:31], "forward", 1)]
    for text, strands, number in cases:
        example = examples[number]
        (tmp_path / "x.fa").write_text(f">f\n{text}\n")
        flags = [f"--sequences={tmp_path}/x.fa", f"--strands={strands}"]
        expected = float(rows_of(call("predict", *flags))[0][2])
        shown = re.search(r'"([ACGT]{16,})"', example)[1]
        code = "import sys; sys.modules['jaxdna'] = None\n" + example.replace(shown, text)
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert float(done.stdout.strip().strip("[]")) == pytest.approx(expected, abs=1e-4)


def test_interpret_mutates_the_bases_of_a_short_sequence_and_not_its_padding(
    call, trained, tmp_path
):
    """Trained on 100 bases with lengths=pad: the changes are those of the padded sequence."""
    rng = np.random.default_rng(4)
    texts = ["".join(rng.choice(list("ACGT"), bases)) for bases in (40, 61)]
    texts[1] = "NN" + texts[1][2:]  # unknown bases at the end are no padding
    (tmp_path / "x.fa").write_text("".join(f">s{i}\n{text}\n" for i, text in enumerate(texts)))
    call("interpret", f"--sequences={tmp_path}/x.fa", f"--output={tmp_path}/out", "--mutate=2")
    lines = [
        line.split("\t") for line in (tmp_path / "out/mutagenesis.tsv").read_text().split("\n")
    ]
    rows = {name: [row for row in lines if row[0] == name] for name in ("s0", "s1")}
    for text, table in zip(texts, rows.values(), strict=True):
        assert "".join(row[2] for row in table) == text
        assert [int(row[1]) for row in table] == list(range(1, len(text) + 1))
    # The change that the table promises is the change that `predict` sees.
    for text, table in zip(texts, rows.values(), strict=True):
        at = max(range(len(text)), key=lambda i: abs(float(table[i][3])))
        (tmp_path / "y.fa").write_text(f">a\n{text}\n>b\n{text[:at]}A{text[at + 1 :]}\n")
        before, after = rows_of(call("predict", f"--sequences={tmp_path}/y.fa"))
        change = float(table[at][3])
        assert float(after[2]) - float(before[2]) == pytest.approx(change, abs=1e-4)


def test_positions_of_a_cropped_sequence_count_in_the_sequence_that_was_given(call, tmp_path):
    rng = np.random.default_rng(5)
    text = "".join(rng.choice(list("ACGT"), 131))
    (tmp_path / "x.fa").write_text(f">s\n{text}\n")
    call(
        "interpret", f"--sequences={tmp_path}/x.fa", f"--output={tmp_path}/out", "--mutate=1",
        "--config.data.lengths=center_crop",
    )  # fmt: skip
    lines = (tmp_path / "out/mutagenesis.tsv").read_text().splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    assert [int(row[1]) for row in rows] == list(range(16, 116))
    assert all(text[int(row[1]) - 1] == row[2] for row in rows)


def test_padding_in_the_test_split_is_not_mutated(tmp_path, jaxdna):
    rng = np.random.default_rng(6)
    for name in "pn":
        texts = ("".join(rng.choice(list("ACGT"), rng.integers(30, 50))) for _ in range(40))
        rows = (f">{name}{i}\n{text}\n" for i, text in enumerate(texts))
        (tmp_path / f"{name}.fa").write_text("".join(rows))
    jaxdna(
        "train", "--config=configs/fasta.py:small", f"--workdir={tmp_path}/run",
        f"--config.data.positives={tmp_path}/p.fa", f"--config.data.negatives={tmp_path}/n.fa",
        "--config.data.lengths=pad", "--config.train.epochs=1", "--config.train.batch_size=8",
        f"--config.runtime.data_cache={tmp_path}/cache",
    )  # fmt: skip
    jaxdna("interpret", f"--workdir={tmp_path}/run", f"--output={tmp_path}/out", "--mutate=4")
    given = dict(
        pair.split("\n", 1)
        for name in "pn"
        for pair in (tmp_path / f"{name}.fa").read_text().strip()[1:].split("\n>")
    )
    found = {}
    for line in (tmp_path / "out/mutagenesis.tsv").read_text().splitlines()[1:]:
        name, _, base, *_ = line.split("\t")
        found[name] = found.get(name, "") + base
    assert len(found) == 4
    assert all(given[name] == text for name, text in found.items())


def test_many_mutated_sequences_are_all_in_the_table_and_some_in_the_picture(
    call, tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr(
        interpretation, "draw", lambda sequences: drawn.extend(one.id for one in sequences) or b""
    )
    call("interpret", f"--output={tmp_path}", "--mutate=30")
    names = [line.split("\t")[0] for line in (tmp_path / "mutagenesis.tsv").read_text().split("\n")]
    top = list(dict.fromkeys(names[1:-1]))
    assert (len(top), drawn) == (30, top[:20])


def exported(call, folder, letters, *flags):
    """The logit of letters from model.stablehlo of the run, as if trained with `flags`."""
    call("export", f"--output={folder}", *flags)
    model = jax.export.deserialize(bytearray((folder / "model.stablehlo").read_bytes()))
    return float(model.call(np.frombuffer(letters.encode(), np.uint8)[None])[0])


@pytest.mark.parametrize("lengths", ["error", "pad", "center_crop"])
def test_exported_programs_treat_lengths_as_predict_does(call, tmp_path, lengths):
    pytest.importorskip("flatbuffers", reason="jax serialises with flatbuffers (extra [export])")
    rng = np.random.default_rng(3)
    flag = f"--config.data.lengths={lengths}"
    for bases in (16, 99, 141):
        text = "".join(rng.choice(list("ACGT"), bases))
        (tmp_path / "x.fa").write_text(f">f\n{text}\n")
        expected = float(rows_of(call("predict", f"--sequences={tmp_path}/x.fa", flag))[0][2])
        assert exported(call, tmp_path, text, flag) == pytest.approx(expected, abs=1e-4)


class Page(HTMLParser):
    """Collects what a page would ask others for, and its headings."""

    def __init__(self):
        super().__init__()
        self.asked, self.headings, self._inside = [], [], False

    def handle_starttag(self, tag, attrs):
        for key, value in attrs:
            if key in ("src", "href", "xlink:href", "data", "srcset"):
                self.asked.append(value)
        self._inside = tag == "h2"

    def handle_data(self, data):
        if self._inside:
            self.headings.append(data)
            self._inside = False


def test_the_report_holds_everything_and_asks_for_nothing(trained):
    page = Page()
    text = (trained[0] / "run" / "report.html").read_text()
    page.feed(text)
    assert all(value.startswith(("#", "data:")) for value in page.asked), page.asked
    assert not re.search(r"@import|url\((?!#)|<script", text)
    assert page.headings == [
        "Scores on the test split", "Curves", "ROC, precision and recall",
        "Confusion table of the test split", "What the filters look for", "Data",
        "Layout and time", "Configuration",
    ]  # fmt: skip
    assert trained[1]["params_sha256"] in text
    assert "resembles TAL1_known4" in text
    assert "Compared with 196 known motifs: the archetypes of JASPAR 2024 and the presets." in text
    assert 'name="viewport"' in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (CI installs it)")
def test_the_report_in_a_browser_fits_a_phone(trained, tmp_path):
    source = (trained[0] / "run" / "report.html").read_text()
    measured = (
        "<script>addEventListener('load', () => { document.title = JSON.stringify({"
        "scroll: document.documentElement.scrollWidth, width: innerWidth,"
        "asked: performance.getEntriesByType('resource').filter("
        "e => !e.name.startsWith('data:')).length,"
        "svgs: [...document.querySelectorAll('figure svg')].map("
        "s => s.getBoundingClientRect()).filter(r => r.width > 200 && r.height > 50).length,"
        "all: document.querySelectorAll('figure svg').length}) })</script>"
    )
    # Headless windows have a least width of 500; a frame has none.
    (tmp_path / "inner.html").write_text(source.replace("</head>", f"{measured}</head>"))
    (tmp_path / "page.html").write_text(
        "<iframe id=f src=inner.html width=390 height=800></iframe><script>addEventListener('load',"
        "() => { document.body.append(document.getElementById('f').contentDocument.title) })"
        "</script>"
    )
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--allow-file-access-from-files", f"--user-data-dir={tmp_path}/user",
            "--dump-dom", f"file://{tmp_path}/page.html",
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = json.loads(re.search(r"\{\"scroll.*?\}", done.stdout)[0])
    assert found["width"] == 390
    assert found["scroll"] <= found["width"]
    assert found["asked"] == 0
    assert found["svgs"] == found["all"] >= 5


@pytest.mark.parametrize(
    ("verb", "flags", "words"),
    [
        ("predict", [], "give either --sequences=X.fa or --variants=X.vcf"),
        ("predict", ["--sequences={tmp}/empty.fa"], "is empty"),
        ("predict", ["--sequences={tmp}/protein.fa"], "record 'p', line 2, offset 2"),
        ("predict", ["--sequences={tmp}/junk"], "this is not text"),
        ("predict", ["--sequences={tmp}/mac.fa"], "as on old Macs"),
        ("predict", ["--sequences={tmp}/cut.fa.gz"], "truncated gzip"),
        ("predict", ["--sequences={tmp}/absent.fa"], "cannot be read"),
        ("predict", ["--sequences={tmp}/ok.fa", "--window=9"], "15 or more"),
        ("predict", ["--sequences={tmp}/ok.fa", "--stride=9"], "--window"),
        ("predict", ["--sequences={tmp}/ok.fa", "--window=20", "--stride=21"], "--stride=21"),
        ("predict", ["--sequences={tmp}/ok.fa", "--output={tmp}/y.bed"], "needs --window"),
        ("predict", ["--sequences={tmp}/ok.fa", "--output={tmp}/y.bw"], "needs --window"),
        ("predict", ["--sequences={tmp}/ok.fa", "--output={tmp}/y.bw.gz"], "unknown suffix"),
        ("predict", ["--sequences={tmp}/ok.fa", "--output={tmp}/y.png"], "unknown suffix"),
        ("predict", ["--sequences={tmp}/ok.fa", "--output={tmp}/no/y.tsv"], "cannot be written"),
        ("predict", ["--sequences={tmp}/ok.fa", "--json"], "--output=Y.tsv"),
        ("predict", ["--variants={tmp}/x.vcf"], "needs --genome"),
        ("evaluate", ["--positives={tmp}/ok.fa"], "--positives and --negatives"),
        ("evaluate", ["--sequences={tmp}/ok.fa", "--labels={tmp}/l.tsv"], "no label for 'o'"),
        ("evaluate", ["--table={tmp}/one.tsv"], "one class"),
        ("interpret", ["--sequences={tmp}/tiny.fa"], "shorter than a filter"),
        ("interpret", ["--motifs={tmp}/ok.fa"], "cannot be parsed"),
        ("interpret", ["--mutate=-1"], "--mutate=-1"),
        ("export", ["--output={tmp}/ok.fa"], "cannot be written"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_file(call, tmp_path, verb, flags, words):
    good = ">o\n" + "ACGTACGTAC" * 3 + "\n"
    (tmp_path / "ok.fa").write_text(good)
    (tmp_path / "empty.fa").write_bytes(b"")
    (tmp_path / "protein.fa").write_text(">p\nMKLVPEF\n")
    (tmp_path / "tiny.fa").write_text(">t\nACGT\n")
    (tmp_path / "mac.fa").write_bytes(good.encode() + b">p\rACGT\n>q\nA\n")
    (tmp_path / "junk").write_bytes(bytes(range(256)))
    (tmp_path / "cut.fa.gz").write_bytes(gzip.compress(good.encode())[:-6])
    (tmp_path / "l.tsv").write_text("id\tlabel\nother\t1\n")
    (tmp_path / "one.tsv").write_text(("ACGT" * 10 + "\t1\n") * 3)
    before = sorted(tmp_path.iterdir())
    sentence = call(verb, *(flag.format(tmp=tmp_path) for flag in flags), code=2)
    assert words in sentence
    assert sentence.startswith("jaxdna: ")
    assert sorted(tmp_path.iterdir()) == before


def test_attribute_finds_the_embedded_sites_and_says_how_exact_it_is(call, trained, tmp_path):
    folder, _ = trained
    records = (folder / "sim" / "positives.fa").read_text().split(">")[1:201]
    (tmp_path / "x.fa").write_text("".join(f">{record}" for record in records))
    outputs = [f"--output={tmp_path}/x.{form}" for form in ("npz", "h5", "tsv.gz")]
    told = call("attribute", f"--sequences={tmp_path}/x.fa", *outputs, "--json").splitlines()
    counted = json.loads(told[-1])
    assert (counted["sequences"], counted["answers"]) == (200, ["logit"])
    assert counted["largest_delta"] <= 1e-5 and counted["beyond"] == 0
    found = np.load(tmp_path / "x.npz")
    assert found["ids"].tolist() == [record.split()[0] for record in records]
    assert found["one_hot"].shape == found["hypothetical"].shape == (200, 4, 100)
    np.testing.assert_allclose(
        found["contributions"], (found["one_hot"] * found["hypothetical"]).sum(axis=1), atol=1e-6
    )
    total = found["contributions"].sum(axis=1, dtype=np.float64) - found["change"]
    np.testing.assert_allclose(total, found["delta"], atol=1e-6)
    with h5py.File(tmp_path / "x.h5") as file:  # as tfmodisco-lite reads it
        assert (file["raw/seq"][:] == found["one_hot"]).all()
        assert (file["shap/seq"][:] == found["hypothetical"]).all()
        assert file["ids"].asstr()[7] == found["ids"][7]
    lines = gzip.decompress((tmp_path / "x.tsv.gz").read_bytes()).decode().splitlines()
    assert lines[0] == "id\tposition\tbase\tcontribution\tA\tC\tG\tT"
    assert len(lines) == 1 + 200 * 100
    name, place, base, own, *four = lines[1 + 3 * 100 + 42].split("\t")
    assert (name, place) == (found["ids"][3], "43")
    assert float(own) == float(four["ACGT".index(base)])
    np.testing.assert_allclose(np.float64(four), found["hypothetical"][3, :, 42], rtol=1e-5)
    sites = sites_of(folder / "sim" / "labels.tsv", found["ids"].tolist())
    assert roc_auc_score(sites.ravel(), np.abs(found["contributions"]).ravel()) > 0.98
    again = tmp_path / "again.npz"
    call("attribute", f"--sequences={tmp_path}/x.fa", f"--output={again}")
    assert (np.load(again)["hypothetical"] == found["hypothetical"]).all()


def sites_of(path, names):
    """Which bases of simulated sequences lie in an embedded site: bool [names, length]."""
    inside = np.zeros((len(names), 100), bool)
    for line in path.read_text().splitlines()[1:]:
        name, *_, embedding = line.split("\t")
        if name in names:
            start, letters = re.fullmatch(r"pos-(\d+)_.*-([ACGT]+)", embedding).groups()
            inside[names.index(name), int(start) : int(start) + len(letters)] = True
    return inside


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--method=ism", "--references=zeros"],
            "--references=zeros does not go with --method=ism",
        ),
        (["--bed=x.bed"], "--bed=x.bed needs --genome=G.fa"),
        (["--genome=g.fa"], "--genome=g.fa needs --bed=X.bed or --variants=X.vcf"),
        (["--sequences=x.fa", "--bed=x.bed"], "do not go together; give only one of them"),
        (["--shuffles=0"], "--shuffles=0 is not legal: it must be 1 or more"),
        (["--answer=x"], "--answer=x is unknown; legal: "),
        (["--output=x.txt"], "--output=x.txt has an unknown suffix; legal: .npz, .h5, .png"),
        (["--output=a.npz", "--output=./a.npz"], "is the same file twice"),
        (
            ["--output=/nowhere/a.npz", "--method=saliency"],
            "--output=/nowhere/a.npz cannot be writ",
        ),
        (["--sequences=SHORT"], "shorter than a filter; legal: 15 bases"),
        (["--sequences=SAME"], "every reference of sequence 'a' equals the sequence"),
    ],
)
def test_attribute_refuses_in_a_sentence_and_writes_nothing(call, tmp_path, flags, said):
    (tmp_path / "short.fa").write_text(">a\nACGT\n")
    (tmp_path / "same.fa").write_text(">a\n" + "A" * 100 + "\n")
    files = {"SHORT": str(tmp_path / "short.fa"), "SAME": str(tmp_path / "same.fa")}
    for word, path in files.items():
        flags = [flag.replace(word, path) for flag in flags]
    if not any(flag.startswith("--output") for flag in flags):
        flags = [*flags, f"--output={tmp_path}/out.npz"]
    before = set(tmp_path.iterdir())
    assert said in call("attribute", *flags, code=2)
    assert set(tmp_path.iterdir()) == before
