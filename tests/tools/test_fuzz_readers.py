"""Readers of users' files take any bytes: a slice of what `tools/fuzz_readers.py` gives them."""

import importlib.util
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "fuzz_readers.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("fuzz_readers", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass asks for it
    spec.loader.exec_module(module)
    return module


def test_any_bytes_give_data_or_a_sentence_in_every_reader(tool, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    counts, failures = tool.fuzz(40 * len(tool.READERS), 7, tmp_path)
    assert failures == []
    for name, found in counts.items():
        assert found["slow"] == 0, name
        assert found["read"] > 0 and found["refused"] > 0, name


def test_the_same_seed_gives_the_same_inputs(tool, tmp_path):
    seen = []
    reader = tool.Reader(lambda path, rng: seen.append(path.read_bytes()), [b"x\ty\n"], [b"z"])
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tool, "READERS", {"x": reader})
            tool.fuzz(30, 3, tmp_path / name)
    assert seen[:30] == seen[30:]
    assert len(set(seen)) > 20
