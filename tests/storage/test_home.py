"""A user may have no home folder: in a container, or in a job under a bare number."""

import pwd
from pathlib import Path

import pytest

from jaxdna.data.code_store import cache_folder
from jaxdna.data.images import prepared_folder
from jaxdna.errors import UserError
from jaxdna.storage.home import home, user_cache


@pytest.fixture
def nobody(monkeypatch):
    def unknown(number):
        raise KeyError(number)

    for name in ("HOME", "XDG_CACHE_HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_where_there_is_no_home_a_folder_must_be_named(nobody, monkeypatch):
    assert home() is None and user_cache() is None
    with pytest.raises(UserError, match=r"data_cache=auto needs .* there is none; give a folder"):
        cache_folder("auto")
    with pytest.raises(UserError, match=r"data_dir=~/tensorflow_datasets is in a home folder"):
        prepared_folder("mnist", "")
    assert cache_folder("/cache") == Path("/cache")
    monkeypatch.setenv("XDG_CACHE_HOME", "/mine")
    assert cache_folder("auto") == Path("/mine/jaxdna/codes")


def test_the_cache_is_in_the_home_folder(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/anna")
    assert user_cache() == Path("/home/anna/.cache/jaxdna")
