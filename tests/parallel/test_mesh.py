import pytest

from jaxdna.errors import UserError
from jaxdna.parallel.mesh import check_batch, resolve_axes


def test_minus_one_takes_the_remaining_devices():
    assert resolve_axes({"data": -1}, 8) == {"data": 8}
    assert resolve_axes({"data": 8}, 8) == {"data": 8}


@pytest.mark.parametrize("size", [3, 4, 16])
def test_a_mesh_that_does_not_use_every_device_is_refused(size):
    with pytest.raises(UserError, match=rf"mesh\.data={size} .*there are 8.*1, 2, 4, 8"):
        resolve_axes({"data": size}, 8)


def test_a_batch_that_does_not_divide_gets_the_nearest_sizes():
    check_batch(32, {"data": 8})
    with pytest.raises(UserError, match=r"batch_size=30 .*nearest legal: 24 or 32"):
        check_batch(30, {"data": 8})
    with pytest.raises(UserError, match=r"batch_size=5 .*nearest legal: 8$"):
        check_batch(5, {"data": 8})
