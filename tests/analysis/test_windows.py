"""Windows and matrices equal a plain float64 scan, whatever repeats itself in the sequences."""

import jax
import numpy as np
import pytest
from flax import nnx

from jaxdna.analysis.filters import filter_motifs
from jaxdna.analysis.windows import find_windows
from jaxdna.config import default_config, flat, validate
from jaxdna.models.registry import build_network
from jaxdna.parallel.mesh import flat_mesh
from jaxdna.runs.trained import Trained
from jaxdna.tasks.kinds import of_classes

WIDTH, FILTERS, LENGTH = 7, 12, 90
COMPLEMENT = np.array([3, 2, 1, 0, 4, 5], dtype=np.uint8)
RNG = np.random.default_rng(3)


def trained(offset=0.0):
    config = validate(
        flat(default_config("fasta", "motif_cnn"))
        | {"model.filters": FILTERS, "model.width": WIDTH}
    )
    graph, state = nnx.split(build_network(config, 1))
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), nnx.to_pure_dict(state)
    )
    params["conv"]["kernel"][0] += np.float32(offset)
    return Trained(config, flat_mesh(jax.devices()[:1]), graph, params, LENGTH, of_classes(2))


def repeats():
    """Units of 1 to 11 bases, over and over; some lie in random sequence, some are interrupted."""
    rows = RNG.integers(0, 4, (200, LENGTH)).astype(np.uint8)
    for i, row in enumerate(rows):
        period, stop = 1 + i % 11, LENGTH - (i % 3) * 20
        row[:stop] = np.resize(row[:period], stop)
        if i % 7 == 0:
            row[30:45] = 4
    return rows


def random_with_copies():
    rows = RNG.integers(0, 6, (150, LENGTH)).astype(np.uint8)
    rows[:, 50:70] = rows[:, 10:30]
    rows[::2, 72:90] = COMPLEMENT[rows[::2, 27:9:-1]]
    return rows


SEQUENCES = {
    "one base": lambda: np.repeat(np.arange(4, dtype=np.uint8), 30)[:, None].repeat(LENGTH, 1),
    "repeats": repeats,
    "a block twice": random_with_copies,
    "padded": lambda: np.pad(repeats()[:, :50], ((0, 0), (20, 20)), constant_values=4),
    "one window": lambda: repeats()[:, :WIDTH],
}


def best_by_loop(codes, kernel, bias, both):
    """For each sequence and filter: activation, start, strand and the window; the first of ties."""
    rows = np.vstack([np.eye(4), np.zeros(4), np.full(4, 0.25)])
    kernel = kernel.astype(np.float64)
    found = []
    for row in codes:
        strands = [row, COMPLEMENT[row[::-1]]][: 1 + both]
        windows = np.array(
            [one[i : i + WIDTH] for one in strands for i in range(len(row) - WIDTH + 1)]
        )
        scores = sum(rows[windows[:, i]] @ kernel[i] for i in range(WIDTH))
        # Equal windows have equal scores, though a product may round them in different ways.
        _, first, same = np.unique(windows, axis=0, return_index=True, return_inverse=True)
        found.append((scores[first][same.reshape(-1)] + bias, windows))
    return found


@pytest.mark.parametrize("both", [True, False], ids=["both strands", "forward"])
@pytest.mark.parametrize("offset", [0.0, 4096.0], ids=["", "scores that float32 cannot tell apart"])
@pytest.mark.parametrize("name", SEQUENCES)
def test_windows_and_matrices_equal_a_float64_scan(name, offset, both):
    model, codes = trained(offset), SEQUENCES[name]()
    windows = find_windows(model, codes, both)
    kernel, bias = model.params["conv"]["kernel"], model.params["conv"]["bias"]
    expected = best_by_loop(codes, kernel, bias, both)
    best = np.array([scores.argmax(axis=0) for scores, _ in expected])
    positions = codes.shape[1] - WIDTH + 1
    turned = best >= positions
    start = np.where(turned, positions - 1 - (best - positions), best)
    np.testing.assert_array_equal(windows.reverse, turned)
    np.testing.assert_array_equal(windows.start, start)
    activation = np.maximum([scores.max(axis=0) for scores, _ in expected], 0)
    np.testing.assert_allclose(windows.activation, activation, rtol=1e-12, atol=1e-12)

    for one in filter_motifs(model, codes, windows, []):
        active = activation[:, one.number]
        firing = np.flatnonzero((active > 0.5 * active.max()) & (active > 0))
        assert one.sites == firing.size
        if one.motif:
            sites = np.array([expected[i][1][best[i, one.number]] for i in firing])
            counts = np.stack([(sites == base).sum(axis=0) for base in range(4)], axis=1)
            shares = counts / counts.sum(axis=1, keepdims=True)
            np.testing.assert_allclose(one.motif.probabilities, shares, rtol=0, atol=1e-12)


SMALL = {"filters": 3, "width": 5, "short_filters": 2, "short_width": 3, "dense": "4"}
WORDS = {"span": 4, "letters": 3}


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("multiscale", SMALL),
        ("gapped", SMALL | WORDS),
        ("gapped", SMALL | WORDS | {"inner_filters": 3, "both_strands": True}),
    ],
    ids=["multiscale", "gapped", "arranged"],
)
def test_a_filters_weight_is_what_a_little_more_of_it_changes_where_it_fires(name, model):
    """Against finite differences of the outputs of the whole network."""
    leaves = {f"model.{key}": value for key, value in model.items()}
    config = validate(flat(default_config("fasta", name)) | leaves)
    graph, state = nnx.split(build_network(config, 1, (40,)))
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), nnx.to_pure_dict(state)
    )
    scan = params["conv"] if name == "multiscale" else params["conv"]["scan"]
    model = Trained(config, flat_mesh(jax.devices()[:1]), graph, params, 40, of_classes(2))
    codes = rng.integers(0, 4, (70, 40)).astype(np.uint8)
    scan["bias"] = np.float32([20, 1, 1, 1, 1])
    best = find_windows(model, codes, both_strands=False).activation[:, 0]
    ordered = np.sort(best)[20:50]
    gap = np.diff(ordered).argmax()  # no sequence is where it begins to fire
    scan["bias"][0] -= (ordered[gap] + ordered[gap + 1]) / 2
    bias = scan["bias"].copy()

    def outputs(change, number):
        scan["bias"] = bias.copy()
        scan["bias"][number] += change
        return np.float64(model.network(params)(codes))[:, 0]

    def slope(step, number):
        """The mean where it fires, how many that are, and what rounding may add to it."""
        more, less = outputs(step, number), outputs(-step, number)
        slopes = (more - less) / (2 * step)
        rounding = 8 * np.finfo(np.float32).eps * np.abs([more, less]).max() / step
        return slopes[more != less].mean(), (more != less).sum(), rounding

    found = filter_motifs(model, codes, find_windows(model, codes), [])
    assert len(found) == 5
    for one in found:
        (coarse, _, _), (fine, fires, rounding) = (
            slope(np.float32(step), one.number) for step in (2**-6, 2**-8)
        )
        assert one.number or 5 < fires < 65
        # What a quarter of the step changes is most of what the larger one is off by.
        assert abs(one.weight - fine) <= abs(coarse - fine) + rounding
