"""The deeper networks for sequences: their parameters, values, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdna.config import default_config, flat, validate
from jaxdna.data.sequences import one_hot
from jaxdna.errors import UserError
from jaxdna.models.layers import Dense
from jaxdna.models.network import Layer, Network, parameter_count, summary_rows
from jaxdna.models.registry import BUILDERS, build_network
from jaxdna.ops.gapped_kmers import SCALE
from jaxdna.parallel.mesh import make_mesh
from jaxdna.tasks.kinds import of_classes
from jaxdna.training.program import Program

RNG = np.random.default_rng(0)


def config_of(name, **model):
    leaves = flat(default_config("fasta", name)) | {f"model.{k}": v for k, v in model.items()}
    return validate(leaves)


def built(name, outputs=2, length=40, **model):
    """A network whose parameters are all drawn, and the same as float64 arrays."""
    network = build_network(config_of(name, **model), outputs, (length,))
    graph, state = nnx.split(network)
    drawn = jax.tree.map(
        lambda leaf: RNG.normal(size=leaf.shape).astype(np.float32) / 2, nnx.to_pure_dict(state)
    )
    return nnx.merge(graph, nnx.State(drawn)), jax.tree.map(np.float64, drawn)


def along(x, kernel, dilation=1):
    """Plain convolution that keeps the length, tap by tap."""
    reach = len(kernel) // 2 * dilation
    padded = np.pad(x, [(0, 0), (reach, reach), (0, 0)])
    return sum(padded[:, i * dilation :][:, : x.shape[1]] @ tap for i, tap in enumerate(kernel))


def normalised(x, own, scale, bias, axes):
    centred = x - x.mean(axis=axes, keepdims=True)
    return centred / np.sqrt(x.var(axis=axes, keepdims=True) + 1e-5) * own[scale] + own[bias]


def block(x, own, pool):
    x = np.maximum(normalised(along(x, own["kernel"]), own, "scale", "bias", (1, 2)), 0)
    windows = x.shape[1] // pool
    return x[:, : windows * pool].reshape(len(x), windows, pool, -1).max(axis=2)


def plain_deep_cnn(x, own):
    x = block(block(x, own["block1"], 3), own["block2"], 3).max(axis=1)
    x = gelu(x @ own["dense1"]["kernel"] + own["dense1"]["bias"])
    return x @ own["dense2"]["kernel"] + own["dense2"]["bias"]


def plain_dilated(x, own):
    x = np.maximum(along(x, own["stem"]["kernel"]) + own["stem"]["bias"], 0)
    for i in (1, 2, 3):
        layer = own[f"residual{i}"]
        x = x + np.maximum(along(x, layer["kernel"], 2**i) + layer["bias"], 0)
    return x.mean(axis=1) @ own["dense"]["kernel"] + own["dense"]["bias"]


def plain_attention(x, own):
    x = block(x, own["stem"], 4)
    length, channels = x.shape[1:]
    for place in range(length):
        for i in range(channels // 2):
            angle = place / 10_000 ** (2 * i / channels)
            x[:, place, i] += np.sin(angle)
            x[:, place, channels // 2 + i] += np.cos(angle)
    layer = own["block1"]
    y = normalised(x, layer, "scale1", "bias1", -1)
    attended, size = [], channels // 2
    for head in range(2):
        part = slice(head * size, (head + 1) * size)
        query, key, value = (y @ layer[name][:, part] for name in ("query", "key", "value"))
        scores = np.einsum("bqc,bkc->bqk", query, key) / np.sqrt(size)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attended.append(weights / weights.sum(axis=-1, keepdims=True) @ value)
    x = x + np.concatenate(attended, axis=-1) @ layer["out"]
    y = normalised(x, layer, "scale2", "bias2", -1)
    y = np.maximum(y @ layer["widen"] + layer["widen_bias"], 0)
    x = x + y @ layer["narrow"] + layer["narrow_bias"]
    return x.mean(axis=1) @ own["dense"]["kernel"] + own["dense"]["bias"]


def gelu(x):
    """By its usual approximation, arXiv 1606.08415."""
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def plain_scan(x, own):
    long, short = own["kernel"][..., :3], own["kernel"][1:5, :, 3:]
    best = []
    for kernel, bias, first in (
        (long, own["bias"][:3], 0),
        (short, own["bias"][3:], 1),
    ):
        places = range(first, first + x.shape[1] - 6)  # where the long filters have room as well
        scores = [np.einsum("bwc,wcf->bf", x[:, at : at + len(kernel)], kernel) for at in places]
        best.append(np.maximum(np.max(scores, axis=0) + bias, 0))
    return np.concatenate(best, axis=1)


def plain_multiscale(x, own):
    return plain_head(plain_scan(x, own["conv"]), own["dense1"], own["dense2"])


def plain_head(x, first, last):
    return gelu(x @ first["kernel"] + first["bias"]) @ last["kernel"] + last["bias"]


def plain_arranged(x, own):
    """Filters may hang over the ends; inner filters see the best of each 3 places."""
    kernel = own["scan"]["kernel"].copy()
    kernel[[0, 5, 6], :, 3:] = 0  # the last filters span four places of seven
    sites = np.maximum(along(x, kernel) + own["scan"]["bias"], 0)
    windows = [sites[:, at : at + 3].max(axis=1) for at in range(0, x.shape[1], 3)]
    inner = along(np.stack(windows, axis=1), own["inner"]["kernel"]) + own["inner"]["bias"]
    return np.concatenate([sites.max(axis=1), np.maximum(inner.max(axis=1), 0)], axis=1)


def plain_gapped(x, own, kmer_share=0.5, both_strands=False):
    """Words of 3 letters in 4 bases over their counts' norm; an unknown letter makes none."""
    arranged = "inner" in own["conv"]
    strands = [x, x[:, ::-1, ::-1]] if both_strands else [x]
    best = np.max(
        [
            plain_arranged(one, own["conv"]) if arranged else plain_scan(one, own["conv"]["scan"])
            for one in strands
        ],
        axis=0,
    )
    motifs = plain_head(best, own["dense1"]["layer"], own["dense2"])
    letters = np.where(x.max(axis=2) == 1, x.argmax(axis=2), -1)
    table = own["conv"]["kmers"]["table"]
    counts = np.zeros((len(x), 3, 64))
    for start in range(x.shape[1] - 3):
        for number, places in enumerate(([0, 1, 2], [0, 1, 3], [0, 2, 3])):
            word = letters[:, start + np.array(places)]
            known = np.flatnonzero((word >= 0).all(axis=1))
            counts[known, number, word[known] @ [16, 4, 1]] += 1
    norm = np.sqrt((counts**2).sum(axis=(1, 2), keepdims=True))
    kmers = SCALE * np.einsum("bpw,pwo->bo", counts / norm, table)
    return 2 * ((1 - kmer_share) * motifs + kmer_share * kmers)


NETWORKS = {
    "multiscale": (
        plain_multiscale,
        {
            "filters": 3,
            "width": 7,
            "short_filters": 5,
            "short_width": 4,
            "dense": "6",
            "dropout": 0.0,
        },
        (7 * 4 + 1) * 8 + (8 + 1) * 6 + (6 + 1) * 2,
    ),
    "gapped": (
        plain_gapped,
        {
            **{"filters": 3, "width": 7, "short_filters": 5, "short_width": 4, "dense": "6"},
            **{"dropout": 0.0, "span": 4, "letters": 3, "patterns": 9},
        },
        (7 * 4 + 1) * 8 + (8 + 1) * 6 + (6 + 1) * 2 + 3 * 64 * 2,
    ),
    "deep_cnn": (
        plain_deep_cnn,
        {"filters": "4,6", "width": 5, "inner_width": 3, "pool": 3, "dense": "5", "dropout": 0.0},
        5 * 4 * 4 + 8 + 3 * 4 * 6 + 12 + (6 + 1) * 5 + (5 + 1) * 2,  # blocks scale and shift
    ),
    "dilated": (
        plain_dilated,
        {"filters": 6, "width": 7, "layers": 3},
        (7 * 4 + 1) * 6 + 3 * (3 * 6 + 1) * 6 + (6 + 1) * 2,
    ),
    "attention": (
        plain_attention,
        {"filters": 8, "width": 5, "pool": 4, "blocks": 1, "heads": 2},
        5 * 4 * 8 + 16 + 4 * 8 * 8 + 2 * 8 * 16 + 16 + 8 + 4 * 8 + (8 + 1) * 2,
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_its_definition_in_float64(name):
    plain, model, count = NETWORKS[name]
    network, own = built(name, **model)
    codes = RNG.integers(0, 6, (4, 40), dtype=np.uint8)
    assert parameter_count(own) == count
    wanted = plain(np.float64(one_hot(codes)), own)
    np.testing.assert_allclose(np.asarray(network(codes)), wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_is_near_and_the_table_adds_up(name):
    _, model, count = NETWORKS[name]
    network, own = built(name, **model)
    codes = RNG.integers(0, 4, (4, 40), dtype=np.uint8)
    whole = np.asarray(network(codes))
    graph, _ = nnx.split(network)
    coarse = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), own)
    coarse[network.head_name] = jax.tree.map(jnp.float32, own[network.head_name])
    near = np.asarray(nnx.merge(graph, nnx.State(coarse))(codes))
    assert near.dtype == np.float32
    assert np.abs(near - whole).max() < 0.05 * np.abs(whole).max()
    rows = summary_rows(lambda: build_network(config_of(name, **model), 2, (40,)), (40,))
    assert sum(row[3] for row in rows) == count


def test_short_filters_begin_as_a_layer_of_their_own_would_and_get_no_gradient_outside():
    model = {"filters": 3, "width": 7, "short_filters": 400, "short_width": 4, "dropout": 0.0}
    network = build_network(config_of("multiscale", **model), 1, (40,))
    graph, state = nnx.split(network)
    codes = RNG.integers(0, 4, (16, 40), dtype=np.uint8)
    kernel = np.asarray(network.conv.kernel[...])
    slopes = jax.grad(lambda state: nnx.merge(graph, state)(codes).sum())(state)
    slope = np.asarray(nnx.to_pure_dict(slopes)["conv"]["kernel"])
    outside = np.ones((7, 4, 403), bool)
    outside[:, :, :3] = outside[1:5] = False
    assert not kernel[outside].any()
    assert not slope[outside].any()
    assert (slope[1:5, :, 3:] != 0).mean() > 0.3
    # Glorot's bound for 4 bases and 400 filters of 4: sqrt(6 / (4 * 4 + 4 * 400)).
    assert 0.058 < np.abs(kernel[1:5, :, 3:]).max() <= np.sqrt(6 / 1616)


@pytest.mark.parametrize("inner", [{}, {"inner_filters": 6, "inner_width": 5, "pool": 3}])
@pytest.mark.parametrize("strands", ["average", "forward"])
def test_filters_read_both_strands_unless_only_one_is_asked_and_words_weigh_what_they_shall(
    strands, inner
):
    plain, model, _ = NETWORKS["gapped"]
    options = {"kmer_share": 0.7, "both_strands": True, **inner}
    network, own = built("gapped", **model, **options, strands=strands)
    codes = RNG.integers(0, 6, (4, 40), dtype=np.uint8)
    x = np.float64(one_hot(codes))
    wanted = plain(x, own, 0.7, both_strands=strands == "average")
    np.testing.assert_allclose(np.asarray(network(codes)), wanted, rtol=2e-5, atol=2e-5)
    assert np.abs(wanted - plain(x, own, 0.7, both_strands=strands == "forward")).max() > 0.1


def test_in_training_every_other_example_reaches_the_motifs_and_the_others_the_words():
    plain, model, _ = NETWORKS["gapped"]
    network, own = built("gapped", **model)
    codes = RNG.integers(0, 4, (6, 40), dtype=np.uint8)
    wanted = plain(np.float64(one_hot(codes)), own)
    own["conv"]["kmers"]["table"] *= 0
    motifs = plain(np.float64(one_hot(codes)), own)
    wanted = 2 * np.where(np.arange(6)[:, None] % 2 == 0, motifs, wanted - motifs)
    train = jax.jit(lambda codes: network(codes, jax.random.key(0)))
    for rows in (6, 5):
        np.testing.assert_allclose(train(codes[:rows]), wanted[:rows], rtol=2e-5, atol=2e-5)


def test_so_it_is_where_every_device_has_a_single_example():
    model = {f"model.{k}": v for k, v in NETWORKS["gapped"][1].items()} | {"model.dropout": 0.5}
    codes = RNG.integers(0, 4, (8, 40), dtype=np.uint8)
    found = []
    for devices in (1, 8):
        config = flat(default_config("fasta", "gapped")) | model | {"mesh.data": devices}
        mesh = make_mesh(validate(config), jax.devices()[:devices])
        program = Program(validate(config), mesh, (40,), of_classes(2), 64)
        params = jax.tree.map(lambda leaf: leaf + 0.01, program.init().params)
        found.append(np.asarray(jax.jit(program.apply)(params, codes, jax.random.key(0))))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


class Heads(nnx.Module):
    """A layer that is no `Layer`, says nothing of meshes, and returns a tree."""

    def __init__(self, rngs):
        self.sum = nnx.Linear(6, 1, rngs=rngs)
        self.rest = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        return {"sum": self.sum(x), "rest": self.rest(x)}


class Two(Layer):
    """Two inputs from one: bases, and their sums, as a tree."""

    def __call__(self, x, rngs=None):
        bases = jax.nn.one_hot(x, 4)
        return {"bases": bases, "sums": bases.sum(axis=1)}


class Joined(Layer):
    def __init__(self, rngs):
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (8, 6)))

    def __call__(self, x, rngs=None):
        both = jnp.concatenate([x["bases"].max(axis=1), x["sums"] / 10], axis=1)
        return jnp.tanh(both @ self.kernel[...])


def tree(config, outputs, example_shape, rngs):
    return Network({"two": Two(), "joined": Joined(rngs), "heads": Heads(rngs)})


def test_trees_between_layers_and_named_heads_are_right_on_a_mesh(monkeypatch):
    monkeypatch.setitem(BUILDERS, "motif_cnn", tree)
    sizes = {"mesh.data": 2, "mesh.fsdp": 2, "mesh.model": 2}
    codes = RNG.integers(0, 4, (8, 40), dtype=np.uint8)
    found = []
    for mesh in ({"mesh.data": 1}, sizes):
        config = validate(flat(default_config("fasta", "motif_cnn")) | mesh)
        devices = jax.devices()[: int(np.prod(list(mesh.values())))]
        program = Program(config, make_mesh(config, devices), (40,), of_classes(3), 64)
        state = program.init()
        found.append(np.asarray(program.predict_call(state.params, codes[None])))
    assert found[0].shape == (1, 8, 3)
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)


class Counting(nnx.Module):
    def __init__(self):
        self.seen = nnx.Variable(jnp.zeros(()))


def test_what_cannot_be_built_is_said(monkeypatch):
    with pytest.raises(UserError, match="3 blocks, but sequences of 40 bases have room for only 2"):
        build_network(config_of("deep_cnn", pool=5, filters="8,8,8"), 1, (40,))
    with pytest.raises(UserError, match="heads=3 does not divide"):
        build_network(config_of("attention", heads=3), 1, (40,))
    with pytest.raises(UserError, match="pool=50 is longer"):
        build_network(config_of("attention", pool=50), 1, (40,))
    with pytest.raises(UserError, match="width=8 is not legal: it must be an odd integer"):
        config_of("dilated", width=8)
    with pytest.raises(UserError, match=r"short_width=9 is longer than --config\.model\.width=8"):
        build_network(config_of("multiscale", width=8, short_width=9), 1, (40,))
    with pytest.raises(UserError, match=r"span=41 is longer than the sequences of 40 bases; .* 40"):
        build_network(config_of("gapped", span=41), 1, (40,))
    with pytest.raises(UserError, match=r"letters=7 do not fit into --config\.model\.span=6 bases"):
        build_network(config_of("gapped", span=6, letters=7), 1, (40,))

    def stateful(config, outputs, shape, rngs):
        return Network({"count": Counting(), "dense": Dense(4, outputs, rngs=rngs)})

    monkeypatch.setitem(BUILDERS, "motif_cnn", stateful)
    with pytest.raises(TypeError, match="variables of type Variable"):
        build_network(config_of("motif_cnn"), 1, (40,))
