"""Gradient synchronisation by name: sums over the data axis, inside ``jax.shard_map``.

`ring_all_reduce` and `hierarchical_all_reduce` are the two schemes of multi-worker training,
written with JAX's exchanges between neighbours and within groups. Both return what `jax.lax.psum`
returns, up to the order in which the numbers are added. `bucketed` cuts a tree of gradients into
buckets, the last layers first, because back-propagation finishes those first: a bucket can be on
the wire while the gradients of earlier layers are still being computed.

Every function here sees one shard, so it must be called inside ``shard_map``, with
``check_vma=False``: then `jax.grad` of the shard's own loss is the shard's own gradient, and the
sum over the axis is ours to make. (With ``check_vma=True`` JAX makes that sum by itself, and
summing again multiplies the gradient by the size of the axis.)
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, Mesh, PartitionSpec
from ml_collections import ConfigDict

from jaxdna.errors import UserError
from jaxdna.parallel.cores import a_core_each
from jaxdna.parallel.mesh import BATCH_AXES, divisors, resolve_across

Axis = Hashable
Reduce = Callable[[jax.Array], jax.Array]
# (params, batch, total weight, key) -> (gradients, metrics)
Gradient = Callable[[Any, Any, jax.Array, jax.Array], tuple[Any, Any]]


def ring_all_reduce(x: jax.Array, axis: Axis) -> jax.Array:
    """Sums ``x`` over ``axis`` by passing chunks round a ring of neighbours.

    With n devices the flattened array is cut into n chunks. In n - 1 rounds each device hands a
    partial sum to its right neighbour and adds its own chunk to the one it got, after which it
    holds one finished chunk; in n - 1 more rounds the finished chunks travel round the ring. Each
    device sends 2 (n - 1) / n of the array, whatever n is: the least that an all-reduce can send
    (Patarasuk and Yuan, 2009, doi:10.1016/j.jpdc.2008.09.002).

    Each chunk is summed once, on one device, and then copied, so all replicas hold the same bits.

    Args:
      x: this device's summand, of any shape and of a numeric dtype; the sum is made in that dtype.
      axis: the name of the mesh axis.

    Returns:
      The sum over the axis, with the shape and dtype of ``x``.
    """
    n = lax.axis_size(axis)
    if n == 1 or x.size == 0:
        return x
    chunk = -(-x.size // n)
    padded = jnp.pad(x.reshape(-1), (0, n * chunk - x.size))
    me = lax.axis_index(axis)
    right = [(device, (device + 1) % n) for device in range(n)]

    # Seen from device i, local[j] is chunk i + j: the index of every round is then the same number
    # on all devices, and only the two rotations depend on the device.
    local = _rotate(padded, me * chunk).reshape(n, chunk)
    part = local[0]
    for round_ in range(1, n):
        part = lax.ppermute(part, axis, right) + local[n - round_]
    # `part` is now the finished chunk i + 1; those of the left neighbours arrive in turn.
    finished = {1: part}
    for round_ in range(1, n):
        part = lax.ppermute(part, axis, right)
        finished[(1 - round_) % n] = part
    whole = jnp.concatenate([finished[j] for j in range(n)])
    return _rotate(whole, (n - me) % n * chunk)[: x.size].reshape(x.shape)


def hierarchical_all_reduce(x: jax.Array, inner_axis: Axis, outer_axis: Axis) -> jax.Array:
    """Sums ``x`` over two axes: inside the host, between hosts, and inside the host again.

    The reduce-scatter inside leaves each of the host's m devices with 1/m of the host's sum, so the
    slow links between hosts carry each number once per host instead of once per device.

    Args:
      x: this device's summand, of any shape and of a numeric dtype; the sum is made in that dtype.
      inner_axis: the mesh axis whose devices share a host (or slice).
      outer_axis: the mesh axis that crosses hosts (or slices).

    Returns:
      The sum over both axes, with the shape and dtype of ``x``.
    """
    inner = lax.axis_size(inner_axis)
    padded = jnp.pad(x.reshape(-1), (0, -x.size % inner))
    part = lax.psum_scatter(padded, inner_axis, tiled=True)
    part = lax.psum(part, outer_axis)
    whole = lax.all_gather(part, inner_axis, tiled=True)
    return whole[: x.size].reshape(x.shape)


def bucketed(
    grads: Any, bucket_bytes: float, reduce: Reduce, order: Sequence[int] | None = None
) -> Any:
    """Reduces a tree of gradients bucket by bucket, the last layers' bucket first.

    Args:
      grads: a pytree of arrays.
      bucket_bytes: a bucket is closed before it would grow past this; a larger array has a bucket
        to itself, and 0 gives every array its own.
      reduce: sums a flat array over the data axis, e.g. ``lambda x: ring_all_reduce(x, "data")``.
      order: positions of the leaves of ``grads`` in the order in which their gradients become
        ready, e.g. from `backward_order`; by default the leaves from last to first.

    Returns:
      The tree of sums, with the shapes and dtypes of ``grads``.
    """
    leaves, treedef = jax.tree.flatten(grads)
    sums: list[jax.Array | None] = [None] * len(leaves)
    for bucket in buckets(leaves, bucket_bytes, order):
        packed = reduce(jnp.concatenate([leaves[i].reshape(-1) for i in bucket]))
        start = 0
        for i in bucket:
            stop = start + leaves[i].size
            sums[i] = packed[start:stop].reshape(leaves[i].shape)
            start = stop
    return jax.tree.unflatten(treedef, sums)


def hold_update(grads: Any) -> Any:
    """Keeps the optimizer from starting before every gradient has arrived.

    Otherwise a compiler hides a gradient's all-reduce behind the update of other parameters, and
    puts it off, and the kernels of back-propagation that could have hidden it run before it starts.
    With nothing else at hand, back-propagation is what the all-reduces are scheduled beside.

    Args:
      grads: the tree of summed gradients, or inside ``jit`` the gradients that XLA will sum.

    Returns:
      ``grads``, the same numbers.
    """
    return lax.optimization_barrier(grads)


def buckets(
    leaves: Sequence[Any], bucket_bytes: float, order: Sequence[int] | None = None
) -> list[list[int]]:
    """Groups leaves into buckets of one dtype each, in the order in which they are to leave.

    Args:
      leaves: arrays or ``jax.ShapeDtypeStruct``.
      bucket_bytes: as in `bucketed`.
      order: as in `bucketed`.

    Returns:
      Positions of leaves, bucket by bucket; every leaf is in exactly one.
    """
    if order is None:
        order = range(len(leaves) - 1, -1, -1)
    filled: list[list[int]] = []
    open_bucket: dict[Any, tuple[list[int], int]] = {}  # dtype -> members, bytes so far
    for i in order:
        dtype, size = leaves[i].dtype, leaves[i].size * leaves[i].dtype.itemsize
        members, so_far = open_bucket.get(dtype, ([], 0))
        if not members or so_far + size > bucket_bytes:
            members, so_far = [], 0
            filled.append(members)
        members.append(i)
        open_bucket[dtype] = (members, so_far + size)
    return filled


def backward_order(gradient: Callable[..., Any], *args: Any) -> list[int]:
    """Says in which order a gradient function finishes the leaves of its result.

    Names do not tell: a tree of parameters is often sorted by name, and ``conv10`` comes before
    ``conv2``. The traced program does: its equations stand in the order of back-propagation.

    Args:
      gradient: returns the tree of gradients, e.g. ``jax.grad(loss)``; not jitted, since a call
        to a jitted function is one equation.
      *args: its arguments, as arrays or ``jax.ShapeDtypeStruct``.

    Returns:
      Positions of the leaves of the result, first finished first; ties go to the later leaf.
    """
    jaxpr = jax.make_jaxpr(gradient)(*args).jaxpr
    made_by = {out: at for at, eqn in enumerate(jaxpr.eqns) for out in eqn.outvars}
    # A result that no equation makes is a constant or an argument: ready from the start.
    ready = [
        -1 if isinstance(v, jax.extend.core.Literal) else made_by.get(v, -1) for v in jaxpr.outvars
    ]
    return sorted(range(len(ready)), key=lambda i: (ready[i], -i))


def _rotate(x: jax.Array, start: jax.Array) -> jax.Array:
    """``jnp.roll(x, -start)`` for a start that is known only on the device."""
    return lax.dynamic_slice_in_dim(jnp.concatenate([x, x]), start, x.size)


def explicit_sync(
    mesh: Mesh, method: str, bucket_mb: float, hosts: int = 1
) -> Callable[[Gradient], Gradient]:
    """Returns a transformation that makes a gradient of local rows one of the whole batch.

    Args:
      mesh: only its data axis is larger than 1.
      method: `ring` or `hierarchical`.
      bucket_mb: size of a bucket in MiB (2**20 bytes); 0 sends each array alone.
      hosts: for `hierarchical`, how many equal runs of the data axis are hosts (or slices).

    Returns:
      A function of a gradient (params, batch, total weight, key) -> (gradients, metrics), both sums
      over the given rows. The result takes the whole batch and is computed shard by shard.
    """
    devices = mesh.devices.reshape(hosts, -1)
    grid = Mesh(devices, ("hosts", "data"), axis_types=(AxisType.Auto,) * 2)
    reduce = {
        "ring": lambda x: ring_all_reduce(x, ("hosts", "data")),
        "hierarchical": lambda x: hierarchical_all_reduce(x, "data", "hosts"),
    }[method]

    def sync(gradient: Gradient) -> Gradient:
        def shard(params: Any, batch: Any, total: jax.Array, key: jax.Array) -> tuple[Any, Any]:
            gradients, sums = gradient(params, batch, total, key)
            order = backward_order(lambda p: gradient(p, batch, total, key)[0], params)
            synced = bucketed(gradients, bucket_mb * 2**20, reduce, order)
            return synced, lax.psum(sums, ("hosts", "data"))

        rows = PartitionSpec(("hosts", "data"))
        whole = PartitionSpec()
        return jax.shard_map(
            shard, mesh=grid, in_specs=(whole, rows, whole, whole), out_specs=whole, check_vma=False
        )

    return sync


def no_sync(mesh: Mesh) -> Callable[[Gradient], Gradient]:
    """Returns a transformation that leaves each device its own rows' gradient: for timing alone.

    Args:
      mesh: only its batch axes are larger than 1.
    """
    rows, whole = PartitionSpec(BATCH_AXES), PartitionSpec()

    def sync(gradient: Gradient) -> Gradient:
        def shard(params: Any, batch: Any, total: jax.Array, key: jax.Array) -> tuple[Any, Any]:
            del total  # a sum over all devices, and so an exchange
            return gradient(params, batch, jnp.sum(batch["weight"]), key)

        return jax.shard_map(
            shard, mesh=mesh, in_specs=(whole, rows, whole, whole), out_specs=whole, check_vma=False
        )

    return sync


def make_sync(config: ConfigDict, mesh: Mesh) -> Callable[[Gradient], Gradient]:
    """Returns the synchronisation of `config.gradient_sync`; see `explicit_sync`.

    Args:
      config: a whole configuration.
      mesh: the devices.

    Raises:
      UserError: the method does not fit the mesh.
    """
    method, bucket_mb = config.gradient_sync.method, config.gradient_sync.bucket_mb
    if method == "auto" and a_core_each(config, mesh):
        return explicit_sync(mesh, "ring", bucket_mb or math.inf)
    if method == "auto":
        return lambda gradient: gradient
    others = [f"mesh.{axis}={n}" for axis, n in mesh.shape.items() if axis != "data" and n > 1]
    if others:
        raise UserError(
            f"--config.gradient_sync.method={method} works with data parallelism only, not with "
            f"{' '.join(others)}; legal with these: auto"
        )
    devices = list(mesh.devices.flat)
    hosts = resolve_across(config.mesh.dcn, mesh.shape, devices)["data"]
    if method == "hierarchical" and hosts == 1:
        legal = [n for n in divisors(mesh.shape["data"]) if n > 1]
        raise UserError(
            "--config.gradient_sync.method=hierarchical needs to know the hosts; legal for "
            f"--config.mesh.dcn.data: {', '.join(map(str, legal)) or '(one device has none)'}"
        )
    return explicit_sync(mesh, method, bucket_mb, hosts if method == "hierarchical" else 1)
