"""The bound of a step, against numbers worked out by hand."""

import pytest

from jaxdna.parallel.machines import Machine
from jaxdna.study.hlo import Op, device_groups
from jaxdna.study.kernels import Kernel
from jaxdna.study.roofline import link_seconds, roofline
from jaxdna.study.schedule import Collective

# 100 operations, 10 bytes of memory, 2 bytes on a link, 1 on the network, all a second.
SLOW = Machine(
    float32=100, bfloat16=200, memory=10, cache=50, link=2, network=1, source="this test",
    link_latency=0.5, network_latency=3,
)  # fmt: skip
ONE_HOST, TWO_HOSTS = ["a"] * 4, ["a", "a", "b", "b"]


def all_reduce(size: int, **more) -> Collective:
    return Collective("all-reduce", "r", "main", size, 1, True, **more)


def bound(kernels, collectives=(), footprint=1000, precision="float32"):
    return roofline(SLOW, kernels, collectives, ONE_HOST, precision=precision, footprint=footprint)


def test_a_kernel_takes_the_longer_of_its_operations_and_its_bytes():
    kernels = [Kernel("a", "", 300, 10, 1), Kernel("b", "", 100, 40, 2)]
    found = bound(kernels)
    assert found["seconds"] == {"compute": 3.0, "memory": 8.0, "links": 0.0}
    assert found["step_seconds_at_least"] == 11.0
    assert found["bound"] == "memory"


def test_bytes_that_fit_into_the_cache_need_not_move_and_bfloat16_has_its_own_rate():
    found = bound([Kernel("a", "", 100, 1000, 1)], footprint=50, precision="bfloat16")
    assert found["seconds"] == {"compute": 0.5, "memory": 0.0, "links": 0.0}


def test_of_a_collective_only_what_no_kernel_hides_counts():
    kernels = [Kernel("a", "", 300, 0, 1)]
    # Four devices: two rounds of messages out and back, three quarters of the bytes twice.
    alone = 2 * (2 * 0.5 + 0.75 * 16 / 2)
    assert bound(kernels, [all_reduce(16)])["seconds"]["links"] == alone == 14
    hidden = bound(kernels, [all_reduce(16, compute_ops=("a",))])
    assert hidden["seconds"]["links"] == alone - 3
    assert bound(kernels, [all_reduce(1, compute_ops=("a",))])["seconds"]["links"] == 0


@pytest.mark.parametrize(
    ("kind", "groups", "hosts", "wanted"),
    [
        ("all-reduce", ((0, 1), (2, 3)), ONE_HOST, 2 * (0.5 + 0.5 * 8 / 2)),
        ("all-gather", (), ONE_HOST, 2 * 0.5 + 0.75 * 8 / 2),
        ("collective-permute", ((0, 1), (1, 2)), ONE_HOST, 0.5 + 8 / 2),
        # Across two hosts: the two cards of a host carry half of the bytes each way, and are slower
        # than the links inside.
        ("all-reduce", (), TWO_HOSTS, 2 * (3 + 0.5 * 8 / 2)),
        ("all-reduce", ((0,), (1,), (2,), (3,)), TWO_HOSTS, 0.0),
    ],
)
def test_a_collective_takes_its_messages_and_its_bytes(kind, groups, hosts, wanted):
    collective = Collective(kind, "c", "main", 8, 1, True, groups=groups)
    assert link_seconds(SLOW, collective, hosts) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}, to_apply=f", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[4], to_apply=f", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0), to_apply=f", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}, to_apply=f", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}, to_apply=f", [[0, 2], [1, 3]]),
        ("source_target_pairs={{0,1},{1,0}}", [[0, 1], [1, 0]]),
        ("replica_groups={}, to_apply=f", []),
    ],
)
def test_the_devices_of_a_collective_are_read_however_they_are_written(text, groups):
    op = Op("c", "all-reduce", "f32[]", (), (), text, (), -1)
    assert device_groups(op) == groups
