"""The benchmark on real sets: what it reads, measures and says of peers that are absent."""

import json
import sys

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tools import bench_real


@pytest.fixture
def sets(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for name in ("GATA", "AP1"):
        for part, records in (("train", 80), ("test", 40)):
            rows = []
            for i in range(records):
                text = "".join(rng.choice(list("ACGT"), 40))
                site = {"GATA": "AGATAAGA", "AP1": "TGACTCAT"}[name]
                rows.append(f">{i % 2}\n{text[:10] + site + text[18:] if i % 2 else text}\n")
            (tmp_path / "data" / f"{name}.{part}.fasta").write_text("".join(rows))
    return tmp_path


def test_every_set_has_a_row_and_absent_peers_are_said(sets, monkeypatch, capsys):
    flags = [
        f"--data={sets}/data",
        "--sets=GATA",
        "--seeds=2",
        "--recipes=fasta:small",
        "--gkmsvm=no-such-command",
    ]
    monkeypatch.setattr(sys, "argv", ["bench_real", *flags, f"--output={sets}/out"])
    monkeypatch.setattr(bench_real.shutil, "which", lambda name, path=None: None)
    bench_real.main()
    said = capsys.readouterr().out
    found = json.loads((sets / "out" / "bench_real.json").read_text())
    assert list(found) == ["GATA"]
    for name, rows in found.items():
        row = rows["fasta:small"]
        assert len(row["auroc"]) == len(row["seconds"]) == 2
        assert f"| {name} | {np.mean(row['auroc']):.4f} ± " in said
        assert row["ensemble"] >= min(row["auroc"])
    assert "- lsgkm is absent, and its column is empty." in said
    assert said.strip() == (sets / "out" / "bench_real.md").read_text().strip()
    assert (sets / "out" / "bench_real.png").read_bytes().startswith(b"\x89PNG")


def test_peers_read_what_the_files_say(sets, tmp_path):
    train, test = bench_real.find_sets(sets / "data")["GATA"]
    labels = bench_real.write_parts(train, test, tmp_path)
    assert labels == [0, 1] * 20
    bound = (tmp_path / "bound.fa").read_text().split("\n")[1::2]
    assert len(bound) == 40
    assert all("AGATAAGA" in text for text in bound)
    tested = (tmp_path / "test.fa").read_text().split("\n")[1::2]
    assert roc_auc_score(labels, ["AGATAAGA" in text for text in tested]) == 1
    for text in ("s0\t0.5\ns1\t-2\n", "name\tscore\ns0\t0.5\ns1\t-2\n"):
        (tmp_path / "scores.tsv").write_text(text)
        assert bench_real._column(tmp_path / "scores.tsv").tolist() == [0.5, -2]
