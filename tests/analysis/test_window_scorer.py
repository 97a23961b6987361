"""Any network predicts: records, windows, alleles, mutants and the exported program."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdna.analysis import window_scorer
from jaxdna.analysis.export import stablehlo
from jaxdna.analysis.mutagenesis import mutate
from jaxdna.analysis.predictions import Lengths, score_records, score_windows
from jaxdna.analysis.scorers import make_scorer
from jaxdna.analysis.variant_effects import score_variants, write_variants
from jaxdna.analysis.window_scorer import WindowScorer
from jaxdna.config import default_config, flat, validate
from jaxdna.data.fasta import read_fasta_pieces
from jaxdna.data.genome import Genome
from jaxdna.data.prediction_files import header, tsv_lines
from jaxdna.data.sequences import decode, encode, reverse_complement
from jaxdna.data.variants import read_variants
from jaxdna.models.network import Layer, Network
from jaxdna.ops.one_hot import one_hot
from jaxdna.parallel.mesh import flat_mesh
from jaxdna.runs.trained import Trained
from jaxdna.tasks.classes import Multiclass
from jaxdna.tasks.numbers import Regression

LENGTH, OUTPUTS = 20, 3
RNG = np.random.default_rng(3)
WEIGHTS = RNG.normal(size=(LENGTH, 4, OUTPUTS)).astype(np.float32)
CLASSES = Multiclass(("none", "E-box", "TATA"))
STRANDED = Regression(("plus", "minus", "both"), (1, 0, 2), (1.0, 1.0, 5.0), (2.0, 2.0, 3.0))


class Whole(Layer):
    """A linear map of all bases, squared, so that it is not a sum over positions."""

    def __init__(self):
        self.kernel = nnx.Param(jnp.zeros((LENGTH, 4, OUTPUTS)))

    def __call__(self, x, rngs=None):
        return jnp.tanh(jnp.einsum("blc,lco->bo", one_hot(x, jnp.float32), self.kernel[...])) ** 2


def trained(task, lengths="error", devices=2):
    config = validate(flat(default_config("fasta", "motif_cnn")) | {"data.lengths": lengths})
    graph, _ = nnx.split(nnx.eval_shape(lambda: Network({"whole": Whole()})))
    params = {"whole": {"kernel": WEIGHTS}}
    return Trained(config, flat_mesh(jax.devices()[:devices]), graph, params, LENGTH, task)


def plain(codes, task):
    """Both strands in float64; N is nothing."""

    def one(codes):
        each = [WEIGHTS[i, base] for i, base in enumerate(codes) if base < 4]
        return np.tanh(np.sum(each, axis=0, dtype=np.float64)) ** 2

    other = one(reverse_complement(np.asarray(codes)))
    return (one(codes) + (other[list(task.swaps)] if task.swaps else other)) / 2


def records(folder, sizes):
    rows = [RNG.integers(0, 4, size).astype(np.uint8) for size in sizes]
    text = "".join(f">r{i}\n{decode(codes)}\n" for i, codes in enumerate(rows))
    (folder / "x.fa").write_text(text)
    return rows, folder / "x.fa"


def joined(parts):
    """Outputs, first bases and notes of all rows."""
    outputs, starts, notes = [], [], {}
    for part in parts:
        notes |= {len(starts) + row: note for row, note in part.notes.items()}
        outputs.append(part.outputs)
        starts += part.starts.tolist()
    return np.concatenate(outputs), starts, notes


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("task", [CLASSES, STRANDED], ids=["classes", "strands"])
@pytest.mark.parametrize("lengths", ["error", "pad", "center_crop"])
def test_records_are_scored_as_training_saw_them(tmp_path, lengths, task, devices):
    rows, path = records(tmp_path, [20, 7, 20, 33, 20, 20, 21, 1])
    scorer = make_scorer(trained(task, lengths, devices))
    assert isinstance(scorer, WindowScorer)
    scored = score_records(read_fasta_pieces(path), scorer, Lengths(lengths, LENGTH))
    outputs, _, notes = joined(scored)
    for i, codes in enumerate(rows):
        if lengths == "pad" and codes.size < LENGTH:
            before = (LENGTH - codes.size) // 2
            codes = np.pad(codes, (before, LENGTH - codes.size - before), constant_values=4)
        if lengths == "center_crop" and codes.size > LENGTH:
            codes = codes[(codes.size - LENGTH) // 2 :][:LENGTH]
        if codes.size == LENGTH:
            assert outputs[i] == pytest.approx(plain(codes, task), abs=1e-6)
        else:
            assert np.isnan(outputs[i]).all()
            assert notes[i] == f"{rows[i].size} bases, but the network reads 20"


def test_rows_show_every_class_or_number(tmp_path):
    _, path = records(tmp_path, [20, 9])
    scorer = make_scorer(trained(CLASSES))
    outputs, _, notes = joined(
        score_records(read_fasta_pieces(path), scorer, Lengths("error", LENGTH))
    )
    names = ["id", "class", "probability_none", "probability_E-box", "probability_TATA", "note"]
    assert header(CLASSES) == "\t".join(names) + "\n"
    first, second = tsv_lines(CLASSES, ["r0", "r1"], outputs, notes).splitlines()
    shares = np.array(first.split("\t")[2:5], float)
    assert shares.sum() == pytest.approx(1, abs=1e-5)
    assert first.split("\t")[1] == CLASSES.names[shares.argmax()]
    assert second == "r1\tNA\tNA\tNA\tNA\t9 bases, but the network reads 20"
    assert header(STRANDED) == "id\tplus\tminus\tboth\tnote\n"


def test_windows_are_scored_once_each_in_many_calls(tmp_path, monkeypatch):
    monkeypatch.setitem(window_scorer._CALL_BASES, "cpu", 5 * LENGTH)
    rows, path = records(tmp_path, [204, 20, 19])
    scorer = make_scorer(trained(CLASSES))
    outputs, firsts, _ = joined(score_windows(read_fasta_pieces(path), scorer, LENGTH, 3))
    starts = [*range(0, 185, 3), 184]
    assert firsts == [*starts, 0, 0]
    for row, start in enumerate(starts):
        wanted = plain(rows[0][start : start + LENGTH], CLASSES)
        assert outputs[row] == pytest.approx(wanted, abs=1e-6)
    assert np.isnan(outputs[-1]).all()


@pytest.mark.parametrize("slide", [False, True])
def test_alleles_and_mutants_change_what_the_plain_network_says(tmp_path, slide):
    letters = decode(RNG.integers(0, 4, 80).astype(np.uint8))
    (tmp_path / "g.fa").write_text(f">c\n{letters}\n")
    other = "ACGT"["ACGT".index(letters[40]) - 1]
    (tmp_path / "x.vcf").write_text(f"#CHROM\nc\t41\t.\t{letters[40]}\t{other}\n")
    genome, scorer = Genome(tmp_path / "g.fa"), make_scorer(trained(STRANDED))
    variants = read_variants(tmp_path / "x.vcf", genome, LENGTH, slide)
    stream = io.StringIO()
    write_variants([("tsv", stream)], STRANDED, score_variants(variants, scorer, slide), slide)
    row = dict(zip(*(line.split("\t") for line in stream.getvalue().splitlines()), strict=True))
    changed = letters[:40] + other + letters[41:]
    ends = {}
    for start in range(21, 41):
        pair = [
            plain(encode(text[start : start + LENGTH]), STRANDED) for text in (letters, changed)
        ]
        ends[start] = STRANDED.predicted(np.array(pair))
    for i, name in enumerate(STRANDED.names):
        reference, alternative = ends[30][:, i]
        assert float(row[f"reference_{name}"]) == pytest.approx(reference, rel=1e-4)
        assert float(row[f"{name}_change"]) == pytest.approx(alternative - reference, abs=1e-4)
        if slide:
            largest = max(ends.values(), key=lambda pair: abs(pair[1, i] - pair[0, i]))
            change = largest[1, i] - largest[0, i]
            assert float(row[f"largest_{name}_change"]) == pytest.approx(change, abs=1e-4)
    codes = encode(letters[:LENGTH])
    changes = mutate(scorer, codes)
    assert changes.shape == (LENGTH, 4, OUTPUTS)
    turned = codes.copy()
    turned[7] = (turned[7] + 1) % 4
    both = STRANDED.predicted(np.array([plain(codes, STRANDED), plain(turned, STRANDED)]))
    np.testing.assert_allclose(changes[7, turned[7]], both[1] - both[0], atol=1e-5)
    assert (changes[np.arange(LENGTH), codes] == 0).all()


def test_the_exported_program_is_the_network(tmp_path):
    pytest.importorskip("flatbuffers")
    program = jax.export.deserialize(bytearray(stablehlo(trained(STRANDED))))
    codes = RNG.integers(0, 4, (5, LENGTH)).astype(np.uint8)
    text = np.frombuffer(b"".join(decode(row).encode() for row in codes), np.uint8)
    found = program.call(text.reshape(5, LENGTH))
    wanted = [plain(row, STRANDED) for row in codes]
    np.testing.assert_allclose(np.asarray(found), wanted, atol=1e-6)
