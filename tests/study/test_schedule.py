"""Collectives and their windows, read from programs that real compilers printed.

The files in ``fixtures`` are ``compiled.as_text()`` of small programs: a matrix-product network or
three convolutions, data parallel over four chips (and two slices of four), with layouts kept
and metadata cut. JAX 0.10.2, libtpu 0.0.42. The programs' own shapes say what must be found.
"""

import math
from pathlib import Path

import pytest

from jaxdna.study import hlo
from jaxdna.study.schedule import collectives, overlap_fraction

# The kernels of the three convolutions, float32.
CONVS = [4 * math.prod(s) for s in ((3, 3, 8, 64), (3, 3, 64, 128), (5, 5, 128, 64))]
SQUARE = 4 * 512 * 512  # a layer of the matrix-product network


def fixture(name: str) -> str:
    return (Path(__file__).parent / "fixtures" / f"{name}.txt").read_text()


def test_cpu_has_every_kind_and_hides_none():
    found = collectives(fixture("cpu_collectives"))
    assert sorted((c.kind, c.bytes, c.executions) for c in found) == [
        ("all-gather", 1024, 1),  # a [32, 8] float32 array, cut into four and joined again
        ("all-reduce", 1024, 7),  # inside a scan of length 7
        ("all-to-all", 2048, 1),  # each device's [16, 32]
        ("collective-permute", 256, 1),  # a quarter of [32, 8]
        ("reduce-scatter", 1024, 1),
    ]
    assert not any(c.asynchronous or c.compute_ops for c in found)
    assert overlap_fraction(found) == 0


def test_v5e_fused_all_reduce_counts_once_with_the_kernels_it_is_fused_with():
    found = collectives(fixture("v5e_fused_all_reduce"))
    # The text holds each of the first two all-reduces once to start, once to end and once in every
    # fusion that carries a step of it; three layers have three.
    assert [(c.kind, c.bytes) for c in found] == [("all-reduce", SQUARE)] * 3
    assert [c.asynchronous for c in found] == [True, True, False]
    # 256 rows per device; backward products are [512, 256] x [256, 512] or transposed: 2 n m k.
    product = 2 * 512 * 512 * 256
    assert [c.flops for c in found] == [3 * product, product, 0]
    assert overlap_fraction(found) == pytest.approx(2 / 3)


def test_ring_is_permutes_of_a_quarter_of_each_gradient():
    found = collectives(fixture("v5e_ring"))
    assert {c.kind for c in found} == {"collective-permute"}
    assert all(c.asynchronous for c in found)
    # Four devices: three rounds to reduce and three to gather, each with a chunk of a quarter.
    assert sorted(c.bytes for c in found) == sorted(6 * [size // 4 for size in CONVS])
    started_during_backward = [c for c in found if c.matmul_ops]
    assert started_during_backward
    assert all(set(c.matmul_ops) <= set(c.compute_ops) for c in found)


@pytest.mark.parametrize("name", ["tpu7x_all_reduce", "v6e_all_reduce_sparsecore"])
def test_sparsecore_call_is_one_asynchronous_all_reduce(name):
    found = collectives(fixture(name))
    assert {c.kind for c in found} == {"all-reduce"}
    assert sum(c.bytes for c in found) == sum(CONVS)
    large, small = sorted(found, key=lambda c: -c.bytes)
    assert large.asynchronous and not small.asynchronous
    assert large.bytes == CONVS[1] + CONVS[2]
    # One fusion is left to compute then: the gradients of the first convolution's kernel and of the
    # second one's input. A place and a tap of a "same" 3x3 window make 16 * 3 - 2 pairs along an
    # axis of 16.
    rows = 64 // (8 if name.startswith("tpu7x") else 4)
    assert len(large.matmul_ops) == 1
    assert large.flops == 2 * rows * (16 * 3 - 2) ** 2 * (8 * 64 + 64 * 128)
    hidden = sum(CONVS[1:]) / sum(CONVS)
    assert overlap_fraction(found, matmuls_only=True) == overlap_fraction(found) == hidden


def test_scatter_and_gather_that_stay_synchronous():
    found = collectives(fixture("v5e_scatter_gather"))
    assert {c.kind for c in found} == {"all-reduce", "all-gather"}
    for kind in ("all-reduce", "all-gather"):
        assert sum(c.bytes for c in found if c.kind == kind) == sum(CONVS)
    assert not any(c.asynchronous for c in found)


def test_what_crosses_slices_is_a_send_that_ends_where_its_answer_arrives():
    found = collectives(fixture("v5p_two_slices"))
    across = [c for c in found if c.between_slices]
    # Each of the four devices of a slice sends its quarter; 64 channels are padded to 128 lanes.
    sent = [2 * CONVS[0] // 4, CONVS[1] // 4, 2 * CONVS[2] // 4]
    assert sorted(c.bytes for c in across) == sent
    assert all(c.kind == "all-reduce" and c.asynchronous for c in across)
    assert [len(c.matmul_ops) for c in sorted(across, key=lambda c: c.bytes)] == [2, 1, 0]
    assert not any(c.asynchronous for c in found if not c.between_slices)


def test_flops_count_no_multiplication_with_padding():
    module = hlo.parse(fixture("v5e_ring"))
    total = sum(module.matmul_flops(op) for op in module.computations[module.entry])
    # Forward and kernel gradient of three "same" convolutions, and the input gradient of two; a
    # place of the window and a tap make a pair unless they meet in the padding.
    rows = 64 // 4

    def conv(size: int, inputs: int, outputs: int) -> int:
        pairs = sum(0 <= place + tap - size // 2 < 16 for place in range(16) for tap in range(size))
        return 2 * rows * pairs**2 * inputs * outputs

    assert total == 2 * conv(3, 8, 64) + 3 * (conv(3, 64, 128) + conv(5, 128, 64))


def test_an_unscheduled_module_is_refused():
    with pytest.raises(ValueError, match="scheduled"):
        collectives(fixture("cpu_collectives").replace("is_scheduled=true", ""))


# XLA's grammar for what no compiler here prints (a GPU's): native starts, whose shape holds operand
# and result both, and a generic wrapper with an update between.
NATIVE = """HloModule gpu, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add = f32[] add(%a, %b)
}

%wrapped (x: f32[64]) -> f32[16] {
  %x = f32[64]{0} parameter(0)
  ROOT %scattered = f32[16]{0} reduce-scatter(%x), dimensions={0}, to_apply=%sum
}

ENTRY %main (p: f32[64], q: bf16[8,8]) -> (f32[256], f32[16], bf16[8,8]) {
  %p = f32[64]{0} parameter(0)
  %q = bf16[8,8]{1,0} parameter(1)
  %gather = (f32[64]{0}, f32[256]{0}) all-gather-start(%p), dimensions={0}
  %reduce = bf16[8,8]{1,0} all-reduce-start(%q), to_apply=%sum
  %gemm = bf16[8,8]{1,0} custom-call(%q, %q), custom_call_target="__cublas$gemm"
  %copied = f32[64]{0} copy(%p)
  %gathered = f32[256]{0} all-gather-done(%gather)
  %reduced = bf16[8,8]{1,0} all-reduce-done(%reduce)
  %start = ((f32[64]{0}), f32[16]{0}) async-start(%copied), calls=%wrapped
  %update = ((f32[64]{0}), f32[16]{0}) async-update(%start)
  %done = f32[16]{0} async-done(%update)
  ROOT %all = (f32[256]{0}, f32[16]{0}, bf16[8,8]{1,0}) tuple(%gathered, %done, %gemm)
}
"""


def test_native_and_wrapped_starts():
    found = collectives(NATIVE)
    assert [(c.kind, c.bytes, c.asynchronous, c.compute_ops) for c in found] == [
        ("all-gather", 4 * 256, True, ("gemm",)),
        ("all-reduce", 2 * 64, True, ("gemm",)),
        ("reduce-scatter", 4 * 64, True, ()),
    ]
    assert found[0].matmul_ops == ("gemm",)
    assert overlap_fraction(found) == (1024 + 128) / (1024 + 128 + 256)
    assert overlap_fraction([]) == 0
