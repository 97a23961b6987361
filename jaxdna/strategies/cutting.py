"""Cuts a network into stages: by the user's boundaries, or so that the slowest stage is fastest."""

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxdna.errors import UserError, nearest
from jaxdna.models.network import Network, Shape


def check_stages(stages: int, names: Sequence[str]) -> None:
    """Raises UserError where there are more stages than layers."""
    if stages > len(names):
        raise UserError(
            f"--config.mesh.stage={stages} is more than the {len(names)} layers of the network "
            f"({', '.join(names)}); legal: 1 to {len(names)}"
        )


def cut_at(boundaries: str, names: Sequence[str], stages: int) -> list[tuple[str, ...]]:
    """Returns the layers of each stage.

    Args:
      boundaries: layers (names or numbers from 0) that begin stages 1, 2, ..., with commas.
      names: all layers in order.
      stages: how many stages there must be.

    Raises:
      UserError: a boundary is not a layer, they do not rise, or there are too many or too few.
    """
    flag = f"--config.pipeline.boundaries={boundaries}"
    starts = [0]
    for text in filter(None, (part.strip() for part in boundaries.split(","))):
        if text not in names and not (text.isdigit() and int(text) < len(names)):
            raise UserError(f"{flag}: '{text}' is not a layer; {nearest(text, names)}")
        starts.append(names.index(text) if text in names else int(text))
    if len(starts) != stages:
        raise UserError(
            f"{flag} makes {len(starts)} stages, but --config.mesh.stage={stages}; "
            f"give {stages - 1} of {', '.join(names[1:])}"
        )
    if any(a >= b for a, b in pairwise(starts)):
        raise UserError(
            f"{flag} must rise and leave no stage empty; give {stages - 1} of "
            f"{', '.join(names[1:])} in this order"
        )
    return [tuple(names[a:b]) for a, b in pairwise([*starts, len(names)])]


def balanced(costs: Sequence[float], stages: int) -> list[int]:
    """Returns the first layers of stages 1, 2, ... that make the dearest stage cheapest.

    Among equals the cut that leaves the cheapest sum of squares wins, then the first.

    Args:
      costs: of each layer.
      stages: at most the number of layers.
    """

    def dearest(starts: Iterable[int]) -> tuple[float, float]:
        sums = [sum(costs[a:b]) for a, b in pairwise((0, *starts, len(costs)))]
        return max(sums), sum(cost**2 for cost in sums)

    return list(min(combinations(range(1, len(costs)), stages - 1), key=dearest))


def measure(build: Callable[[], Network], example_shape: Shape, rows: int) -> dict[str, float]:
    """Times the forward and backward pass of every layer on the first device.

    Args:
      build: makes the network.
      example_shape: shape of one uint8 input example.
      rows: examples of one micro-batch.

    Returns:
      Seconds by layer: the least of several runs, since whatever disturbs a run prolongs it.
    """
    network = build()
    x = jnp.zeros((rows, *example_shape), "uint8")
    costs = {}
    for name in network.names:
        graph, state = nnx.split(network.part([name]))
        params = nnx.to_pure_dict(state)
        passes = jax.jit(lambda params, x, dy, graph=graph: both_ways(graph, params, x, dy))
        shapes = jax.eval_shape(nnx.merge(graph, nnx.State(params)), x)
        y = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        seconds = []
        jax.block_until_ready(passes(params, x, y))
        for _ in range(7):
            start = time.perf_counter()
            jax.block_until_ready(passes(params, x, y))
            seconds.append(time.perf_counter() - start)
        costs[name] = min(seconds)
        x = y
    return costs


def both_ways(graph: nnx.GraphDef, params: dict, x: Any, dy: Any) -> tuple:
    """Returns (y, gradient of the parameters, gradient of x or None) of a part of a network."""

    def run(params: dict, x: Any) -> Any:
        return nnx.merge(graph, nnx.State(params))(x)

    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(x)):
        y, back = jax.vjp(lambda params: run(params, x), params)
        return y, *back(dy), None
    y, back = jax.vjp(run, params, x)
    return y, *back(dy)
