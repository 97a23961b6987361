import json

import jax
import pytest

from jaxdna.config import load_config
from jaxdna.data.registry import load_dataset
from jaxdna.errors import UserError
from jaxdna.strategies.prepare import PROGRAMS
from jaxdna.study.layouts import compare_layouts, legal_layouts
from jaxdna.training.program import Program

SMALL = [
    "data.length=240",
    "data.train_examples=640",
    "data.validation_examples=8",
    "data.test_examples=8",
    "optimizer.learning_rate=0.5",
]


@pytest.fixture(scope="module")
def config():
    return load_config("configs/tal1.py", SMALL)


@pytest.fixture(scope="module")
def dataset(config):
    return load_dataset(config)


def test_every_layout_of_eight_devices_trains_as_one_device_does(config, dataset):
    """Twenty SGD steps; the bound is the project's promise: float32 rounding, 2e-5."""
    rows = list(compare_layouts(config, dataset, jax.devices(), 20))
    meshes = [row.mesh for row in rows]
    explicit = ["ring", "hierarchical, 2 hosts", "hierarchical, 4 hosts"]
    assert [row.strategy for row in rows] == ["auto"] * 20 + explicit + ["auto"] * 3
    assert meshes[-3:] == [{"member": 2, "data": 4}, {"member": 4, "data": 2}, {"member": 8}]
    for axis in ("data", "fsdp", "seq", "model"):
        assert {axis: 8} in meshes
    assert {"data": 2, "seq": 2, "model": 2} in meshes
    for row in rows:
        assert row.max_abs_diff_params < 2e-5, row
        assert row.max_abs_diff_loss < 2e-5, row
        assert row.max_rel_diff < 2e-5, row
        assert row.same, row


class Doubled(Program):
    """Doubles the gradient on several devices: a sum over them that is made twice."""

    wrong = 2.0

    def call_with(self, sync):
        factor = self.wrong if self.mesh.size > 1 else 1

        def twice(gradient):
            def of(*arguments):
                gradients, sums = sync(gradient)(*arguments)
                return jax.tree.map(lambda leaf: factor * leaf, gradients), sums

            return of

        return super().call_with(twice)


@pytest.mark.parametrize("rate", [0.5, 1e-5])
def test_a_doubled_gradient_is_different_at_every_rate(dataset, monkeypatch, rate):
    config = load_config("configs/tal1.py", [*SMALL, f"optimizer.learning_rate={rate}"])
    monkeypatch.setitem(PROGRAMS, "spmd", lambda: Doubled)
    row = next(compare_layouts(config, dataset, jax.devices()[:2], 1))
    assert row.max_rel_diff == pytest.approx(1, abs=0.1)
    assert not row.same


def test_a_layout_that_computes_no_numbers_is_different_and_still_json(dataset, monkeypatch):
    config = load_config("configs/tal1.py", SMALL)
    monkeypatch.setitem(PROGRAMS, "spmd", lambda: Doubled)
    monkeypatch.setattr(Doubled, "wrong", float("nan"))
    row = next(compare_layouts(config, dataset, jax.devices()[:2], 2))
    assert (row.max_abs_diff_params, row.max_abs_diff_loss, row.max_rel_diff) == (None,) * 3
    assert not row.same


def test_a_rate_at_which_nothing_moves_is_refused(dataset):
    config = load_config("configs/tal1.py", [*SMALL, "optimizer.learning_rate=1e-8"])
    with pytest.raises(UserError, match=r"rounding alone is .*learning_rate=1e-08 moves"):
        next(compare_layouts(config, dataset, jax.devices(), 1))


def test_layouts_that_divide_nothing_are_left_out(dataset):
    config = load_config("configs/tal1.py", [*SMALL, "model.filters=6", "train.batch_size=12"])
    found = [dict(p.mesh.shape) for p in legal_layouts(config, dataset, jax.devices())]
    assert found
    for sizes in found:
        assert 6 % sizes["model"] == 0
        assert 12 % (sizes["data"] * sizes["fsdp"]) == 0


def test_show_tells_which_device_holds_what(jaxdna):
    done = jaxdna(
        "layouts", "--config=configs/tal1.py", "--show", "--json", "--config.runtime.cpu_devices=8",
        "--config.mesh.data=2", "--config.mesh.seq=2", "--config.mesh.model=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    held = {(row["rows"], row["positions"]) for row in shown["devices"]}
    assert held == {(r, p) for r in ("0-15", "16-31") for p in ("0-249", "250-499")}
    kernel = next(row for row in shown["parameters"] if row["path"] == "conv/kernel")
    assert kernel == {
        "path": "conv/kernel", "shape": [15, 4, 16], "axes": "- - model",
        "local_shape": [15, 4, 8], "bytes": 15 * 4 * 8 * 4,
    }  # fmt: skip


@pytest.mark.parametrize(
    "flags",
    [
        ["strategy=pipeline", "mesh.stage=2", "mesh.dcn.stage=2"],
        ["gradient_sync.method=ring", "mesh.data=1", "mesh.model=2", "mesh.dcn.data=2"],
    ],
    ids=str,
)
def test_the_sweep_chooses_mesh_and_strategy_whatever_the_config_says_and_tells(jaxdna, flags):
    done = jaxdna(
        "layouts", "--config=configs/tal1.py", "--config.runtime.cpu_devices=2", "--steps=1",
        "--json", *(f"--config.{text}" for text in [*SMALL, *flags]),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    rows = answer["rows"]
    assert answer["same"] is True
    assert all(row["same"] and row["max_rel_diff"] < 1e-4 for row in rows)
    found = [(row["mesh"], row["strategy"]) for row in rows]
    auto = [({axis: 2}, "auto") for axis in ("model", "seq", "fsdp", "data")]
    assert found == [*auto, ({"data": 2}, "ring"), ({"member": 2}, "auto")]
    for text in flags:
        key, value = text.split("=")
        assert f"for the comparison, {key}: {value} -> " in done.stderr
    assert "data=2 (auto): parameters within" in done.stderr
    assert ", same" in done.stderr
    assert "data=2 (ring): parameters within" in done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--show", "--config.mesh.data=-1", "--config.mesh.seq=-1"], "only one axis"),
        (["--show", "--config.mesh.data=1", "--config.mesh.seq=8"], "does not divide the length"),
        (["--show", "--config.strategy=pipeline"], "strategy=pipeline cannot be drawn by --show"),
        (["--steps=0"], "--steps=0 is not legal"),
    ],
)
def test_illegal_layouts_are_one_sentence(jaxdna, flags, words):
    done = jaxdna("layouts", "--config=configs/tal1.py", "--config.runtime.cpu_devices=8", *flags)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
