import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxdna.config import load_config
from jaxdna.errors import UserError
from jaxdna.ops.sharded_scan import check_length
from jaxdna.parallel.gradient_sync import make_sync
from jaxdna.parallel.mesh import (
    AXES,
    DCN_AXES,
    check_batch,
    factorisations,
    make_mesh,
    resolve_across,
    resolve_axes,
)
from jaxdna.parallel.sharding import parameter_spec


def axes(**sizes):
    return dict.fromkeys(AXES, 1) | sizes


def mesh(*overrides, devices=8):
    return make_mesh(load_config("configs/tal1.py", overrides), jax.devices()[:devices])


def test_minus_one_takes_the_remaining_devices():
    assert resolve_axes(axes(data=-1), 8) == axes(data=8)
    assert resolve_axes(axes(data=-1, model=2, seq=2), 8) == axes(data=2, model=2, seq=2)
    assert resolve_axes(axes(data=2, fsdp=4), 8) == axes(data=2, fsdp=4)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (axes(data=3), r"mesh\.data=3 does not fit 8 devices.*1, 2, 4, 8"),
        (axes(data=4), r"multiply to 4, and must multiply to 8"),
        (axes(data=2, model=8), r"mesh\.data=2 --config\.mesh\.model=8 .*multiply to 16"),
        (axes(data=-1, seq=3), r"the other axes take 3, which must divide 8"),
        (axes(data=-1, model=-1), r"mesh\.data=-1 and --config\.mesh\.model=-1: only one axis"),
        (axes(), r"mesh\.data=1 does not fit 8 devices"),
    ],
)
def test_a_mesh_that_does_not_use_every_device_is_refused(sizes, words):
    with pytest.raises(UserError, match=words):
        resolve_axes(sizes, 8)


def test_a_batch_that_does_not_divide_gets_the_nearest_sizes():
    check_batch(32, axes(data=4, fsdp=2))
    with pytest.raises(UserError, match=r"batch_size=30 .*nearest legal: 24 or 32"):
        check_batch(30, axes(data=4, fsdp=2))
    with pytest.raises(UserError, match=r"batch_size=5 .*nearest legal: 8$"):
        check_batch(5, axes(data=8))


def test_lengths_that_do_not_divide_or_leave_less_than_a_filter_are_refused():
    check_length(500, 15, 20)
    with pytest.raises(UserError, match=r"seq=8 does not divide the length 500; .* 4, 5, 10$"):
        check_length(500, 15, 8)
    with pytest.raises(UserError, match=r"leaves 10 positions per device, fewer than the 15"):
        check_length(500, 15, 50)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["mesh.data=-1", "mesh.dcn.data=3"],
            r"dcn\.data=3 does not divide mesh\.data=8; .*1, 2",
        ),
        (["mesh.data=2", "mesh.fsdp=4", "mesh.dcn.fsdp=8"], r"dcn\.fsdp=8 does not divide"),
    ],
)
def test_hosts_that_do_not_divide_an_axis_are_refused(overrides, words):
    with pytest.raises(UserError, match=words):
        mesh(*overrides)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["gradient_sync.method=ring", "mesh.model=2"], r"method=ring .*mesh\.model=2; .*: auto"),
        (
            ["gradient_sync.method=hierarchical"],
            r"hosts; legal for --config\.mesh\.dcn\.data: 2, 4, 8",
        ),
    ],
)
def test_explicit_sums_that_do_not_fit_the_mesh_are_refused(overrides, words):
    config = load_config("configs/tal1.py", overrides)
    with pytest.raises(UserError, match=words):
        make_sync(config, make_mesh(config, jax.devices()))


def test_every_factorisation_of_the_devices_is_found_once():
    found = [tuple(sizes.values()) for sizes in factorisations(8, ("data", "fsdp", "seq", "model"))]
    assert len(found) == len(set(found)) == 20
    assert all(math.prod(sizes) == 8 and sizes[AXES.index("stage")] == 1 for sizes in found)


def on_two_hosts(platform="cuda", each=4):
    """What `resolve_across` sees of two hosts; jax numbers hosts of GPUs as it does slices."""
    return [
        SimpleNamespace(platform=platform, slice_index=i // each, process_index=i // each)
        for i in range(2 * each)
    ]


@pytest.mark.parametrize(
    ("sizes", "dcn", "across"),
    [
        (axes(data=8), {}, axes(data=2)),
        (axes(data=2, model=4), {}, axes(data=2)),
        (axes(data=1, fsdp=2, seq=4), {}, axes(fsdp=2)),
        (axes(data=1, stage=2, model=4), {}, axes(stage=2)),
        (axes(data=2, fsdp=4), {"fsdp": 2}, axes(fsdp=2)),
        (axes(model=8), {}, axes()),  # their links are slow, and are links
    ],
)
def test_two_hosts_are_crossed_by_data_where_no_flag_says_so(sizes, dcn, across):
    dcn = dict.fromkeys(DCN_AXES, 1) | dcn
    assert resolve_across(dcn, sizes, on_two_hosts()) == across


def test_flags_that_are_not_the_number_of_hosts_are_refused():
    dcn = dict.fromkeys(DCN_AXES, 1) | {"data": 4}
    with pytest.raises(
        UserError, match=r"dcn\.data=4 multiplies to 4, and .* lie in 2 hosts; legal"
    ):
        resolve_across(dcn, axes(data=8), on_two_hosts())


def test_only_the_dcn_part_of_an_axis_crosses_hosts():
    """Devices 0-3 stand for one host and 4-7 for another."""
    made = mesh("mesh.data=4", "mesh.fsdp=2", "mesh.dcn.data=2")
    host = np.vectorize(lambda device: device.id // 4)(made.devices).reshape(4, 2)
    assert host.tolist() == [[0, 0], [0, 0], [1, 1], [1, 1]]
    made = mesh("mesh.data=2", "mesh.fsdp=4", "mesh.dcn.fsdp=2")
    host = np.vectorize(lambda device: device.id // 4)(made.devices).reshape(2, 4)
    assert host.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]
    assert len({device.id for device in made.devices.flat}) == 8


@pytest.mark.parametrize(
    ("path", "shape", "sizes", "expected"),
    [
        ("conv/kernel", (15, 4, 16), axes(), P()),
        ("conv/kernel", (15, 4, 16), axes(model=4), P(None, None, "model")),
        ("conv/bias", (16,), axes(model=4), P("model")),
        ("conv/kernel", (15, 4, 16), axes(fsdp=2), P(None, None, "fsdp")),
        ("conv/kernel", (15, 4, 16), axes(fsdp=2, model=2), P(None, "fsdp", "model")),
        ("dense/kernel", (16, 1), axes(model=8), P("model")),
        ("dense/bias", (1,), axes(model=8, fsdp=2), P()),
        ("dense1/kernel", (256, 512), axes(fsdp=2, model=2), P("fsdp", "model")),
    ],
)
def test_rules_decide_how_a_parameter_is_split(path, shape, sizes, expected):
    assert parameter_spec(path, shape, sizes, head="dense") == expected


def test_filters_that_the_model_axis_does_not_divide_are_named():
    with pytest.raises(UserError, match=r"model=3 does not divide the 16 .*conv/kernel; .*1, 2, 4"):
        parameter_spec("conv/kernel", (15, 4, 16), axes(model=3), head="dense")
