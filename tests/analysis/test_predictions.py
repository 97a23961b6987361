"""Every record and window gets its own exact score, once and in order, however it is cut."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit

from jaxdna.analysis import mutagenesis, predictions
from jaxdna.analysis import scan_scorer as scorers
from jaxdna.analysis.predictions import Lengths, score_records, score_windows
from jaxdna.analysis.scan_scorer import ROW_POSITIONS, ScanScorer, row_length
from jaxdna.config import default_config, flat, validate
from jaxdna.data import streams
from jaxdna.data.fasta import read_fasta_blocks, read_fasta_pieces
from jaxdna.data.prediction_files import header, tsv_lines
from jaxdna.data.records import fit_length, join
from jaxdna.data.sequences import one_hot, reverse_complement
from jaxdna.models.registry import build_network
from jaxdna.parallel.mesh import flat_mesh
from jaxdna.runs.trained import Trained
from jaxdna.tasks.classes import Binary
from jaxdna.tasks.kinds import of_classes
from jaxdna.tasks.labels import Multilabel

WIDTH, FILTERS = 5, 3


def make_trained(devices):
    config = validate(
        flat(default_config("fasta", "motif_cnn"))
        | {"model.filters": FILTERS, "model.width": WIDTH}
    )
    graph, state = nnx.split(build_network(config, 1))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), nnx.to_pure_dict(state)
    )
    return Trained(config, flat_mesh(jax.devices()[:devices]), graph, params, 40, of_classes(2))


@pytest.fixture(scope="module")
def trained():
    return make_trained(8)


def plain_logit(params, codes, strands):
    """The definition, in float64: convolution, maximum, ReLU, a linear map; both strands."""

    def one(codes):
        x = one_hot(codes).astype(np.float64)
        windows = np.stack([x[i : i + WIDTH] for i in range(len(codes) - WIDTH + 1)])
        kernel = params["conv"]["kernel"].astype(np.float64)
        best = np.einsum("pwc,wcf->pf", windows, kernel).max(axis=0) + params["conv"]["bias"]
        dense = params["dense"]
        return float(np.maximum(best, 0) @ dense["kernel"][:, 0] + dense["bias"][0])

    both = one(codes), one(reverse_complement(codes))
    return {"forward": both[0], "average": sum(both) / 2, "max": max(both)}[strands]


def tolerance(params):
    """Rounding of float32 sums: terms times epsilon times their largest possible sum."""
    score = np.abs(params["conv"]["kernel"]).max(axis=1).sum(axis=0) + np.abs(
        params["conv"]["bias"]
    )
    logit = score @ np.abs(params["dense"]["kernel"][:, 0])
    return float((4 * WIDTH + FILTERS + 2) * np.finfo(np.float32).eps * logit)


def write_fasta(path, lengths, seed=0, letters="ACGTN", shares=(0.24, 0.24, 0.24, 0.24, 0.04)):
    rng = np.random.default_rng(seed)
    with path.open("w") as stream:
        for i, length in enumerate(lengths):
            text = "".join(rng.choice(list(letters), length, p=shares))
            lines = [text[at : at + 60] for at in range(0, length, 60)]
            stream.write(f">r{i} x\n" + "".join(f"{line}\n" for line in lines))
    return path


def joined(rows):
    rows = list(rows)
    notes, offset = {}, 0
    for part in rows:
        notes |= {row + offset: note for row, note in part.notes.items()}
        offset += len(part)
    return (
        [name for part in rows for name in part.ids],
        np.concatenate([part.starts for part in rows]),
        np.concatenate([part.stops for part in rows]),
        np.concatenate([part.outputs[:, 0] for part in rows]),
        notes,
    )


def records_of(path):
    blocks = read_fasta_blocks(path, allow_empty=True)
    return [(name, block[i]) for block in blocks for i, name in enumerate(block.ids)]


MIXED = [0, 3, 4, 5, 6, 500, 7, 39, 40, 41, 1000, 0, 5, 64, 261, 2, 90, 33, 1, 700]


@pytest.mark.parametrize("strands", ["forward", "average", "max"])
@pytest.mark.parametrize("policy", ["error", "pad", "center_crop"])
@pytest.mark.parametrize("block", [37, 600, 2**20])
def test_each_record_has_its_own_exact_score(
    trained, tmp_path, monkeypatch, strands, policy, block
):
    path = write_fasta(tmp_path / "x.fa", MIXED)
    records = records_of(path)
    monkeypatch.setattr(streams, "BLOCK_BYTES", block)
    monkeypatch.setattr(predictions, "_PADDED_BASES", 40 * (block // 100))
    most = None if policy == "center_crop" else 80
    pieces = read_fasta_pieces(path, most_bases=most)
    scored = score_records(pieces, ScanScorer(trained, strands), Lengths(policy, 40))
    ids, starts, stops, logits, notes = joined(scored)
    assert ids == [name for name, _ in records]
    assert starts.tolist() == [0] * len(records)
    assert stops.tolist() == [len(codes) for _, codes in records]
    bound = tolerance(trained.params)
    for row, (_, codes) in enumerate(records):
        if len(codes) < WIDTH:
            assert np.isnan(logits[row])
            assert ("no sequence" if len(codes) == 0 else "shorter than a filter") in notes[row]
            continue
        fits = policy == "error" or (len(codes) > 40) != (policy == "center_crop")
        if not fits:
            codes = fit_length(join(["x"], [codes]), 40, policy, "x")[0]
        assert logits[row] == pytest.approx(plain_logit(trained.params, codes, strands), abs=bound)


@pytest.mark.parametrize(("window", "stride"), [(40, 20), (40, 40), (30, 7), (9, 1), (64, 48)])
@pytest.mark.parametrize("block", [53, 2**20])
def test_each_window_has_its_own_exact_score(trained, tmp_path, monkeypatch, window, stride, block):
    path = write_fasta(tmp_path / "x.fa", [0, 3, 8, 41, 517, 40, 9, 300, 64, 100])
    records = records_of(path)
    monkeypatch.setattr(streams, "BLOCK_BYTES", block)
    pieces = read_fasta_pieces(path, most_bases=2 * window)
    ids, starts, stops, logits, _ = joined(
        score_windows(pieces, ScanScorer(trained), window, stride)
    )
    expected = []
    for name, codes in records:
        begins = list(range(0, max(1, len(codes) - window + 1), stride))
        if len(codes) > window and begins[-1] + window < len(codes):
            begins.append(len(codes) - window)
        expected += [(name, at, min(at + window, len(codes)), codes) for at in begins]
    assert list(zip(ids, starts, stops, strict=True)) == [row[:3] for row in expected]
    bound = tolerance(trained.params)
    for logit, (_, start, stop, codes) in zip(logits, expected, strict=True):
        if stop - start < WIDTH:
            assert np.isnan(logit)
        else:
            plain = plain_logit(trained.params, codes[start:stop], "average")
            assert logit == pytest.approx(plain, abs=bound)


def test_rows_of_a_full_batch_equal_those_predicted_alone(trained, tmp_path, monkeypatch):
    """Many calls of the devices, the last one partly filled, against one record at a time."""
    monkeypatch.setattr(scorers, "_CALL_BASES", 4000)
    path = write_fasta(tmp_path / "x.fa", [30] * 5000 + list(range(20, 300)))
    scorer = ScanScorer(trained)
    ids, _, _, logits, _ = joined(
        score_records(read_fasta_pieces(path), scorer, Lengths("error", 40))
    )
    assert ids == [f"r{i}" for i in range(5280)]
    chosen = [0, 1, 63, 64, 4999, 5000, 5111, 5279]
    records = records_of(path)
    for row in chosen:
        codes = records[row][1]
        alone = scorer.outputs(codes, np.array([0]), np.array([codes.size - WIDTH + 1]))[0, 0]
        assert logits[row] == pytest.approx(alone, abs=tolerance(trained.params))


def test_one_device_and_eight_agree(trained, tmp_path):
    path = write_fasta(tmp_path / "x.fa", [100] * 200)
    one, eight = (
        joined(score_records(read_fasta_pieces(path), ScanScorer(t), Lengths("error", 40)))[3]
        for t in (make_trained(1), trained)
    )
    np.testing.assert_allclose(one, eight, rtol=0, atol=tolerance(trained.params))


def test_what_has_no_known_base_has_no_score_and_much_n_is_noted(trained, tmp_path):
    (tmp_path / "x.fa").write_text(">a\nNNNNNNNNNN\n>b\nNNNNACGTAC\n>c\nACGTACGTAC\n")
    _, _, _, logits, notes = joined(
        score_records(read_fasta_pieces(tmp_path / "x.fa"), ScanScorer(trained), Lengths("pad", 40))
    )
    assert np.isnan(logits).tolist() == [True, False, False]
    assert notes == {0: "no known base", 1: "4 of 10 letters unknown"}


def test_mutants_have_the_same_bits_however_many_are_scored_at_once(trained, monkeypatch):
    codes = np.random.default_rng(1).integers(0, 5, 70).astype(np.uint8)
    scorer = ScanScorer(trained)
    whole = mutagenesis.mutate(scorer, codes, 3, 60)
    assert whole.shape == (57, 4, 1)
    monkeypatch.setattr(mutagenesis, "_AT_ONCE_BASES", 4 * 70 * 8)
    np.testing.assert_array_equal(mutagenesis.mutate(scorer, codes, 3, 60), whole)
    assert mutagenesis.mutate(scorer, codes, 3, 3).shape == (0, 4, 1)


def test_rows_never_exceed_the_stretch_and_waste_little():
    for positions in [*range(1, 600), 5000]:
        row = row_length(positions, 15)
        assert row in ROW_POSITIONS
        assert row <= positions
    bases = -(-486 // row_length(486, 15)) * (row_length(486, 15) + 14)
    assert bases < 1.15 * 500  # the default model's own length
    # Windows of 500 every 250 bases share their rows: little more than one scan of each base.
    row = row_length(486, 15, stride=250)
    assert (250 // row + 1) * (row + 14) < 1.7 * 250


@pytest.mark.parametrize("strands", ["forward", "average", "max"])
def test_an_ensemble_answers_with_the_mean_of_its_networks(trained, strands):
    rng = np.random.default_rng(1)
    members = tuple(
        jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), trained.params)
        for _ in range(3)
    )
    codes = rng.integers(0, 4, 40, dtype=np.uint8)
    scorer = ScanScorer(replace(trained, ensemble=members), strands)
    found = scorer.outputs(codes, np.array([0]), np.array([40 - WIDTH + 1]))
    expected = np.mean([plain_logit(params, codes, strands) for params in members])
    np.testing.assert_allclose(found, [[expected]], rtol=0, atol=tolerance(members[0]))
    scorer.each = True
    each = scorer.outputs(codes, np.array([0]), np.array([40 - WIDTH + 1]))
    alone = [plain_logit(params, codes, strands) for params in members]
    np.testing.assert_allclose(each, [[expected, *alone]], rtol=0, atol=tolerance(members[0]))


def test_what_each_member_says_follows_the_note():
    task = Binary()
    outputs = np.array([[0.5, 1.0, 0.0], [np.nan] * 3], np.float32)
    names = header(task, members=(2, 7)).rstrip("\n").split("\t")
    assert names == ["id", "probability", "logit", "note", "sd", "member_2", "member_7"]
    lines = tsv_lines(task, ["a", "b"], outputs, {1: "no sequence"}).splitlines()
    row = dict(zip(names, lines[0].split("\t"), strict=True))
    chances = 1 / (1 + np.exp([-1.0, 0.0]))
    np.testing.assert_allclose(
        [float(row[name]) for name in ("probability", "sd", "member_2", "member_7")],
        [1 / (1 + np.exp(-0.5)), np.std(chances, ddof=1), *chances],
        rtol=1e-5,
    )
    assert lines[1] == "b\tNA\tNA\tno sequence\tNA\tNA\tNA"
    several = Multilabel(("p", "q"))
    assert header(several, members=(0, 1)).split("\t")[4:] == [
        "p_sd", "p_member_0", "p_member_1", "q_sd", "q_member_0", "q_member_1\n",
    ]  # fmt: skip
    outputs = np.array([[0, 0, 1, 2, 3, 4]], np.float32)
    row = tsv_lines(several, ["a"], outputs, {}).rstrip("\n").split("\t")
    found = [float(value) for value in row[4:]]
    np.testing.assert_allclose(np.array(found)[[1, 2, 4, 5]], expit([1, 3, 2, 4]), rtol=1e-5)
