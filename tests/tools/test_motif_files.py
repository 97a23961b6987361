"""What the frameworks beside jaxdna are given of a real set: the same sequences, both strands."""

import json
import sys

import numpy as np
import pytest

from tools.peers.environments import PEERS


@pytest.fixture
def motif_files(monkeypatch):
    monkeypatch.syspath_prepend(str(PEERS))
    return pytest.importorskip("motif_files")


def test_a_tenth_is_held_out_and_the_rest_has_both_strands(motif_files, monkeypatch, tmp_path):
    x = np.random.default_rng(0).integers(0, 4, (20, 7), dtype=np.uint8)
    y = np.arange(20, dtype=np.float32)  # a name for each
    np.savez(tmp_path / "parts.npz", x=x, y=y, x_test=x[:3])
    given = {"data": "parts.npz", "answers": "found.npz", "motifs": [[4, 5]], "hidden": 8}
    given |= {"dropout": 0.4, "batch": 4, "seed": 1}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["keras_motifs", json.dumps(given)])
    asked = motif_files.Request.of_command_line()
    (both, names), (held, held_names) = asked.training, asked.held_out
    assert sorted([*names[:18], *held_names]) == y.tolist()
    assert both.shape == (36, 7, 4) and held.shape == (2, 7, 4)
    for row, name in enumerate(names):
        codes = x[int(name)]
        wanted = codes if row < 18 else 3 - codes[::-1]
        assert both[row].argmax(1).tolist() == wanted.tolist()

    # First bases of both strands: A is 0, and T, its partner, 3.
    logits = motif_files.on_both_strands(lambda x: x[:, 0].argmax(1), asked.tested)
    assert logits.tolist() == [(codes[0] + 3 - codes[-1]) / 2 for codes in x[:3].astype(int)]
    asked.answer(logits, 5)
    assert np.load("found.npz")["logits"].tolist() == logits.tolist()
