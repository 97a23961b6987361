"""A network is a sequence of named layers: easy to read, to tabulate, to shard and to cut."""

import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from jaxdna.parallel.mesh import BATCH_AXES

Shape = tuple[int, ...]


class WordTable(nnx.Param):
    """A parameter with an entry for each of very many words, of which an example has few.

    The update rule treats it in a way of its own (`jaxdna.training.optimizer`).
    """


class Layer(nnx.Module):
    """One step of a network.

    A layer maps a batch to a batch. In training it receives `rngs` (for dropout); without them it
    must be a pure function of its input and parameters.

    Attributes:
      splits: the mesh axes over which the layer splits its own work, beside those of the batch: its
        parameters over `model`, its positions over `seq`. None: the layer says nothing of meshes,
        and each device computes its own rows with whole parameters.
    """

    splits: ClassVar[tuple[str, ...] | None] = None

    @property
    def least_stretch(self) -> int:
        """Fewest positions that a device must have where `seq` splits them."""
        return 1

    def __call__(self, x: Any, rngs: nnx.Rngs | None = None) -> Any:
        """Maps [batch, ...] to [batch, ...]."""
        raise NotImplementedError

    def joined(self, following: nnx.Module, x: Any) -> "Layer | None":
        """Returns one layer that computes this one and the next faster than each by itself.

        Args:
          following: the next layer.
          x: this one's input.

        Returns:
          A layer that draws nothing, or None where these layers, this input and the devices of the
          context's mesh have no such layer.
        """
        return None

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
    """Layers applied one after the other, `Layer`s or any other modules of Flax NNX.

    Between layers there is an array [batch, ...] or a tree of them. Where the last layer returns a
    dict, one array [batch, ...] for each of several heads, their numbers stand side by side in the
    order of the heads' names.

    Attributes:
      names: the layers' names, in order; a parameter's path begins with that of its layer.
      head_name: that of the last layer.
    """

    def __init__(self, layers: Mapping[str, nnx.Module], head: str | None = None):
        """Takes the layers by name, in order; `head` only where these are some of a network's."""
        self.names = tuple(layers)
        self.head_name = head or self.names[-1]
        for name, layer in layers.items():
            if hasattr(self, name):
                raise ValueError(f"a layer cannot be called {name}: a network has a {name} itself")
            setattr(self, name, layer)

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Maps inputs uint8 [batch, ...] to outputs [batch, outputs].

        Each layer draws from its own key, made from `key` and its name, so that a part of a network
        draws the same numbers as the whole. Neighbours that `Layer.joined` joins are
        computed as one.
        """
        names = list(self.names)
        while names:
            name = names.pop(0)
            layer = getattr(self, name)
            if names and isinstance(layer, Layer):
                both = layer.joined(getattr(self, names[0]), x)
                if both is not None:
                    names.pop(0)
                    layer = both
            own = None if key is None else jax.random.fold_in(key, zlib.crc32(name.encode()))
            run = apply_layer if _splits(layer) is not None else by_rows
            x = run(layer, x, own)
        if self.names[-1] == self.head_name and isinstance(x, Mapping):
            heads = (x[name] for name in sorted(x))  # as trees of dicts are ordered everywhere
            return jnp.concatenate([y.reshape(y.shape[0], -1) for y in heads], axis=1)
        return x

    def part(self, names: Iterable[str]) -> "Network":
        """Returns a network of some of the layers, which it shares."""
        return Network({name: getattr(self, name) for name in names}, self.head_name)

    @property
    def unsplit_layers(self) -> frozenset[str]:
        """The layers whose parameters are not split over `model`."""
        return frozenset(
            name for name in self.names if "model" not in (_splits(getattr(self, name)) or ())
        )

    @property
    def word_tables(self) -> frozenset[tuple[str, ...]]:
        """Paths of the parameters that are tables of words."""
        tables = nnx.to_flat_state(nnx.state(self, WordTable))
        return frozenset(tuple(map(str, path)) for path, _ in tables)

    @property
    def least_stretch(self) -> int:
        """Fewest positions that a device must have where `seq` splits them."""
        return max(getattr(getattr(self, name), "least_stretch", 1) for name in self.names)


def _splits(layer: nnx.Module) -> tuple[str, ...] | None:
    return getattr(layer, "splits", None)


def apply_layer(layer: nnx.Module, x: Any, key: jax.Array | None) -> Any:
    """Applies a layer; `key` is for dropout, and None where nothing is drawn."""
    if not isinstance(layer, Layer):
        return layer(x)
    return layer(x, None if key is None else nnx.Rngs(dropout=key))


def by_rows(layer: nnx.Module, x: Any, key: jax.Array | None) -> Any:
    """Applies a layer, each device its own rows of the batch with whole parameters.

    XLA's partitioner is not left to itself with a layer that says nothing of meshes, because it
    gives wrong numbers without a word for some (jaxlib 0.10.2 and 0.12.0.1: dilated convolutions
    with positions and filters split). The mesh is that of the context
    (`jax.sharding.use_abstract_mesh`). Without one, or inside `shard_map`, this is `apply_layer`.
    Positions that are split are gathered before.

    Args:
      layer: any pytree module of Flax NNX.
      x: its input, an array [batch, ...] or a tree of them.
      key: as `apply_layer` takes it.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.manual_axes:
        return apply_layer(layer, x, key)
    graph, state = nnx.split(layer)

    def own(state: Any, x: Any, key: jax.Array | None) -> Any:
        return apply_layer(nnx.merge(graph, state), x, key)

    rows, whole = P(BATCH_AXES), P()
    return jax.shard_map(
        own, mesh=mesh, in_specs=(whole, rows, whole), out_specs=rows, check_vma=False
    )(state, x, key)


def parameter_count(tree: Any) -> int:
    """Number of scalars in all arrays (or abstract arrays) of a pytree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _last(tree: Any) -> Any:
    """The array of a tree whose shape is shown."""
    return jax.tree.leaves(tree)[-1]


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
        y = jax.eval_shape(lambda s, x, g=graph: apply_layer(nnx.merge(g, s), x, None), state, x)
        layer = nnx.merge(graph, state)
        parts = [(type(layer).__name__, _last(y).shape[1:], True)]
        if isinstance(layer, Layer):
            parts = layer.parts(_last(x).shape[1:], _last(y).shape[1:])
        for kind, shape, holds_parameters in parts:
            rows.append((name, kind, shape, parameter_count(state) if holds_parameters else 0))
        x = y
    return rows
