"""A cache of these tests' own: what they convert and index does not stay with the user."""

import pytest


@pytest.fixture(scope="session")
def _cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(_cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(_cache))
