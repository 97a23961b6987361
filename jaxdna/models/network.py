"""A network is a sequence of named layers: easy to read, to tabulate, to shard and to cut."""

import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
from flax import nnx

Shape = tuple[int, ...]


class Layer(nnx.Module):
    """One step of a network.

    A layer maps a batch to a batch. In training it receives `rngs` (for dropout); without them it
    must be a pure function of its input and parameters.
    """

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps [batch, ...] to [batch, ...]."""
        raise NotImplementedError

    def parts(self, x: Shape, y: Shape) -> list[tuple[str, Shape, bool]]:
        """What the layer shows in the summary table.

        Args:
          x: shape of one input example.
          y: shape of one output example.

        Returns:
          (type, shape of one output example, whether the parameters sit in this part), one for
          each operation that people know by a name of its own.
        """
        return [(type(self).__name__, y, True)]


class Network(nnx.Module):
    """Layers applied one after the other.

    Attributes:
      names: the layers' names, in order; a parameter's path is `name/kernel` or `name/bias`.
    """

    def __init__(self, layers: Mapping[str, Layer]):
        """Takes the layers by name, in order."""
        self.names = tuple(layers)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Maps inputs uint8 [batch, ...] to logits [batch, logits].

        Each layer draws from its own key, made from `key` and its name, so that a part of a network
        draws the same numbers as the whole.
        """
        for name in self.names:
            x = getattr(self, name)(x, None if key is None else _layer_rngs(key, name))
        return x

    def part(self, names: Iterable[str]) -> "Network":
        """Returns a network of some of the layers, which it shares."""
        return Network({name: getattr(self, name) for name in names})


def _layer_rngs(key: jax.Array, name: str) -> nnx.Rngs:
    return nnx.Rngs(dropout=jax.random.fold_in(key, zlib.crc32(name.encode())))


def parameter_count(tree: Any) -> int:
    """Number of scalars in all arrays (or abstract arrays) of a pytree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def summary_rows(
    build: Callable[[], Network], example_shape: Shape
) -> list[tuple[str, str, Shape, int]]:
    """Returns (name, type, output shape of one example, parameters) of every layer, in order.

    Only shapes are computed: no array is allocated.

    Args:
      build: makes the network.
      example_shape: shape of one uint8 input example.
    """
    network = nnx.eval_shape(build)
    rows = []
    x = jax.ShapeDtypeStruct((1, *example_shape), "uint8")
    for name in network.names:
        graph, state = nnx.split(getattr(network, name))
        y = jax.eval_shape(lambda s, x, g=graph: nnx.merge(g, s)(x), state, x)
        for kind, shape, holds_parameters in nnx.merge(graph, state).parts(
            x.shape[1:], y.shape[1:]
        ):
            rows.append((name, kind, shape, parameter_count(state) if holds_parameters else 0))
        x = y
    return rows
