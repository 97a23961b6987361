"""The stages of a pipeline: their devices, their jitted functions, their part of the state."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxdna.models.network import Network
from jaxdna.parallel.mesh import BATCH_AXES
from jaxdna.parallel.sharding import gathered, parameter_shardings, replicated
from jaxdna.tasks.task import Task
from jaxdna.training.state import Params


class Backward(NamedTuple):
    """What a backward pass gives.

    Attributes:
      gradients: of the stage's parameters.
      inputs: of its input; None on the first stage, since nobody needs that of the data.
      sums: the task's sums over the micro-batch, float32 [sums]; None on all stages but the last.
    """

    gradients: Any
    inputs: Any
    sums: Any


@dataclass(frozen=True)
class Stage:
    """Some layers on some devices.

    Attributes:
      names: its layers.
      mesh: its devices; the axis `stage` is 1.
      params: sharding of each of its parameters.
      opt_state: sharding of each array of its optimizer state.
      forward: (params, x, keys, i) -> y; without keys no dropout.
      backward: (params, x, keys, i, dy) -> `Backward`; on the last stage `dy` is the micro-batch's
        `y`, `weight` and `total` weight of the whole batch.
      update: (params, optimizer state, gradients) -> (params, optimizer state).
    """

    names: tuple[str, ...]
    mesh: Mesh
    params: Any
    opt_state: Any
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    update: Callable[..., Any]


def stage_meshes(mesh: Mesh) -> list[Mesh]:
    """Splits a mesh along its axis `stage`: the devices of each stage, with all axes."""
    axis = mesh.axis_names.index("stage")
    kinds = (AxisType.Auto,) * mesh.devices.ndim
    parts = np.split(mesh.devices, mesh.shape["stage"], axis)
    return [Mesh(devices, mesh.axis_names, axis_types=kinds) for devices in parts]


def rows_of(mesh: Mesh) -> NamedSharding:
    """Arrays [batch, ...]: the rows are split over the batch axes."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def make_stages(
    network: Network,
    cut: Sequence[tuple[str, ...]],
    mesh: Mesh,
    task: Task,
    optimizer: optax.GradientTransformation,
    compiler_options: dict[str, Any],
) -> list[Stage]:
    """Returns the stages, first to last.

    Args:
      network: abstract, in whole.
      cut: the layers of each stage.
      mesh: of all stages.
      task: has the loss.
      optimizer: an update rule that treats every parameter by itself.
      compiler_options: for every function.

    Raises:
      UserError: an axis of the mesh does not divide a parameter.
    """
    last = len(cut) - 1
    jit = partial(jax.jit, compiler_options=compiler_options)
    return [
        _make_stage(
            network.part(names),
            part,
            task,
            optimizer,
            jit,
            first=i == 0,
            last=i == last,
        )
        for i, (names, part) in enumerate(zip(cut, stage_meshes(mesh), strict=True))
    ]


def _make_stage(
    network: Network,
    mesh: Mesh,
    task: Task,
    optimizer: optax.GradientTransformation,
    jit: Callable[..., Any],
    *,
    first: bool,
    last: bool,
) -> Stage:
    graph, state = nnx.split(network)

    def forward(params: Params, x: jax.Array, keys: Any, i: Any) -> jax.Array:
        key = None if keys is None else jax.random.wrap_key_data(keys[i])
        params = gathered(params, mesh, network.head_name, network.unsplit_layers)
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return nnx.merge(graph, nnx.State(params))(x, key)

    def loss(params: Params, x: jax.Array, keys: Any, i: Any, target: Any) -> Any:
        sums = task.batch_sums(forward(params, x, keys, i), target)
        return sums["loss"] / target["total"], jnp.stack([sums[name] for name in task.sums])

    def backward(params: Params, x: jax.Array, keys: Any, i: Any, dy: Any) -> Backward:
        wanted = (0,) if first else (0, 1)
        if last:
            found, sums = jax.grad(loss, wanted, has_aux=True)(params, x, keys, i, dy)
        elif first:
            found = jax.vjp(lambda params: forward(params, x, keys, i), params)[1](dy)
            sums = None
        else:
            found = jax.vjp(lambda params, x: forward(params, x, keys, i), params, x)[1](dy)
            sums = None
        return Backward(found[0], None if first else found[1], sums)

    def update(params: Params, opt_state: Any, gradients: Params) -> tuple[Params, Any]:
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    shapes = nnx.to_pure_dict(state)
    params = parameter_shardings(mesh, shapes, network.head_name, network.unsplit_layers)
    opt_state = optax.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        jax.eval_shape(optimizer.init, shapes),
        params,
        transform_non_params=lambda _: replicated(mesh),
    )
    passed_on = Backward(
        params, None if first else rows_of(mesh), replicated(mesh) if last else None
    )
    return Stage(
        network.names,
        mesh,
        params,
        opt_state,
        jit(forward, out_shardings=rows_of(mesh)),
        jit(backward, out_shardings=passed_on),
        jit(update, out_shardings=(params, opt_state)),
    )


def part(tree: Any, layers: set[str], stage: Stage) -> Any:
    """Restricts parameters, or an optimizer state, to the layers of one stage.

    Args:
      tree: parameters by layer, or a pytree with such dicts in it.
      layers: all layers that have parameters.
      stage: whose part.
    """

    def own(node: Any) -> Any:
        is_params = _by_layer(layers)(node)
        return {n: node[n] for n in stage.names if n in node} if is_params else node

    return jax.tree.map(own, tree, is_leaf=_by_layer(layers))


def join(parts: Sequence[Any], stages: Sequence[Stage]) -> Any:
    """Undoes `part`: one tree from those of all stages; what is in no layer is the first's."""
    leaves = [
        jax.tree.flatten(tree, is_leaf=_by_layer(set(stage.params)))
        for tree, stage in zip(parts, stages, strict=True)
    ]
    joined = [
        {name: layer for node in nodes for name, layer in node.items()}
        if isinstance(nodes[0], dict)
        else nodes[0]
        for nodes in zip(*(nodes for nodes, _ in leaves), strict=True)
    ]
    return jax.tree.unflatten(leaves[0][1], joined)


def _by_layer(layers: set[str]) -> Callable[[Any], bool]:
    return lambda node: isinstance(node, dict) and node.keys() == layers
