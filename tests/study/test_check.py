"""`doctor --check`: all is well on these devices, and what is broken is found and named."""

import json

import jax
import numpy as np
import pytest

from jaxdna.cli import doctor
from jaxdna.cli.main import main
from jaxdna.ops.motif_scan import IMPLEMENTATIONS
from jaxdna.study import check_operations, check_training
from jaxdna.study.check import CHECKS, check
from jaxdna.study.check_speed import Speed
from jaxdna.study.layouts import Difference


def test_eight_devices_are_checked_in_full(jaxdna):
    # The layouts of eight devices are compared in tests/study/test_layouts.py.
    names = ",".join(name for name in CHECKS if name != "layouts")
    done = jaxdna("doctor", f"--check={names}", "--json", "--config.runtime.cpu_devices=8")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])["check"]
    assert found["ok"] and all(row["ok"] for row in found["rows"])
    rows = {row["name"]: row for row in found["rows"]}
    assert {f"motif scan, {name}" for name in IMPLEMENTATIONS} < set(rows)
    for name in ("sum, ring", "same seed twice, tal1", "checkpoint"):
        assert rows[name]["value"] == rows[name]["limit"] == 0
    for name in ("product of float32 matrices", "main memory", "sum over all devices"):
        assert rows[name]["value"] > 0 and rows[name]["limit"] is None  # no data sheet of a CPU
    for name in ("training tal1", "training cifar10:timing"):
        assert 0 < rows[name]["value"] < 3 * rows[name]["limit"]
        assert f"{name}: ok" in done.stderr  # as they come


def test_every_layout_of_the_devices_is_one_of_the_checks(jaxdna):
    done = jaxdna("doctor", "--check=layouts", "--json", "--config.runtime.cpu_devices=2")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout.splitlines()[-1])["check"]["rows"]
    assert 0 < row["value"] < row["limit"] < 1e-2
    assert "from one device" in row["note"]


def test_the_flag_offers_every_check():
    assert set(doctor.CHECKS) == set(CHECKS)


def test_a_formulation_that_is_wrong_is_named_and_the_command_exits_with_1(monkeypatch, capsys):
    def forgets_the_bias(codes, kernel, bias):
        return IMPLEMENTATIONS["plain"](codes, kernel, 0 * bias)

    broken = {"plain": IMPLEMENTATIONS["plain"], "broken": forgets_the_bias}
    monkeypatch.setattr(check_operations, "IMPLEMENTATIONS", broken)
    monkeypatch.setitem(IMPLEMENTATIONS, "broken", forgets_the_bias)
    assert main(["doctor", "--check=operations", "--json"]) == 1
    said = capsys.readouterr()
    rows = {row["name"]: row for row in json.loads(said.out.splitlines()[-1])["check"]["rows"]}
    assert [name for name, row in rows.items() if not row["ok"]] == ["motif scan, broken"]
    assert rows["motif scan, broken"]["value"] > 0.01
    assert "1 of 8 checks are not ok: motif scan, broken" in said.err


def test_of_the_layouts_the_furthest_decides(monkeypatch):
    near = Difference({"data": 2}, "auto", 1e-9, 0.0, 1e-7, True, 1e-6)
    broken = Difference({"model": 2}, "auto", None, None, None, False, 1e-6)
    monkeypatch.setattr("jaxdna.study.check.layouts", lambda _: iter([near, broken, near]))
    (row,) = check(["layouts"], jax.devices())
    assert (row.ok, row.value, row.limit) == (False, None, 1e-6)
    assert row.note == "the furthest of 3 from one device: model=2 (auto)"


def test_a_state_that_differs_the_second_time_is_found(monkeypatch):
    trained, drift = check_training._trained, iter(range(100))

    def drifting(program, dataset):
        state = trained(program, dataset)
        state.params["dense"]["bias"] += next(drift)
        return state

    monkeypatch.setattr(check_training, "_trained", drifting)
    monkeypatch.setattr(check_training, "SMALL", {"tal1": check_training.SMALL["tal1"]})
    (row,) = check(["repeat"], jax.devices()[:1])
    assert (row.ok, row.value) == (False, 1)


def test_a_checkpoint_that_changes_on_the_disk_is_found_and_nothing_is_left(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    saved = check_training.Checkpoints.wait

    def and_damaged(self):
        saved(self)
        for path in tmp_path.rglob("arrays/**/*"):
            if path.is_file() and path.stat().st_size > 1000:
                content = bytearray(path.read_bytes())
                content[len(content) // 2] ^= 1
                path.write_bytes(content)

    monkeypatch.setattr(check_training.Checkpoints, "wait", and_damaged)
    (row,) = check(["checkpoint"], jax.devices()[:1])
    assert not row.ok and "is intact" in row.note
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "plausible"), [(19.0, False), (21.0, True), (109.0, True), (111.0, False)]
)
def test_a_rate_is_plausible_between_a_fifth_of_the_data_sheet_and_a_tenth_above(value, plausible):
    assert Speed("memory", value, 100.0, "GB/s", least_share=0.2).plausible is plausible


def test_numbers_that_are_not_finite_are_not_right(monkeypatch):
    def breaks(codes, kernel, bias):
        return IMPLEMENTATIONS["plain"](codes, kernel, bias) * np.nan

    monkeypatch.setattr(check_operations, "IMPLEMENTATIONS", {"broken": breaks})
    monkeypatch.setitem(IMPLEMENTATIONS, "broken", breaks)
    row = next(check(["operations"], jax.devices()[:1]))
    assert (row.ok, row.value) == (False, None)


def test_a_check_that_there_is_none_of_is_one_sentence(jaxdna):
    done = jaxdna("doctor", "--check=rates,sped")
    assert done.returncode == 2 and done.stdout == ""
    assert "--check=rates,sped: 'sped' is not a check; did you mean 'speed'?" in done.stderr
