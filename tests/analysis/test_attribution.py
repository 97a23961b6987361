"""Scores of bases: by hand, complete, on any number of devices, or refused in a sentence."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdna import schema
from jaxdna.analysis import attribution, references
from jaxdna.analysis.attributed import BOUND
from jaxdna.analysis.attribution import Settings, make_attributor
from jaxdna.analysis.attribution_kept import Kept
from jaxdna.analysis.references import make_references
from jaxdna.config import default_config, flat, validate
from jaxdna.data.motifs import load_motif
from jaxdna.data.sequences import encode, one_hot, reverse_complement
from jaxdna.errors import UserError
from jaxdna.models.network import Layer, Network
from jaxdna.models.registry import build_network
from jaxdna.parallel.mesh import flat_mesh
from jaxdna.runs.trained import Trained
from jaxdna.tasks.classes import Binary
from jaxdna.tasks.numbers import Counts, Regression

LENGTH = 60
NETWORKS = {
    "motif_cnn": {"filters": 8, "width": 7},
    "gapped": {
        **{"filters": 4, "width": 7, "short_filters": 4, "short_width": 4},
        **{"dense": "6", "span": 5, "letters": 3, "kmer_share": 0.7, "both_strands": True},
        **{"inner_filters": 5, "inner_width": 3, "pool": 3},
    },
    "deep_cnn": {"filters": "8,6", "width": 5, "inner_width": 3, "pool": 3, "dense": "5"},
    "dilated": {"filters": 6, "width": 5, "layers": 2},
    "attention": {"filters": 8, "width": 5, "pool": 4, "blocks": 1, "heads": 2},
    "multiscale": {"filters": 6, "width": 9, "short_filters": 4, "short_width": 5, "dense": "5"},
}
STRANDED = Regression(("plus", "minus", "both"), (1, 0, 2), (1.0, 1.0, 5.0), (2.0, 2.0, 3.0))


def trained(name="motif_cnn", task=None, devices=1, strands="average", **model):
    """A network whose parameters are all drawn."""
    task = task or STRANDED
    model = NETWORKS.get(name, {}) | model | {"strands": strands}
    leaves = flat(default_config("fasta", name)) | {f"model.{k}": v for k, v in model.items()}
    config = validate(leaves)
    network = nnx.eval_shape(lambda: build_network(config, task.outputs, (LENGTH,)))
    graph, state = nnx.split(network)
    rng = np.random.default_rng(1)

    def draw(leaf):
        inputs = np.prod(leaf.shape[:-1])  # of a kernel; 1 of what is added or multiplied with
        return (rng.normal(size=leaf.shape) / np.sqrt(inputs)).astype(np.float32)

    params = jax.tree.map(draw, nnx.to_pure_dict(state))
    return Trained(config, flat_mesh(jax.devices()[:devices]), graph, params, LENGTH, task)


def own_network(layer, devices=2):
    graph, state = nnx.split(Network({"own": layer}))
    config = validate(flat(default_config("fasta", "motif_cnn")))
    params = nnx.to_pure_dict(state)
    return Trained(config, flat_mesh(jax.devices()[:devices]), graph, params, LENGTH, Binary())


def sequences():
    """Random ones, one with two equal halves and a repeat, so that windows tie, and one with N."""
    codes = np.random.default_rng(2).integers(0, 4, (10, LENGTH), dtype=np.uint8)
    codes[1] = np.concatenate([codes[1, :20], codes[1, :20], encode("AC" * 10)])
    codes[2, 25:31] = 4
    return codes


def joined(model, settings, codes=None, strands=None):
    codes = sequences() if codes is None else codes
    blocks = [([f"s{i}" for i in range(len(codes))], codes)]
    parts = list(make_attributor(model, settings, strands)(blocks))
    assert [name for part in parts for name in part.ids] == blocks[0][0]
    assert (np.concatenate([part.codes for part in parts]) == codes).all()
    names = ("hypothetical", "contributions", "outputs", "change", "size", "delta", "missed")
    names += ("beyond",)
    return {k: np.concatenate([getattr(part, k) for part in parts]) for k in names}


def test_the_choices_are_those_that_there_are():
    assert set(schema.ATTRIBUTION_METHODS) == {*attribution.BY_DERIVATIVES, "ism"}
    assert tuple(references.KINDS) == schema.ATTRIBUTION_REFERENCES


@pytest.mark.parametrize(
    ("name", "strands"),
    [*((name, "average") for name in NETWORKS), ("dilated", "max")],
)
def test_deeplift_shares_out_all_of_the_change_on_every_network(name, strands):
    model = trained(name, strands=strands)
    found = joined(model, Settings(shuffles=5))
    assert not found["beyond"].any()
    assert found["missed"].max() < 5 * BOUND  # where the outputs themselves are rounded
    assert (found["size"] > 1e-3).all()
    total = found["contributions"].sum(axis=-1, dtype=np.float64)
    np.testing.assert_allclose(total - found["change"], found["delta"], atol=1e-6)
    plain = network_outputs(model, sequences(), strands)
    np.testing.assert_allclose(found["outputs"], STRANDED.predicted(plain), rtol=1e-5)


def network_outputs(model, codes, strands="average"):
    """The network on codes, as it predicts."""
    network = model.network(model.params)
    forward, other = (np.asarray(network(x)) for x in (codes, reverse_complement(codes)))
    other = model.task.turned(other)
    return {"average": (forward + other) / 2, "max": np.maximum(forward, other)}.get(
        strands, forward
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_answers_alike_to_codes_and_to_their_one_hot_form(name):
    model = trained(name)
    network, codes = model.network(model.params), np.random.default_rng(3).integers(0, 6, (9, 60))
    codes = codes.astype(np.uint8)
    np.testing.assert_allclose(network(codes), network(one_hot(codes)), atol=1e-5)


def by_hand(x, r, kernel, bias, weights):
    """DeepLIFT of [convolution, maximum, bias, ReLU, sum] in float64, window by window."""
    width = len(kernel)
    shares, slopes = np.zeros_like(x), np.zeros_like(x)
    windows = range(len(x) - width + 1)
    for f in range(kernel.shape[2]):
        at = [[(one[i : i + width] * kernel[..., f]).sum() for i in windows] for one in (x, r)]
        best = [int(np.argmax(side)) for side in at]
        low, high = at[1][best[1]], at[0][best[0]]
        opened = max(high + bias[f], 0) - max(low + bias[f], 0)
        place = best[0] if high > low else best[1]
        slope = weights[f] * opened / (at[0][place] - at[1][place])
        slopes[place : place + width] += slope * kernel[..., f]
    shares = slopes - (slopes * r).sum(axis=1, keepdims=True)
    return shares


def test_hypothetical_scores_are_those_by_hand():
    model, codes = trained(task=Binary(), strands="forward"), sequences()[:1]
    own = jax.tree.map(np.float64, model.params)
    wanted = np.zeros((LENGTH, 4))
    drawn = make_references("dinucleotide_shuffle", codes, 4, np.random.default_rng([7, 0]))
    for r in np.float64(drawn[0]):
        wanted += by_hand(
            np.float64(one_hot(codes[0])), r, own["conv"]["kernel"], own["conv"]["bias"],
            own["dense"]["kernel"][:, 0],
        ) / 4  # fmt: skip
    found = joined(model, Settings(shuffles=4, seed=7), codes)
    np.testing.assert_allclose(found["hypothetical"][0, 0], wanted, atol=1e-5)
    assert np.abs(wanted).max() > 0.1


@pytest.mark.parametrize(
    ("name", "kind"),
    [("motif_cnn", "background"), ("dilated", "background"), ("deep_cnn", "zeros")],
)
def test_integrated_gradients_converge_to_their_sum(name, kind):
    """Also where rectifiers bend, and where a normalisation turns all beside the reference."""
    errors = []
    for steps in (16, 256):
        settings = Settings("integrated_gradients", kind, steps=steps)
        found = joined(trained(name), settings, sequences()[:2])
        errors.append(np.abs(found["delta"]).sum() / found["size"].sum())
    assert errors[1] < min(1e-3, errors[0] / 16)


class Smooth(Layer):
    def __init__(self):
        self.kernel = nnx.Param(jnp.asarray(KERNEL))

    def __call__(self, x, rngs=None):
        x = one_hot_on_device(x)
        return jnp.tanh(jnp.einsum("blc,lc->b", x, self.kernel[...]))[:, None]


def test_integrated_gradients_of_a_smooth_function_gain_more_than_the_steps_grow():
    errors = []
    for steps in (8, 128):
        found = joined(own_network(Smooth()), Settings("integrated_gradients", steps=steps))
        errors.append(np.abs(found["delta"]).sum() / found["size"].sum())
        assert (found["size"] > 1e-3).all()
    assert errors[0] > 64 * errors[1] and errors[1] < 2e-5


KERNEL = np.random.default_rng(4).normal(size=(LENGTH, 4)).astype(np.float32) / 5


def one_hot_on_device(x):
    from jaxdna.ops.one_hot import one_hot

    return one_hot(x)


def test_saliency_and_mutagenesis_are_what_single_bases_do():
    model, codes = trained("dilated"), sequences()[:2]
    exact = joined(model, Settings("ism"), codes)
    assert np.isnan(exact["delta"]).all()
    mutants = np.repeat(codes[1][None], 4 * LENGTH, axis=0).reshape(LENGTH, 4, LENGTH)
    mutants[np.arange(LENGTH), :, np.arange(LENGTH)] = np.arange(4)
    plain = STRANDED.predicted(network_outputs(model, mutants.reshape(-1, LENGTH)))
    plain = plain.reshape(LENGTH, 4, 3).transpose(2, 0, 1)
    wanted = plain - plain.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(exact["hypothetical"][1], wanted, atol=1e-5)
    # The gradient, by differences of a network that takes halves of bases.
    slopes = joined(model, Settings("saliency"), codes)["hypothetical"][1]
    x = np.repeat(one_hot(codes[1])[None], 4, axis=0)
    step = 0.01
    x[np.arange(4), 30, np.arange(4)] += step
    network = model.network(model.params)
    near, there = (np.asarray(network(v)) for v in (x, one_hot(codes[1])[None]))
    turned = [np.asarray(network(v[:, ::-1, ::-1])) for v in (x, one_hot(codes[1])[None])]
    rise = (near - there + STRANDED.turned(turned[0] - turned[1])) / (2 * step)
    rise = (rise * np.array(STRANDED.scale)).T
    np.testing.assert_allclose(slopes[:, 30], rise - rise.mean(axis=-1, keepdims=True), atol=2e-3)


@pytest.mark.parametrize("method", schema.ATTRIBUTION_METHODS)
def test_eight_devices_have_the_numbers_of_one(method):
    codes = sequences() if method == "ism" else np.concatenate([sequences()] * 4)
    settings = Settings(method, shuffles=3, steps=8)
    one, eight = (joined(trained("dilated", devices=n), settings, codes) for n in (1, 8))
    for name, values in one.items():
        if name not in ("delta", "missed", "beyond"):  # which are rounding
            np.testing.assert_allclose(eight[name], values, atol=2e-6, err_msg=name)


def test_references_keep_what_they_promise():
    codes, rng = sequences(), np.random.default_rng(0)
    drawn = make_references("dinucleotide_shuffle", codes, 6, rng)
    assert drawn.shape == (10, 6, LENGTH, 4)
    same = drawn[0, :, :, :].sum(axis=1)  # each base as often
    assert (same == one_hot(codes[0]).sum(axis=0)).all() and (drawn[0, 0] != drawn[0, 1]).any()
    pairs = [np.unique(4 * r[:-1] + r[1:], return_counts=True) for r in drawn[0].argmax(axis=-1)]
    assert all((one == two).all() for one, two in zip(pairs[0], pairs[1], strict=True))
    assert (drawn[2, :, 25:31] == 0).all() and (drawn[2, :, :25].sum(axis=-1) == 1).all()
    shares = make_references("background", codes, 6, rng)
    counts = one_hot(codes[2]).sum(axis=0)
    np.testing.assert_allclose(shares[2, 0, 0], counts / counts.sum(), rtol=1e-6)
    assert (shares[2, 0, 25:31] == 0).all()
    assert not make_references("zeros", codes, 6, rng).any()


@pytest.mark.parametrize("kind", schema.ATTRIBUTION_REFERENCES)
def test_alleles_are_compared_with_the_same_references(kind):
    codes = np.repeat(np.random.default_rng(9).integers(0, 4, (18, LENGTH), dtype=np.uint8), 2, 0)
    codes[3::2, 30] = (codes[3::2, 30] + 1) % 4  # all variants but the first are some
    settings = Settings(references=kind, shuffles=3, together=2)
    found = joined(trained(), settings, codes)
    pairs = {k: v.reshape(18, 2, *v.shape[1:]) for k, v in found.items()}
    np.testing.assert_allclose(pairs["hypothetical"][0, 0], pairs["hypothetical"][0, 1], atol=1e-6)
    changes, outputs = (np.diff(pairs[k], axis=1) for k in ("change", "outputs"))
    np.testing.assert_allclose(changes, outputs, atol=2e-5)
    assert (abs(outputs[1:]) > 0).any() and not found["beyond"].any()


def stopped(path, codes, of="x", most=None):
    """Scores with what is kept at `path`; returns the scores and how many were kept."""
    kept, found = Kept(path, {"of": of}), []
    blocks = [([f"s{i}" for i in range(len(codes))], codes)]
    scores = make_attributor(trained(), Settings(shuffles=2))(blocks, kept)
    for part in scores:
        found.append(part.hypothetical)
        if most and sum(map(len, found)) >= most:
            scores.close()
    return np.concatenate(found), kept


def test_what_was_stopped_goes_on_with_the_same_bytes_and_mixes_nothing_in(tmp_path):
    path = str(tmp_path / "x.npz")
    codes = np.random.default_rng(8).integers(0, 4, (120, LENGTH), dtype=np.uint8)
    whole, _ = stopped(str(tmp_path / "whole.npz"), codes)
    stopped(path, codes, most=70)
    found, kept = stopped(path, codes, most=110)
    assert kept.used == 64 and found.tobytes() == whole[: len(found)].tobytes()
    found, kept = stopped(path, codes)
    assert kept.used == 96 and found.tobytes() == whole.tobytes()
    kept.path.write_bytes(kept.path.read_bytes()[:-9])  # the last record is torn
    found, kept = stopped(path, codes)
    assert kept.used == 96 and found.tobytes() == whole.tobytes()
    damaged = bytearray(kept.path.read_bytes())
    damaged[len(damaged) // 2] ^= 8
    kept.path.write_bytes(damaged)
    found, kept = stopped(path, codes)
    assert 0 < kept.used < 96 and found.tobytes() == whole.tobytes()
    others = codes.copy()
    others[40, 7] ^= 1
    found, kept = stopped(path, others)
    assert kept.used == 32 and (found[:32] == whole[:32]).all() and (found[40] != whole[40]).any()
    assert stopped(path, others, of="another network")[1].used == 0
    kept.remove()
    assert {file.name for file in tmp_path.iterdir()} == {".whole.npz.kept"}


def test_what_is_unknown_adds_nothing_and_one_answer_is_one_of_all():
    codes = sequences()
    codes[3, 10:20] = 5
    every = joined(trained(), Settings(shuffles=2), codes)
    assert (every["contributions"][2, :, 25:31] == 0).all()
    assert (every["contributions"][3, :, 10:20] == 0).all()
    assert not every["beyond"].any()
    minus = joined(trained(), Settings(shuffles=2, answer="minus"), codes)
    for name, values in minus.items():
        np.testing.assert_allclose(values[:, 0], every[name][:, 1], atol=1e-6)
    assert (
        next(make_attributor(trained(), Settings())([(["a"], codes[:1])])).answers == STRANDED.names
    )


def test_an_ensemble_is_attributed_as_the_mean_of_its_networks():
    one = trained("dilated")
    other = jax.tree.map(lambda leaf: -leaf[..., ::-1] / 2, one.params)
    both = replace(one, ensemble=(one.params, other))
    each = [joined(model, Settings(shuffles=2)) for model in (one, replace(one, params=other))]
    found = joined(both, Settings(shuffles=2))
    assert not found["beyond"].any()
    for name in ("hypothetical", "outputs", "change"):
        mean = (each[0][name] + each[1][name]) / 2
        np.testing.assert_allclose(found[name], mean, atol=2e-6, err_msg=name)


def test_scores_are_in_the_units_that_add_up():
    counts = Counts(("reads",), (), (7.0,))
    found = joined(trained(task=counts), Settings(shuffles=2))
    log_rates = counts.additive(network_outputs(trained(task=counts), sequences()))["log_reads"]
    np.testing.assert_allclose(found["outputs"][:, 0], log_rates, atol=1e-5)
    assert not found["beyond"].any()


def test_the_bases_of_an_embedded_site_stand_out():
    """A network whose filter is the motif itself, on sequences with one site each."""
    motif, rng = load_motif("TAL1_known4"), np.random.default_rng(6)
    width = motif.width
    model = trained(task=Binary(), filters=1, width=width)
    model.params["conv"]["kernel"] = np.log(motif.probabilities / 0.25 + 0.01)[..., None].astype(
        np.float32
    )
    model.params["conv"]["bias"][:] = 0
    model.params["dense"]["kernel"][:] = 1
    codes = rng.integers(0, 4, (20, LENGTH), dtype=np.uint8)
    starts = rng.integers(0, LENGTH - width, 20)
    inside = np.zeros((20, LENGTH), bool)
    best = motif.probabilities.argmax(axis=1).astype(np.uint8)
    for row, start in enumerate(starts):
        codes[row, start : start + width] = best if row % 2 else reverse_complement(best)
        inside[row, start : start + width] = True
    for method in ("deeplift_shap", "ism"):
        sizes = np.abs(joined(model, Settings(method, shuffles=5), codes)["contributions"][:, 0])
        above = sizes[inside][:, None] > sizes[~inside]
        equal = sizes[inside][:, None] == sizes[~inside]
        assert (above + equal / 2).mean() > 0.97, method


class Embedded(Layer):
    """Reads codes as rows of a table, and not bases."""

    def __init__(self):
        self.table = nnx.Param(jnp.ones((6, 3)))

    def __call__(self, x, rngs=None):
        return self.table[...][x].sum(axis=(1, 2))[:, None]


class Counted(Layer):
    """Counts A, where codes are compared; bases in one-hot form are none of these."""

    def __call__(self, x, rngs=None):
        return (x.reshape(len(x), -1) == 0).sum(axis=1, dtype=jnp.float32)[:, None]


class Sorted(Layer):
    def __call__(self, x, rngs=None):
        return jnp.sort(one_hot_on_device(x)[..., 0] * jnp.arange(LENGTH), axis=1)[:, -1:]


class Rooted(Layer):
    """A root, whose slope at 0 is infinite."""

    def __call__(self, x, rngs=None):
        return jnp.sqrt(0 * one_hot_on_device(x)[:, 0, :1])


@pytest.mark.parametrize(
    ("model", "settings", "codes", "said"),
    [
        (trained, Settings(answer="x"), None, "--answer=x is unknown; legal: plus, minus, both"),
        (lambda: own_network(Embedded()), Settings(), None, "does not take bases in one-hot form"),
        (lambda: own_network(Counted()), Settings("saliency"), None, "answers otherwise to bases"),
        (lambda: own_network(Sorted()), Settings(), None, "uses sort of jax.lax"),
        (lambda: own_network(Rooted()), Settings("saliency"), None, "'s0' are not finite numbers"),
    ],
    ids=["answer", "table", "codes", "sort", "root"],
)
def test_what_cannot_be_scored_is_refused_in_a_sentence(model, settings, codes, said):
    with pytest.raises(UserError, match=said):
        joined(model(), settings, codes)


@pytest.mark.parametrize(
    ("settings", "letters", "advice"),
    [
        (Settings(), ["AC"], ["references=zeros", "references=background"]),
        (Settings(), ["A"], ["references=zeros"]),
        (Settings(), ["AC", "A"], ["references=zeros"]),
        (Settings(), ["N", "A"], ["method=ism"]),
        (Settings("integrated_gradients"), ["AC", "AN"], ["references=zeros"]),
        (Settings("integrated_gradients", "zeros"), ["A", "N"], ["method=ism"]),
        (Settings(together=2), ["A", "AC"], ["references=zeros"]),
    ],
)
def test_where_all_references_are_as_a_sequence_is_what_is_advised_works(settings, letters, advice):
    model = trained()
    codes = np.stack([encode((word * LENGTH)[:LENGTH]) for word in letters])
    with pytest.raises(UserError, match=r"every reference of sequence 's\d' equals the") as refused:
        joined(model, settings, codes)
    key, _, values = str(refused.value).partition("try --")[2].partition("=")
    assert [f"{key}={value}" for value in values.split(" or ")] == advice
    for value in values.split(" or "):
        asked = {"references": "", "steps": 4} | {key: value}
        found = joined(model, replace(settings, **asked), codes)
        assert np.isfinite(found["hypothetical"]).all()


def test_a_call_of_few_sequences_is_filled_up_only_after_others():
    """After others it has their shape; alone, only what two devices need to divide it."""
    settings, model = Settings(shuffles=2), trained(devices=2)
    derivatives = attribution._Derivatives(model, settings, "forward", [0], ["y"])
    few = [(["a"], sequences()[:1])]
    alone, later = (len(next(derivatives._calls(few, number))[2]) for number in (0, 1))
    assert alone == 2
    assert later == attribution._DRAWN
