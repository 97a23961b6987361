"""DeepLIFT of any function: what each input adds to the difference between two outputs.

The function's jaxpr is walked once with a reference and a sequence side by side. Each equation has
a rule that says how the change of its output is made of the changes of its inputs: a linear map
that is exact for the changes that there are. Their composition is linear in the change of the
input, and its transpose gives the multipliers. Nothing is left out on the way, neither a residual
sum nor the other strand, so that the multipliers times the change of the input add up to that of
the output.

Source: Shrikumar, Greenside and Kundaje 2017, arXiv 1704.02685: multipliers, their chain rule and
the rescale rule. A product is shared out evenly, as Shapley values of two factors are (Lundberg and
Lee 2017, arXiv 1705.07874, section 4.2).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from jaxdna.analysis.deeplift_rules import BY_PLACE, RULES, NoRule, Pair, Rule, rescale
from jaxdna.errors import UserError

# Primitives that only hold another jaxpr, and the name of the parameter that is it.
_CALLS = {
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
Apply = Callable[..., list[jax.Array]]

_ABRUPT = 1e-6  # a change of less than this has the slope of the place, where a function may bend


def multipliers(
    function: Callable[[jax.Array], jax.Array], sequence: jax.Array, reference: jax.Array
) -> jax.Array:
    """Returns DeepLIFT's multipliers; times `sequence - reference` they add up to the change.

    Args:
      function: maps an array to [outputs].
      sequence: float, any shape.
      reference: float, of the same shape.

    Returns:
      float [outputs, *input].

    Raises:
      UserError: the function uses a primitive that has no rule.
    """
    closed = jax.make_jaxpr(function)(sequence)

    def output(change: jax.Array) -> jax.Array:
        (out,) = _walk(closed, [Pair(reference, sequence, change)])
        if isinstance(out.change, NoRule):
            raise UserError(
                f"--method=deeplift_shap: the network uses {out.change.primitive} of jax.lax, "
                "which has no rule; try --method=ism, saliency or integrated_gradients"
            )
        return jnp.zeros_like(out.sequence) if out.change is None else out.change

    change, transpose = jax.vjp(output, sequence - reference)
    basis = jnp.eye(change.size, dtype=change.dtype)
    return jax.vmap(lambda row: transpose(row)[0])(basis)


def _walk(closed: ClosedJaxpr, inputs: Sequence[Pair]) -> list[Pair]:
    """Returns the outputs of a jaxpr for the pairs that go in."""
    jaxpr = closed.jaxpr
    known: dict[Any, Pair] = dict(zip(jaxpr.invars, inputs, strict=True))
    known |= {
        variable: Pair(value, value, None)
        for variable, value in zip(jaxpr.constvars, closed.consts, strict=True)
    }

    def read(atom: Any) -> Pair:
        return Pair(atom.val, atom.val, None) if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        outputs = _step(equation, [read(atom) for atom in equation.invars])
        known |= dict(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _step(equation: Any, inputs: list[Pair]) -> list[Pair]:
    name = equation.primitive.name
    inner = equation.params.get(_CALLS[name]) if name in _CALLS else None
    if isinstance(inner, Jaxpr):
        inner = ClosedJaxpr(inner, ())

    def apply(*values: Any) -> list[jax.Array]:
        if inner:
            return jaxpr_as_fun(inner)(*values)
        found = equation.primitive.bind(*values, **equation.params)
        return found if equation.primitive.multiple_results else [found]

    changes = [one.change for one in inputs]
    if all(change is None for change in changes):
        return [Pair(value, value, None) for value in apply(*(one.sequence for one in inputs))]
    if inner:
        outputs = _walk(inner, inputs)
        if any(isinstance(out.change, NoRule) for out in outputs) and _by_place(inner, inputs):
            return _paired(apply, inputs, rescale(_ABRUPT), NoRule(name))
        return outputs
    if name == "stop_gradient":
        # What is stopped is said not to matter, such as the maximum that a softmax subtracts, and
        # one value for both sides keeps it from being counted.
        middle = (inputs[0].reference + inputs[0].sequence) / 2
        return [Pair(middle, middle, None)]
    lacking = next((change for change in changes if isinstance(change, NoRule)), None)
    rule = None if lacking else RULES.get(name)
    return _paired(apply, inputs, rule, lacking or NoRule(name))


def _paired(apply: Apply, inputs: list[Pair], rule: Rule | None, lacking: NoRule) -> list[Pair]:
    """Returns the values of an equation on both sides, with the changes that its rule gives."""
    low, high = (apply(*(one[side] for one in inputs)) for side in (0, 1))
    changes = rule(apply, inputs, low, high) if rule else None
    return [Pair(*each) for each in zip(low, high, changes or [lacking] * len(low), strict=True)]


def _by_place(inner: ClosedJaxpr, inputs: list[Pair]) -> bool:
    """Whether each number of the output depends on one number of one input alone, at its place."""
    shapes = {jnp.shape(one.sequence) for one in inputs if one.change is not None}
    alone = sum(one.change is not None for one in inputs) == 1
    return alone and len(inner.jaxpr.outvars) == 1 and _keeps_places(inner.jaxpr, shapes | {()})


def _keeps_places(jaxpr: Any, shapes: set[tuple[int, ...]]) -> bool:
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in _CALLS:
            inner = equation.params[_CALLS[name]]
            fits = _keeps_places(getattr(inner, "jaxpr", inner), shapes)
        elif name == "broadcast_in_dim":
            fits = not equation.invars[0].aval.shape
        else:
            fits = name in BY_PLACE
        if not fits or any(variable.aval.shape not in shapes for variable in equation.outvars):
            return False
    return True
