"""A run folder of an earlier version goes on with what its keys were then."""

import json

from jaxdna.config import load_config
from jaxdna.runs.run_folder import RunFolder


def test_a_run_from_before_data_similarity_keeps_its_splits(tmp_path):
    asked = load_config("configs/fasta.py", ["data.table=t.tsv"])
    folder = RunFolder(tmp_path)
    folder.open(asked)
    assert folder.check(folder.settle(asked)) == []
    then = json.loads((tmp_path / "config.json").read_text())
    del then["data"]["similarity"]
    (tmp_path / "config.json").write_text(json.dumps(then))
    assert folder.read_config().data.similarity == 0
    settled = folder.settle(asked)
    assert settled.data.similarity == 0 and folder.check(settled) == []
    assert folder.settle(load_config("configs/fasta.py", ["data.similarity=0.5"])).data == (
        load_config("configs/fasta.py", ["data.similarity=0.5"]).data
    )
