"""The floating-point operations that a network needs for an example, whatever computes them how."""

import math
from collections.abc import Iterator
from typing import Any

import jax
from flax import nnx
from ml_collections import ConfigDict

from jaxdna.config import flat, validate
from jaxdna.models.registry import build_network

_PASSES = 3


def training_flops(config: ConfigDict, outputs: int, example_shape: tuple[int, ...]) -> int:
    """Counts what training on one example takes: that of a utilisation (MFU).

    Three times the products and convolutions of the forward pass, since back-propagation has two
    for each (Chowdhery et al. 2022, PaLM, appendix B). What else a formulation or a strategy
    computes does not count: zeros, scores anew, activations a second time.

    Args:
      config: a whole configuration.
      outputs: numbers that the network returns for an example.
      example_shape: of one uint8 example.
    """
    if "scan" in config.model:  # as the convolution that every formulation is of
        config = validate(flat(config) | {"model.scan": "plain"})
    abstract = nnx.eval_shape(lambda: build_network(config, outputs, example_shape))
    graph, state = nnx.split(abstract)
    x = jax.ShapeDtypeStruct((1, *example_shape), "uint8")
    traced = jax.make_jaxpr(lambda state, x: nnx.merge(graph, state)(x))(state, x)
    return _PASSES * _product_flops(traced.jaxpr)


def _product_flops(jaxpr: Any) -> int:
    """Two operations for each multiplication of a matrix product or a convolution."""
    total = 0
    for eqn in jaxpr.eqns:
        rounds = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        inside = list(map(_product_flops, _inside(eqn)))
        # Of the formulations for several platforms one runs; a look-up needs no products.
        total += min(inside) if eqn.primitive.name == "cond" else rounds * sum(inside)
        if eqn.primitive.name == "dot_general":
            ((contracted, _), _) = eqn.params["dimension_numbers"]
            left = eqn.invars[0].aval
            total += 2 * eqn.outvars[0].aval.size * math.prod(left.shape[i] for i in contracted)
        elif eqn.primitive.name == "conv_general_dilated":
            kernel = eqn.invars[1].aval
            filters = kernel.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
            total += 2 * eqn.outvars[0].aval.size * kernel.size // filters
    return total


def _inside(eqn: Any) -> Iterator[Any]:
    """The programs that an equation runs."""
    for value in jax.tree.leaves(tuple(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
        inner = getattr(value, "jaxpr", value)
        if hasattr(inner, "eqns"):
            yield inner
