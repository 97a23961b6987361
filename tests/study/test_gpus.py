"""The training step compiled for GPUs that are not there, and what is read from it."""

import importlib.util
import re
from functools import cache

import jax
import jax.numpy as jnp
import pytest

from jaxdna.config import load_config
from jaxdna.data.registry import spec_of
from jaxdna.ops import motif_dense_gpu, motif_scan_gpu
from jaxdna.parallel.mesh import granule
from jaxdna.study.gpus import GPUS
from jaxdna.study.kernels import kernels
from jaxdna.study.plan import plan, program_on
from jaxdna.study.topology import topology

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None, reason="needs the extra [plan-gpu]"
)


def planned(name: str, config: str, *overrides: str, price: float | None = None) -> dict:
    loaded = load_config(f"configs/{config}.py", overrides)
    return plan(program_on(loaded, spec_of(loaded), list(topology(name).devices)), price)


@cache
def cifar(name: str) -> dict:
    return planned(name, "cifar10", price=2.0)


@pytest.mark.parametrize("name", ["a6000:4", "h100:8"])
def test_most_gradients_of_cifar10_travel_while_a_convolution_or_product_runs(name):
    found = cifar(name)
    gradients = sum(row["bytes"] for row in found["collectives"])
    assert gradients >= 276_138 * 4
    assert found["overlapped"] >= 0.8


def test_the_convolutions_are_those_of_cudnn_by_name():
    libraries = cifar("h100:8")["libraries"]
    # Six convolutions forward; the derivative by the pictures is not asked for.
    assert sum(n for name, n in libraries.items() if "Forward" in name) == 6
    assert libraries["__cudnn$convBackwardFilter"] == 6
    assert libraries["__cudnn$convBackwardInput"] == 5


def test_operations_are_those_of_the_network():
    """Counted by hand: places, taps on the picture, channels; twice again for the derivatives."""
    forward, first = 0, None
    for size, channels, filters, pad in [
        (32, 3, 32, 1), (32, 32, 32, 0), (15, 32, 64, 1), (15, 64, 64, 0), (6, 64, 64, 1),
        (6, 64, 64, 0),
    ]:  # fmt: skip
        places = range(-pad, size - 2 + pad)
        taps = sum(0 <= place + tap < size for place in places for tap in range(3))
        forward += 2 * taps**2 * channels * filters
        first = first or forward
    dense = 2 * (256 * 512 + 512 * 10)
    products = 32 * (3 * forward - first + 3 * dense)  # 256 examples on 8 devices
    found = cifar("h100:8")["flops_per_step"]
    # Activations, pooling and the update come on top: some operations for each activation.
    assert products < found < 1.05 * products


def test_a_bound_for_step_run_and_cost_comes_with_the_devices():
    found = cifar("h100:8")
    bound = found["roofline"]
    assert bound["bound"] in ("compute", "memory", "links")
    assert sum(bound["seconds"].values()) == bound["step_seconds_at_least"]
    assert bound["seconds"]["compute"] >= found["flops_per_step"] / 495e12 * 0.99
    steps = -(-45_000 // 256) * 50
    assert bound["run_seconds"] == pytest.approx(steps * bound["step_seconds_at_least"])
    assert bound["cost"] == pytest.approx(2.0 * 8 * bound["run_seconds"] / 3600)


@pytest.mark.parametrize(
    ("name", "flags", "kinds"),
    [
        ("h100:8", ["mesh.fsdp=2", "mesh.model=2", "mesh.seq=2"], {"all-gather", "all-reduce"}),
        ("h100:8", ["gradient_sync.method=ring"], {"collective-permute"}),
        ("h100:2x4", ["gradient_sync.method=hierarchical"], {"reduce-scatter", "all-gather"}),
    ],
    ids=["fsdp, model and seq", "ring", "hierarchical"],
)
def test_every_way_to_share_the_work_compiles(name, flags, kinds):
    found = planned(name, "tal1", *flags)
    assert found["devices"] == 8
    assert kinds <= {row["kind"] for row in found["collectives"]}


ROWS = 128


@pytest.mark.parametrize("name", ["a6000:1", "h100:1"])
def test_the_scores_of_the_motif_scan_never_reach_the_memory_and_neither_do_their_gradients(name):
    """With half of the sequences turned round, which takes no second pass over the codes."""
    kernel = planned(name, "tal1", f"train.batch_size={ROWS}")
    assert kernel["libraries"] == {"__gpu$xla.gpu.triton": 2}
    products = 2 * ROWS * 486 * 15 * 4 * 16
    assert products < kernel["flops_per_step"] < 1.05 * products
    # The scores of all windows alone would be 128 x 486 x 16 numbers.
    assert kernel["bytes_moved_per_step"] < 2 * (ROWS * 500 + 993 * 4)
    convolution = planned(name, "tal1", f"train.batch_size={ROWS}", "model.scan=convolution")
    assert convolution["bytes_moved_per_step"] > 100 * kernel["bytes_moved_per_step"]


def test_on_a_mesh_each_gpu_scans_its_own_part_of_batch_filters_and_positions():
    devices = topology("a6000:4").devices
    loaded = load_config("configs/tal1.py", ["mesh.data=1", "mesh.seq=2", "mesh.model=2"])
    text = program_on(loaded, spec_of(loaded), devices).compiled(1).as_text()
    shapes = r"= \(f32\[(\d+),(\d+)\].*operand_layout_constraints={u8\[(\d+),(\d+)\]"
    found = re.findall(shapes, text)
    assert found == [("8", "32", "32", str(250 + 14))]


@pytest.mark.parametrize(
    ("gpu", "width"), [*((gpu, 15) for gpu in GPUS), ("a6000", motif_scan_gpu.MOST_WIDTH)]
)
def test_every_gpu_of_a_plan_takes_the_kernels_up_to_the_widest_filters(gpu, width):
    mesh = jax.sharding.Mesh(topology(f"{gpu}:1").devices, "data")
    whole = jax.NamedSharding(mesh, jax.P())
    shapes = (
        ((4, 100), jnp.uint8),
        *((shape, jnp.float32) for shape in ((width, 4, 16), (16,), (16, 3))),
    )
    arguments = [jax.ShapeDtypeStruct(*shape, sharding=whole) for shape in shapes]

    def both(codes, kernel, bias, weights):
        outputs, windows = motif_dense_gpu.outputs(codes, kernel, bias, weights)
        return motif_dense_gpu.gradients(kernel, bias, weights, windows, outputs)

    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        text = jax.jit(both).lower(*arguments).compile().as_text()
    assert text.count("__gpu$xla.gpu.triton") == 2


def test_hosts_are_told_apart():
    hosts = [granule(device) for device in topology("h100:2x4").devices]
    assert hosts == [("process", 0)] * 4 + [("process", 1)] * 4


def test_library_calls_of_a_derivative_count_the_operations_of_its_convolution():
    text = """
HloModule m, is_scheduled=true

ENTRY main {
  %x = f32[2,8,8,3]{3,2,1,0} parameter(0)
  %w = f32[5,3,3,3]{3,2,1,0} parameter(1)
  %dy = f32[2,6,6,5]{3,2,1,0} parameter(2)
  %y = (f32[2,6,6,5]{3,2,1,0}, u8[0]{0}) custom-call(%x, %w), window={size=3x3}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward"
  %dx = (f32[2,8,8,3]{3,2,1,0}, u8[0]{0}) custom-call(%dy, %w), window={size=3x3}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardInput"
  ROOT %dw = (f32[5,3,3,3]{3,2,1,0}, u8[0]{0}) custom-call(%x, %dy), window={size=3x3}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardFilter"
}
"""
    assert [kernel.flops for kernel in kernels(text)] == [2 * 2 * 6 * 6 * 5 * 27] * 3
