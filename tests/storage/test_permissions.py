"""Who else can read what is secret, or write what is believed."""

import stat

import pytest

from jaxdna.storage.permissions import keep_to_owner, who_can_write


@pytest.mark.parametrize(("mode", "left"), [(0o644, 0o600), (0o777, 0o700), (0o400, 0o400)])
def test_a_secret_is_taken_from_all_but_its_owner(tmp_path, mode, left):
    secret = tmp_path / "secret"
    secret.touch()
    secret.chmod(mode)
    keep_to_owner(secret)
    assert stat.S_IMODE(secret.stat().st_mode) == left
    keep_to_owner(tmp_path / "absent")


def test_it_is_said_who_else_can_write_a_folder(tmp_path):
    above = tmp_path / "above"
    cache = above / "cache"
    assert who_can_write(cache) == ""
    cache.mkdir(parents=True)
    assert who_can_write(cache) == ""
    cache.chmod(0o777)
    assert who_can_write(cache) == f"{cache} has mode 0777; chmod go-w closes it"
    cache.chmod(0o755)
    above.chmod(0o757)  # another folder could be put there under the same name
    assert who_can_write(cache) == f"{above} has mode 0757; chmod go-w closes it"
    above.chmod(0o1757)  # as /tmp has it: what is there stays its owner's
    assert who_can_write(cache) == ""
