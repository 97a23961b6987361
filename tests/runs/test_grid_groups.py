"""A grid over the network itself: each network in a run of its own, and the best one answers."""

import numpy as np
import pytest

import jaxdna
from jaxdna.config import load_config
from jaxdna.errors import UserError
from jaxdna.runs.grid_groups import grid_groups
from jaxdna.runs.members_table import grid_rows, members_rows
from jaxdna.training.member_progress import setting_rank

SMALL = [
    "data.length=120",
    "data.train_examples=96",
    "data.validation_examples=32",
    "data.test_examples=32",
    "train.epochs=2",
]


def test_networks_that_differ_in_size_are_groups_whose_members_differ_in_numbers():
    grid = "members.grid=model.filters=8,16;optimizer.b1=0.8,0.9;model.width=5,6;optimizer.b2=0.99"
    groups = grid_groups(load_config("tal1", [grid, "members.seeds=2"]))
    sizes = [(8, 5), (8, 6), (16, 5), (16, 6)]
    assert [(own.model.filters, own.model.width) for _, own in groups] == sizes
    assert {own.members.grid for _, own in groups} == {"optimizer.b1=0.8,0.9"}
    assert {own.optimizer.b2 for _, own in groups} == {0.99}
    assert groups[1][0] == {"model.filters": 8, "model.width": 6, "optimizer.b2": 0.99}
    assert grid_groups(load_config("tal1", ["members.grid=optimizer.b1=0.8,0.9"])) == []


def test_the_network_that_is_best_on_validation_answers(tmp_path):
    config = load_config("tal1", [*SMALL, "members.grid=model.filters=2,8"])
    run = jaxdna.train(config, tmp_path / "run", quiet=True)
    folders = [tmp_path / "run" / f"group{i}" for i in range(2)]
    each = [jaxdna.open_run(folder, quiet=True) for folder in folders]
    losses = [min(row["val_loss"] for row in one.history) for one in each]
    best = int(np.argmin(losses))
    assert run.summary["folder"] == folders[best].name
    assert run.summary["test"] == each[best].summary["test"] == run.evaluate()["test"]
    settings = [{"model.filters": 2}, {"model.filters": 8}]
    assert [row["settings"] for row in run.summary["grid"]] == [settings[best], settings[1 - best]]
    assert [row["validation"]["loss"] for row in run.summary["grid"]] == sorted(losses)
    assert grid_rows(run.summary)[1][0][0] == f"filters={(2, 8)[best]}"
    assert members_rows(run.summary)[1][0][0] == "0"
    letters = ["ACGT" * 30, "GGCAGATG" * 15]
    np.testing.assert_array_equal(run.predict(letters), each[best].predict(letters))
    assert f"{folders[best].name}/report.html" in run.folder.report.read_text()
    assert jaxdna.train(config, tmp_path / "run", quiet=True).summary == run.summary


def test_settings_are_ranked_by_validation_and_whole_ones_come_first():
    rows = [
        {"broken": broken, "validation": {"loss": loss, "auroc": auroc}}
        for broken, loss, auroc in [(0, 0.5, 0.7), (0, 0.4, 0.6), (1, 0.1, 0.9)]
    ]
    for metric, first in (("val_loss", 1), ("val_auroc", 0), ("epoch", 1)):
        ranked = sorted(rows, key=lambda row, metric=metric: setting_rank(row, metric))
        assert ranked[-1] is rows[first]
        assert ranked[0] is rows[2]
    assert setting_rank({"broken": 0, "validation": {}}, "val_loss") == (True, -np.inf)


def test_networks_of_several_sizes_have_no_common_student():
    with pytest.raises(UserError, match="distil=true needs networks of one size"):
        load_config("tal1", ["members.grid=model.filters=2,8", "members.distil=true"])
