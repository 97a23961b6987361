import json

import jax
import pytest

from jaxdna.config import load_config
from jaxdna.data.registry import load_dataset
from jaxdna.study.layouts import compare_layouts, legal_layouts

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
    assert [row.strategy for row in rows] == ["auto"] * 20 + explicit
    for axis in ("data", "fsdp", "seq", "model"):
        assert {axis: 8} in meshes
    assert {"data": 2, "seq": 2, "model": 2} in meshes
    for row in rows:
        assert row.max_abs_diff_params < 2e-5, row
        assert row.max_abs_diff_loss < 2e-5, row


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
    rows = json.loads(done.stdout)["rows"]
    found = [(row["mesh"], row["strategy"]) for row in rows]
    auto = [({axis: 2}, "auto") for axis in ("model", "seq", "fsdp", "data")]
    assert found == [*auto, ({"data": 2}, "ring")]
    for text in flags:
        key, value = text.split("=")
        assert f"for the comparison, {key}: {value} -> " in done.stderr
    assert "data=2 (auto): parameters within" in done.stderr
    assert "data=2 (ring): parameters within" in done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--show", "--config.mesh.data=-1", "--config.mesh.seq=-1"], "only one axis"),
        (["--show", "--config.mesh.data=1", "--config.mesh.seq=8"], "does not divide the length"),
        (["--show", "--config.strategy=pipeline"], "strategy=pipeline is not what --show draws"),
        (["--steps=0"], "--steps=0 is not legal"),
        (
            ["--config.train.batch_size=5", "--config.model.filters=3", "--steps=1"],
            "divide by no mesh of 8 devices",
        ),
    ],
)
def test_illegal_layouts_are_one_sentence(jaxdna, flags, words):
    done = jaxdna("layouts", "--config=configs/tal1.py", "--config.runtime.cpu_devices=8", *flags)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
