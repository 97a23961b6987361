"""Bytes that compiled programs move, above all the training step of TAL1 on TPUs."""

import importlib.util
import re

import jax
import jax.numpy as jnp
import pytest

from jaxdna.config import load_config
from jaxdna.parallel.mesh import make_mesh
from jaxdna.study.kernels import bytes_moved
from jaxdna.study.topology import topology
from jaxdna.tasks.kinds import of_classes
from jaxdna.training.program import Program

PARAMETERS = 993 * 4


def test_a_fusion_reads_its_operands_and_writes_its_result():
    x = jax.ShapeDtypeStruct((100, 7), jnp.float32)
    text = jax.jit(lambda x, y: jnp.sin(x) * y + x).lower(x, x).compile().as_text()
    assert bytes_moved(text) == 3 * 100 * 7 * 4


def test_of_what_a_loop_slices_each_round_reads_its_slice():
    x = jax.ShapeDtypeStruct((10, 1000), jnp.float32)

    def each(total, row):
        return total + jnp.sin(row), None

    def loop(x):
        return jax.lax.scan(each, jnp.zeros(1000), x)[0]

    text = jax.jit(loop).lower(x).compile().as_text()
    # The slice and the sum so far in, the sum out; and the counter.
    assert 3 * 4000 <= bytes_moved(text, 10) <= 3 * 4000 + 500


def test_memory_on_the_chip_and_loops_of_unknown_rounds_are_free():
    text = """
%body (p: f32[8]) -> f32[8] {
  %p = f32[8]{0:T(128)} parameter(0)
  ROOT %twice = f32[8]{0:T(128)} add(%p, %p)
}

ENTRY %main (a: f32[8], b: u8[16]) -> f32[8] {
  %a = f32[8]{0:T(128)} parameter(0)
  %b = u8[16]{0:T(128)} parameter(1)
  %start = (f32[8]{0:T(128)S(1)}, f32[8]{0:T(128)}, u32[]{:S(2)}) copy-start(%a)
  %done = f32[8]{0:T(128)S(1)} copy-done(%start)
  %wide = f32[16]{0:T(128)S(1)} convert(%b)
  %some = f32[8]{0:T(128)} while(%a), condition=%more, body=%body
  ROOT %six = f32[8]{0:T(128)} while(%some), condition=%more, body=%body, \
backend_config={"known_trip_count":{"n":"6"}}
}
"""
    assert bytes_moved(text) == 32 + 16 + 6 * 3 * 32
    assert bytes_moved(text, rounds=4) == 32 + 16 + (4 + 6) * 3 * 32


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra [plan]")
@pytest.mark.parametrize("name", ["v5e:1x1", "v5e:2x2"])
def test_a_tpu_s_training_step_reads_the_codes_about_once(name):
    devices = topology(name).devices
    rows, steps = 32, 100  # of each device; of each call, as on a TPU
    changes = [f"mesh.data={len(devices)}", f"train.batch_size={rows * len(devices)}"]
    config = load_config("configs/tal1.py", changes)
    program = Program(config, make_mesh(config, devices), (500,), of_classes(2), 12_800)
    text = program.compiled(steps).as_text()
    assert rows * 500 < bytes_moved(text, steps) < 2 * (rows * 500 + PARAMETERS)
    # One kernel, of which each device has its own rows.
    assert re.findall(r"%motif_scan[.\d]* = \(f32\[(\d+),(\d+)\]", text) == [("16", str(rows))]
