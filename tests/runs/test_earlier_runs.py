"""A run folder of an earlier version goes on with what its keys were then."""

import json
from copy import deepcopy

import pytest

from jaxdna.config import load_config
from jaxdna.runs.run_folder import RunFolder
from jaxdna.training.early_stopping import EarlyStopping
from jaxdna.training.progress import NetworkProgress

# A whole progress.json as an earlier version wrote it.
ROW = {
    "epoch": 1, "step": 10, "train_loss": 0.678, "train_accuracy": 0.586, "val_loss": 0.629,
    "val_accuracy": 0.71, "val_auroc": 0.827, "seconds": 0.0871,
}  # fmt: skip
PROGRESS = {
    "stopping": {
        "metric": "val_loss", "patience": 0, "min_delta": 0.0, "chance_loss": 0.691,
        "best": 0.629, "best_epoch": 1, "waited": 0, "left_plateau": True,
    },
    "epoch": 1, "epoch_step": 2, "epoch_seconds": 0.02, "sums": {"loss": 1.5, "weight": 128.0},
    "seconds": {"total": 6.1}, "rows": [ROW],
}  # fmt: skip


def test_a_checkpoint_from_before_the_auroc_of_chance_goes_on():
    stopping = EarlyStopping("val_loss", 0, 0.0, 0.691, 1.0, 0.629, 1, 0, True)
    assert NetworkProgress.from_json(deepcopy(PROGRESS)) == NetworkProgress(
        stopping, 1, 2, 0.02, {"loss": 1.5, "weight": 128.0}, {"total": 6.1}, [ROW]
    )


@pytest.mark.parametrize(
    "stopping",
    [
        {"metric": "val_loss", "patience": 0, "min_delta": 0.0},
        PROGRESS["stopping"] | {"later": 1},
        PROGRESS["stopping"] | {"chance_auroc": "1"},
    ],
)
def test_what_no_version_wrote_is_refused(stopping):
    with pytest.raises(ValueError, match=r"EarlyStopping|its chance_auroc is of the wrong type"):
        NetworkProgress.from_json(deepcopy(PROGRESS) | {"stopping": stopping})


def test_a_run_from_before_data_similarity_keeps_its_splits(tmp_path):
    asked = load_config("configs/fasta.py:small", ["data.table=t.tsv"])
    folder = RunFolder(tmp_path)
    folder.open(asked)
    assert folder.check(folder.settle(asked)) == []
    then = json.loads((tmp_path / "config.json").read_text())
    del then["data"]["similarity"]
    (tmp_path / "config.json").write_text(json.dumps(then))
    assert folder.read_config().data.similarity == 0
    settled = folder.settle(asked)
    assert settled.data.similarity == 0 and folder.check(settled) == []
    assert folder.settle(load_config("configs/fasta.py:small", ["data.similarity=0.5"])).data == (
        load_config("configs/fasta.py:small", ["data.similarity=0.5"]).data
    )
