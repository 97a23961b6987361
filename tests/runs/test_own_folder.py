"""Which folder a run takes that nobody has named one for."""

import json

import pytest

from jaxdna.config import default_config, flat, validate
from jaxdna.errors import UserError
from jaxdna.runs.own_folder import own_folder
from jaxdna.runs.run_folder import RunFolder


def config(**changes):
    return validate(flat(default_config("tal1", "motif_cnn")) | changes)


SUMMARY = {
    "params_sha256": "", "best_epoch": 1, "epochs": 1, "stopped_early": False,
    "left_plateau": True, "test": {"loss": 0.1}, "ceiling": None, "samples_per_second": None,
    "seconds": dict.fromkeys(("total", "compile", "train", "eval", "checkpoint"), 0.0),
}  # fmt: skip


def test_a_run_with_other_settings_has_the_next_free_name(tmp_path):
    def begin(name, *, finished=False, **changes):
        folder = RunFolder(tmp_path / name)
        folder.path.mkdir(parents=True)
        folder.open(config(**changes))
        if finished:
            (folder.path / "summary.json").write_text(json.dumps(SUMMARY))

    def found(**changes):
        path, note = own_folder(tmp_path / "fasta", config(**changes))
        said = f"{tmp_path}/fasta holds a run with other settings, so this one is in {path}"
        assert note == ("" if path.name == "fasta" else said)
        return path.name

    assert found() == "fasta"
    begin("fasta")
    assert (found(), found(seed=1)) == ("fasta", "fasta-2")
    begin("fasta-2", seed=1, finished=True)
    assert (found(), found(seed=1), found(seed=2)) == ("fasta", "fasta-2", "fasta-3")
    goes_on = {"optimizer.learning_rate": 0.5, "strategy": "parameter_server"}
    for key, value in goes_on.items():  # of a run that has ended nothing would be trained
        assert found(**{key: value}) == "fasta"
        assert found(seed=1, **{key: value}) == "fasta-3"
    assert found(seed=1, **{"train.epochs": 99}) == "fasta-2"
    assert found(seed=1, **{"runtime.cpu_devices": 2}) == "fasta-2"
    (tmp_path / "fasta-3").mkdir()
    (tmp_path / "fasta-3" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="fasta-3 holds files but no run"):
        found(seed=2)
