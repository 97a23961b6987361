"""How the change of a primitive's output is made of the changes of its inputs, for each primitive.

A rule is given `apply`, which computes the primitive, the pairs that go in, and what comes out at
the reference and at the sequence. It returns the change of each output, linear in those of the
inputs; for the changes that there are, that is what comes out at the sequence less what comes out
at the reference. It returns None where it does not know.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class NoRule(NamedTuple):
    """Stands for a change of which nothing is known.

    Attributes:
      primitive: that has no rule.
    """

    primitive: str


Change = jax.Array | NoRule | None


class Pair(NamedTuple):
    """A value of the function on both sides.

    Attributes:
      reference: the value.
      sequence: the value, of the same shape.
      change: linear in that of the function's input, of the same shape; None where that does not
        reach.
    """

    reference: Any
    sequence: Any
    change: Any


Values = Sequence[jax.Array]
Rule = Callable[[Callable[..., Values], Sequence[Pair], Values, Values], Sequence[Change] | None]


def _difference(one: Pair) -> Any:
    """The change, as numbers also where there is none."""
    return jnp.zeros_like(one.sequence) if one.change is None else one.change


def _linear(first: int = 0, stop: int | None = None) -> Rule:
    """The primitive itself, of the changes.

    Args:
      first: the first input in which it is linear.
      stop: the input after the last one in which it is linear; None for all. The others, such as
        indices, must not change.
    """

    def rule(apply: Callable, inputs: Sequence[Pair], low: Values, high: Values) -> Any:
        inside = range(*slice(first, stop).indices(len(inputs)))
        others = [one.change for i, one in enumerate(inputs) if i not in inside]
        if any(change is not None for change in others) or any(
            not jnp.issubdtype(out.dtype, jnp.floating) for out in high
        ):
            return None
        return apply(
            *(_difference(one) if i in inside else one.sequence for i, one in enumerate(inputs))
        )

    return rule


def _product(apply: Callable, inputs: Sequence[Pair], low: Values, high: Values) -> list[Change]:
    """Each factor's change times the mean of the other one, which shares out evenly."""
    parts = []
    for i, one in enumerate(inputs):
        if one.change is not None:
            means = [(other.reference + other.sequence) / 2 for other in inputs]
            means[i] = one.change
            parts.append(apply(*means)[0])
    return [sum(parts[1:], parts[0])]


def _quotient(apply: Callable, inputs: Sequence[Pair], low: Values, high: Values) -> list[Change]:
    """The product with the reciprocal, whose own change is exact."""
    over, under = inputs
    inverse = Pair(1 / under.reference, 1 / under.sequence, None)
    if under.change is not None:
        inverse = inverse._replace(change=-under.change * inverse.reference * inverse.sequence)
    return _product(lambda a, b: [a * b], [over, inverse], low, high)


def rescale(near: float, relative: bool = False) -> Rule:
    """Where each number depends on one number: the slope is the quotient of both differences.

    Where the input hardly changes, that is a quotient of roundings, and the slope is the derivative
    in the middle.

    Args:
      near: below which an input hardly changes. Of a smooth function 0.01: there the derivative in
        the middle is as exact as a float32 quotient is.
      relative: whether `near` is a share of the smaller one of both inputs.
    """

    def rule(apply: Callable, inputs: Sequence[Pair], low: Values, high: Values) -> Any:
        places = [i for i, one in enumerate(inputs) if one.change is not None]
        if len(places) > 1:
            return None
        one = inputs[places[0]]

        def of(value: Any) -> Any:
            values = [value if i in places else other.sequence for i, other in enumerate(inputs)]
            return apply(*values)[0]

        middle, step = (one.reference + one.sequence) / 2, one.sequence - one.reference
        least = jnp.minimum(abs(one.reference), abs(one.sequence)) if relative else 1
        small = abs(step) <= near * least
        derivative = jax.jvp(of, (middle,), (jnp.ones_like(middle),))[1]
        slope = jnp.where(small, derivative, (high[0] - low[0]) / jnp.where(small, 1, step))
        return [slope * one.change]

    return rule


def _larger(sign: int) -> Rule:
    """The larger one of two numbers a and b, or with -1 the smaller one: b and a ReLU of a - b."""

    def rule(apply: Callable, inputs: Sequence[Pair], low: Values, high: Values) -> list[Change]:
        a, b = inputs
        before, after = sign * (a.reference - b.reference), sign * (a.sequence - b.sequence)
        crosses = before * after < 0
        part = jnp.maximum(before, after) / jnp.where(crosses, abs(before) + abs(after), 1)
        share = jnp.where(crosses, part, ((before > 0) | (after > 0)).astype(part.dtype))
        return [share * _difference(a) + (1 - share) * _difference(b)]

    return rule


def _largest(better: Callable[[Any, Any], Any]) -> Rule:
    """The largest of many numbers, or the smallest: what wins on a side takes the change.

    Where the sequence has the better one, that is what wins there, else what wins at the reference;
    what ties shares. A winner that does not change itself adds nothing; it has the derivative where
    the maximum does not change either, which is the limit of small changes.

    Args:
      better: the better one of two numbers.
    """

    def rule(apply: Callable, inputs: Sequence[Pair], low: Values, high: Values) -> list[Change]:
        (one,) = inputs
        step = one.sequence - one.reference
        same = step == 0
        share = jnp.where(same, 0, one.change / jnp.where(same, 1, step))

        def winners(at: Any, tangent: Any) -> Any:
            return jax.jvp(lambda value: apply(value)[0], (at,), (tangent,))[1]

        best = better(low[0], high[0])
        return [
            (best - low[0]) * winners(one.sequence, share)
            + (high[0] - best) * winners(one.reference, share)
            + jnp.where(low[0] == high[0], winners(one.sequence, jnp.where(same, one.change, 0)), 0)
        ]

    return rule


def _same(apply: Callable, inputs: Sequence[Pair], low: Values, high: Values) -> list[Change]:
    return [one.change for one in inputs]


_LINEAR = (
    "add add_any sub neg reduce_sum broadcast_in_dim reshape transpose squeeze concatenate stack "
    "split slice rev pad cumsum reduce_window_sum convert_element_type reduce_precision copy name "
    "sharding_constraint"
)
_SMOOTH = (
    "exp exp2 expm1 log1p logistic tanh sinh cosh asinh atan sin cos tan erf erfc lgamma digamma"
)
_POWERS = "square sqrt rsqrt cbrt log pow integer_pow"
_BENT = "abs clamp"

RULES: dict[str, Rule] = {
    **dict.fromkeys(_LINEAR.split(), _linear()),
    "select_n": _linear(1),
    "gather": _linear(0, 1),
    "dynamic_slice": _linear(0, 1),
    "dynamic_update_slice": _linear(0, 2),
    **dict.fromkeys(("mul", "dot_general", "conv_general_dilated"), _product),
    "div": _quotient,
    **dict.fromkeys(_SMOOTH.split(), rescale(0.01)),
    **dict.fromkeys(_POWERS.split(), rescale(0.01, relative=True)),
    **dict.fromkeys(_BENT.split(), rescale(1e-6)),
    "max": _larger(1),
    "min": _larger(-1),
    **dict.fromkeys(("reduce_max", "reduce_window_max", "cummax"), _largest(jnp.maximum)),
    **dict.fromkeys(("reduce_min", "reduce_window_min", "cummin"), _largest(jnp.minimum)),
    "optimization_barrier": _same,
}
# What computes each number of its output from the numbers in the same place.
BY_PLACE = frozenset(
    f"{_SMOOTH} {_POWERS} {_BENT} add add_any sub neg mul div max min select_n copy eq ne lt le gt "
    "ge and or not xor is_finite sign floor ceil round rem convert_element_type".split()
)
