"""Whether every operation computes on each device here what NumPy does in float64.

The numbers are whole and small. Their products and sums are exact in every format that devices
multiply in, so that what is found is a mistake and not rounding; and scores often tie.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from jaxdna.ops.convolution import bias_relu, convolve
from jaxdna.ops.max_pool import max_pool
from jaxdna.ops.motif_dense import motif_dense
from jaxdna.ops.motif_scan import IMPLEMENTATIONS, motif_scan
from jaxdna.ops.sequence_convolution import convolve_along
from jaxdna.parallel.gradient_sync import hierarchical_all_reduce, ring_all_reduce
from jaxdna.parallel.mesh import divisors
from jaxdna.study import oracles

_EACH = PartitionSpec("hosts", "data")

# Where scores tie, shares of a gradient are no whole numbers; they are rounded as factors of
# float32 products are: in TF32 on GPUs, in bfloat16 on TPUs, unless told otherwise.
_UNITS = {"cpu": 2.0**-24, "gpu": 2.0**-11, "tpu": 2.0**-9}
_ROUNDINGS = 16


@dataclass(frozen=True)
class Operation:
    """One operation with what it is compared to.

    Attributes:
      run: the operation.
      oracle: of `jaxdna.study.oracles`.
      shapes: of its arguments, and of its result; the first is that of codes where it has two
        dimensions.
    """

    run: Callable[..., jax.Array]
    oracle: Callable[..., list[NDArray[np.float64]]]
    shapes: tuple[tuple[int, ...], ...]


def operations() -> dict[str, Operation]:
    """Every formulation of the motif scan, and the operations of the other networks, by name."""
    scanned = ((8, 90), (15, 4, 4), (4,), (8, 4))
    image, kernel = (2, 8, 8, 2), (3, 3, 2, 8)
    sequence = (4, 40, 3)
    return {
        **{
            f"motif scan, {name}": Operation(
                partial(motif_scan, implementation=name), oracles.scan, scanned
            )
            for name in IMPLEMENTATIONS
        },
        "motif scan and dense layer": Operation(
            motif_dense, oracles.scan_and_dense, (*scanned[:3], (4, 2), (8, 2))
        ),
        "image convolution, same": Operation(
            partial(convolve, padding="SAME"),
            partial(oracles.convolution, same=True),
            (image, kernel, (2, 8, 8, 8)),
        ),
        "image convolution, valid": Operation(
            partial(convolve, padding="VALID"),
            partial(oracles.convolution, same=False),
            (image, kernel, (2, 6, 6, 8)),
        ),
        "bias and ReLU of images": Operation(bias_relu, oracles.bias_relu, (image, (2,), image)),
        "max pooling": Operation(
            partial(max_pool, size=2), partial(oracles.max_pool, size=2), (image, (2, 4, 4, 2))
        ),
        "sequence convolution, dilated": Operation(
            partial(convolve_along, dilation=2),
            partial(oracles.convolve_along, dilation=2),
            (sequence, (5, 3, 8), (4, 40, 8)),
        ),
    }


def operation_error(operation: Operation, devices: Sequence[jax.Device]) -> float:
    """Returns the largest error of value and gradients on the devices of this process.

    Args:
      operation: what to compute; each device has arguments of its own.
      devices: all devices of all processes, each of which must call.

    Returns:
      The largest difference of each result as a share of its largest number.
    """
    drawn = [_draw(np.random.default_rng(i), operation) for i in range(len(devices))]
    stacked = tuple(np.stack(arguments) for arguments in zip(*drawn, strict=True))

    def derived(*arguments: jax.Array) -> list[jax.Array]:
        *inputs, dy = arguments
        codes, floats = ([inputs[0]], inputs[1:]) if inputs[0].ndim == 2 else ([], inputs)
        y, derivative = jax.vjp(lambda *floats: operation.run(*codes, *floats), *floats)
        return [y, *derivative(dy)]

    worst = 0.0
    for i, results in _on_each(derived, _mesh(devices), stacked):
        expected = operation.oracle(*drawn[i])
        worst = max(worst, *map(_share_apart, results, expected))
    return worst


def rounding_limit(devices: Sequence[jax.Device]) -> float:
    """The share that rounding may set an operation apart from float64."""
    return _ROUNDINGS * _UNITS.get(devices[0].platform, max(_UNITS.values()))


def sum_errors(devices: Sequence[jax.Device]) -> Iterator[tuple[str, float]]:
    """Compares each explicit sum over the devices with psum, of numbers whose sums are exact.

    Args:
      devices: all devices of all processes, each of which must call.

    Yields:
      The name of the sum, and the largest difference of any number.
    """
    rng = np.random.default_rng(0)
    x = rng.integers(-64, 65, (len(devices), 1001)).astype(np.float32)
    sums: dict[str, tuple[int, Callable[[jax.Array], jax.Array]]] = {
        "ring": (1, lambda x: ring_all_reduce(x, ("hosts", "data"))),
        **{
            f"hierarchical, {hosts} hosts": (
                hosts,
                lambda x: hierarchical_all_reduce(x, "data", "hosts"),
            )
            for hosts in divisors(len(devices))[1:-1]
        },
    }

    def apart(reduce: Callable[[jax.Array], jax.Array], x: jax.Array) -> list[jax.Array]:
        return [abs(reduce(x) - jax.lax.psum(x, ("hosts", "data")))]

    for name, (hosts, reduce) in sums.items():
        found = _on_each(partial(apart, reduce), _mesh(devices, hosts), (x,))
        yield name, max(float(difference.max()) for _, (difference,) in found)


def _draw(rng: np.random.Generator, operation: Operation) -> list[NDArray]:
    """Small whole numbers; of images distinct ones, since a maximum of equal ones has no oracle."""
    first, *others = operation.shapes
    if len(first) == 2:
        codes = rng.integers(0, 6, first).astype(np.uint8)
        codes[:, first[1] // 2 :] = codes[:, : first[1] // 2]
        drawn = [codes]
    else:
        size = int(np.prod(first))
        drawn = [(rng.permutation(size) % 256 - 128).reshape(first).astype(np.float32)]
    return [*drawn, *(rng.integers(-4, 5, shape).astype(np.float32) for shape in others)]


def _share_apart(found: NDArray, expected: NDArray) -> float:
    apart = np.abs(found.astype(np.float64) - expected).max()
    return float(apart / np.abs(expected).max()) if np.isfinite(apart) else np.inf


def _mesh(devices: Sequence[jax.Device], hosts: int = 1) -> Mesh:
    return Mesh(np.array(devices).reshape(hosts, -1), ("hosts", "data"))


def _on_each(
    function: Callable[..., Any], mesh: Mesh, stacked: tuple[NDArray, ...]
) -> list[tuple[int, list[NDArray]]]:
    """Runs a function on one row per device; returns number and results of those of this process.

    Args:
      function: of arrays; returns a list of arrays.
      mesh: has axes `hosts` and `data`.
      stacked: its arguments, each [devices, ...].
    """

    def own(*rows: jax.Array) -> list[jax.Array]:
        return [result[None] for result in function(*(row[0] for row in rows))]

    both = PartitionSpec(("hosts", "data"))
    placed = [
        jax.make_array_from_callback(a.shape, NamedSharding(mesh, both), a.__getitem__)
        for a in stacked
    ]
    call = jax.shard_map(own, mesh=mesh, in_specs=both, out_specs=both, check_vma=False)
    results = jax.jit(call)(*placed)
    shards = zip(*(result.addressable_shards for result in results), strict=True)
    return [
        (row[0].index[0].start or 0, [np.asarray(shard.data)[0] for shard in row]) for row in shards
    ]
