"""The motif scan on a mesh: batch, filters and positions split over devices.

Where positions are split (`seq`), every device scans its own stretch and a halo of width - 1 bases
from a neighbour; then the best score over all stretches is taken. What travels is one byte a base
for the halos and one number per sequence and filter for the maximum.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from jaxdna.errors import UserError
from jaxdna.ops.motif_scan import motif_scan
from jaxdna.ops.strands import Strands, read
from jaxdna.parallel.mesh import BATCH_AXES, divisors


def check_length(length: int, width: int, seq: int) -> None:
    """Checks that sequences can be split over `seq` devices.

    Args:
      length: bases (or rows of an image) to split.
      width: bases that a filter spans; a halo comes from one neighbour only.
      seq: size of the axis.

    Raises:
      UserError: the axis does not divide the length, or a filter is longer than a stretch.
    """
    legal = [n for n in divisors(length) if length // n >= width]
    if seq not in legal and seq > 1:
        reason = (
            f"leaves {length // seq} positions per device, fewer than the {width} of a filter"
            if length % seq == 0
            else f"does not divide the length {length}"
        )
        nearest = sorted(sorted(legal, key=lambda n: abs(n - seq))[:3])
        raise UserError(
            f"--config.mesh.seq={seq} {reason}; nearest legal: {', '.join(map(str, nearest))}"
        )


def motif_scan_on_mesh(
    codes: jax.Array | Strands,
    kernel: jax.Array,
    bias: jax.Array,
    implementation: str = "auto",
) -> jax.Array:
    """`motif_scan`, each device its own part of the batch, the filters and the positions.

    The mesh is that of the context (`jax.sharding.use_abstract_mesh`): its batch axes split the
    batch, `seq` the positions and `model` the filters. Without one, or inside `shard_map`, this is
    `motif_scan` itself.

    Args:
      codes: uint8 [batch, length], or `Strands`.
      kernel: float [width, 4, filters].
      bias: float [filters].
      implementation: of `motif_scan`.

    Returns:
      float [batch, filters]: the same values and gradients as `motif_scan`; where different windows
      with equal scores lie on several devices of `seq`, each of these devices, and not each window,
      takes an equal share of the gradient.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.manual_axes:
        return motif_scan(codes, kernel, bias, implementation=implementation)
    if mesh.shape["seq"] > 1:
        codes = read(codes)  # the other strand of a stretch lies on another device
    rows = jax.tree.map(lambda leaf: P(BATCH_AXES, *["seq"][: leaf.ndim - 1]), codes)
    scan = jax.shard_map(
        partial(_scan_stretch, implementation),
        mesh=mesh,
        in_specs=(rows, P(None, None, "model"), P("model")),
        out_specs=P(BATCH_AXES, "model"),
        check_vma=False,
    )
    # The cotangent is divided among devices in the type that leaves them, and so in float32.
    return scan(codes, kernel, bias).astype(kernel.dtype)


def _scan_stretch(implementation: str, codes: Any, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    scan = partial(motif_scan, implementation=implementation, dtype=jnp.float32)
    stretches, halo = lax.axis_size("seq"), kernel.shape[0] - 1
    if stretches == 1:
        return scan(codes, kernel, bias)
    if halo:
        following = [(i, i - 1) for i in range(1, stretches)]
        preceding = [(i, i + 1) for i in range(stretches - 1)]
        after = lax.ppermute(codes[:, :halo], "seq", following)
        before = lax.ppermute(codes[:, -halo:], "seq", preceding)
        # Nothing follows the last stretch. It takes the bases before it, and so scans windows that
        # the device before it scans too: harmless to a maximum, while invented bases could win.
        last = lax.axis_index("seq") == stretches - 1
        codes = jnp.where(
            last,
            jnp.concatenate([before, codes], axis=1),
            jnp.concatenate([codes, after], axis=1),
        )
    return _best_of_all(scan(codes, kernel, jnp.zeros_like(bias)), bias)


# Stretches are compared as one device compares windows: before the bias is added and anything is
# rounded to the kernel's type, where in bfloat16 many would tie and share the gradient.


@jax.custom_vjp
def _best_of_all(best: jax.Array, bias: jax.Array) -> jax.Array:
    return lax.pmax(best, "seq") + bias


Residuals = tuple[jax.Array, jax.Array]


def _best_forward(best: jax.Array, bias: jax.Array) -> tuple[jax.Array, Residuals]:
    overall = lax.pmax(best, "seq")
    wins = (best == overall).astype(best.dtype)
    return overall + bias, (wins / lax.psum(wins, "seq"), bias)


def _best_backward(residuals: Residuals, gradient: jax.Array) -> Residuals:
    share, bias = residuals
    # Without check_vma each device is given an equal part of the cotangent of a result that all of
    # them hold, so the whole is the sum of the parts.
    own = share * lax.psum(gradient, "seq")
    return own, jnp.sum(own, axis=0).astype(bias.dtype)


_best_of_all.defvjp(_best_forward, _best_backward)
