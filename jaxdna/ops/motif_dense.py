"""The motif scan, ReLU and a linear layer as one operation, for GPUs.

Apart, the two layers exchange a score for each sequence and filter through device memory, and again
its gradient. The operation that has both keeps neither. Its values and derivatives are those of the
layers, ties of `motif_scan` included.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxdna.ops import motif_scan_matmul
from jaxdna.ops.motif_scan import on_gpu, one_scan, shared_if_tied
from jaxdna.ops.strands import Strands, read

Residuals = tuple[Any, Array, Array, Array, Array]


def joins(implementation: str, kernel: Array, bias: Array, weights: Array) -> bool:
    """Whether a formulation of `motif_scan` takes the linear layer along, on the context's mesh.

    The kernels cannot be divided over devices by the compiler, and do not divide filters and
    positions themselves.

    Args:
        implementation: of `motif_scan`.
        kernel: as that of `motif_dense`.
        bias: as that of `motif_dense`.
        weights: as those of `motif_dense`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if implementation != "pallas_gpu" and not (
        implementation == "auto" and on_gpu(mesh.abstract_device)
    ):
        return False
    from jaxdna.ops import motif_dense_gpu

    divided = mesh.shape.get("seq", 1) > 1 or mesh.shape.get("model", 1) > 1
    in_part = mesh.manual_axes and set(mesh.manual_axes) != set(mesh.axis_names)
    return not divided and not in_part and motif_dense_gpu.fits(kernel, bias, weights)


@jax.custom_vjp
def motif_dense(codes: Array | Strands, kernel: Array, bias: Array, weights: Array) -> Array:
    """Returns `relu(motif_scan(codes, kernel, bias)) @ weights`.

    Args:
        codes: [batch, length] uint8, or `Strands`.
        kernel: [width, 4, filters] float32.
        bias: [filters] float32.
        weights: [filters, outputs] float32; see `joins` for the sizes.

    Returns:
        [batch, outputs] float32.
    """
    return _forward(codes, kernel, bias, weights)[0]


def _forward(
    codes: Array | Strands, kernel: Array, bias: Array, weights: Array
) -> tuple[Array, Residuals]:
    outputs, windows = _outputs(codes, kernel, bias, weights)
    return outputs, (codes, kernel, bias, weights, windows)


@jax.custom_batching.custom_vmap
def _outputs(codes: Any, kernel: Array, bias: Array, weights: Array) -> tuple[Array, Array]:
    from jaxdna.ops import motif_dense_gpu

    return motif_dense_gpu.outputs(codes, kernel, bias, weights)


@_outputs.def_vmap
def _(_: int, batched: Any, *arguments: Any) -> tuple[Any, Any]:
    """Networks that share their sequences scan them at once, and XLA computes their outputs."""
    from jaxdna.ops import motif_dense_gpu, motif_scan_gpu

    def apart(codes: Any, kernel: Array, bias: Array, weights: Array) -> tuple[Array, Array]:
        search = one_scan(motif_scan_gpu.search, lambda _, kernel: motif_scan_gpu.fits(kernel))
        best, windows, _ = search(codes, kernel)
        best += bias[:, None]
        outputs = jnp.dot(jax.nn.relu(best).T, weights, precision="highest")
        return outputs, motif_dense_gpu.silence(windows, best)

    own_codes = any(jax.tree.leaves(batched[0]))
    axes = jax.tree.map(lambda own: 0 if own else None, tuple(batched))
    each = jax.vmap(motif_dense_gpu.outputs if own_codes else apart, in_axes=axes)
    return each(*arguments), (True, True)


def _backward(residuals: Residuals, gradient: Array) -> tuple[None, Array, Array, Array]:
    from jaxdna.ops import motif_dense_gpu

    codes, kernel, bias, weights, windows = residuals
    parameters = kernel, bias, weights
    *alone, any_tied = motif_dense_gpu.gradients(kernel, bias, weights, windows, gradient)

    def outputs(kernel: Array, bias: Array, weights: Array) -> Array:
        best = motif_scan_matmul.best_scores(read(codes), kernel)
        return jnp.dot(jax.nn.relu(best + bias), weights, precision="highest")

    d_kernel, d_bias, d_weights = shared_if_tied(outputs, parameters, gradient, alone, any_tied)
    return None, d_kernel, d_bias, d_weights


motif_dense.defvjp(_forward, _backward)
