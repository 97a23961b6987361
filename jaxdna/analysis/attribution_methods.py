"""How derivatives of a network become scores of bases: saliency, integrated gradients, DeepLIFT.

A hypothetical score says what a base would add in a place, also one that is not there.

Sources: saliency, Simonyan, Vedaldi and Zisserman 2013, arXiv 1312.6034, with the mean of the four
taken off (Majdandzic et al. 2023, Genome Biology 24:109); DeepLIFT's mean over references, Lundberg
and Lee 2017, arXiv 1705.07874, section 4.2.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from jaxdna.analysis.deeplift import multipliers
from jaxdna.analysis.integrated_gradients import mean_gradient

Output = Callable[[jax.Array], jax.Array]


def _saliency(output: Output, sequence: jax.Array, references: jax.Array, steps: int) -> jax.Array:
    gradient = jax.jacrev(output)(sequence)
    return gradient - gradient.mean(axis=-1, keepdims=True)


def _from(reference: jax.Array, slopes: jax.Array) -> jax.Array:
    """What each base adds to a reference [length, 4] by slopes [outputs, length, 4]."""
    return slopes - (slopes * reference).sum(axis=-1, keepdims=True)


def _integrated_gradients(
    output: Output, sequence: jax.Array, references: jax.Array, steps: int
) -> jax.Array:
    def of(reference: jax.Array) -> jax.Array:
        return _from(reference, mean_gradient(output, sequence, reference, steps))

    return jax.vmap(of)(references).mean(axis=0)


def _deeplift_shap(
    output: Output, sequence: jax.Array, references: jax.Array, steps: int
) -> jax.Array:
    def of(reference: jax.Array) -> jax.Array:
        return _from(reference, multipliers(output, sequence, reference))

    return jax.vmap(of)(references).mean(axis=0)


class Method(NamedTuple):
    """A way to score bases by derivatives.

    Attributes:
      hypothetical: (output of one-hot [length, 4] -> [outputs], sequence [length, 4], references
        [references, length, 4], steps) -> float [outputs, length, 4].
      references: what it is compared with by default; nothing where that is nothing.
    """

    hypothetical: Callable[[Output, jax.Array, jax.Array, int], jax.Array]
    references: str


BY_DERIVATIVES = {
    "saliency": Method(_saliency, ""),
    "integrated_gradients": Method(_integrated_gradients, "background"),
    "deeplift_shap": Method(_deeplift_shap, "dinucleotide_shuffle"),
}
