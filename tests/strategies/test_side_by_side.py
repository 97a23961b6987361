"""Networks that take the same batch: they share what is made of it, in whatever groups."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdna.config import load_config
from jaxdna.data.registry import spec_of
from jaxdna.strategies import members
from jaxdna.strategies.side_by_side import Group, each_of_its_batch, largest_group
from jaxdna.study.plan import program_on
from jaxdna.study.topology import topology


@pytest.mark.parametrize("most", [1, 2, 3, 4, 12])
def test_each_network_gets_its_own_batch_in_groups_of_any_size(most):
    group = largest_group(6, 4, most)
    assert most // 2 <= group.sharing * group.batches <= most
    own, batches = np.arange(24), np.array([100, 200, 300, 400])
    found = jax.jit(
        lambda own, batches: each_of_its_batch(lambda a, b: (a + b, a), own, batches, group)
    )(own, batches)
    np.testing.assert_array_equal(found[0], own + np.tile(batches, 6))
    np.testing.assert_array_equal(found[1], own)


def test_what_is_made_of_a_batch_alone_is_made_once_for_all_that_share_it():
    def every(own, batches):
        return each_of_its_batch(lambda a, b: a + jnp.sin(b).sum(), own, batches, Group(6, 4))

    program = jax.make_jaxpr(every)
    steps = program(jnp.zeros(24), jnp.zeros((4, 7))).jaxpr.eqns
    sines = [step.outvars[0].aval.shape for step in steps if step.primitive.name == "sin"]
    assert sines == [(4, 7)]


@pytest.mark.parametrize(
    ("most", "member", "batches"),
    [
        (2**24, 1, 2),
        (2**21, 1, 2),  # in groups one after the other
        (2**24, 2, 2),
        (2**24, 4, 8),  # of each seed a device has one setting only
    ],
)
def test_settings_of_a_grid_share_the_batches_of_their_seed(monkeypatch, most, member, batches):
    monkeypatch.setattr(members, "_TPU_BYTES", most)
    grid = "members.grid=optimizer.learning_rate=0.5,0.2,0.1,0.05"
    axes = [f"mesh.member={member}", "mesh.data=1"]
    config = load_config("configs/tal1.py", [grid, "members.seeds=2", *axes])
    program = program_on(config, spec_of(config), topology("v5e:2x2").devices[:member])
    assert program.batches == batches
    shapes = program.abstract_batches(3)
    assert shapes["x"].shape == (batches, 3, 32, 500)
    assert shapes["active"].shape == (8,)
