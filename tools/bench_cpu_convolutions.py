"""How fast XLA's CPU backend computes convolutions: by library, and inside a loop.

Times a 3 x 3 convolution of CIFAR-10's second layer and its gradients, XLA's and ours, and max
pooling written in two ways. Processor time is printed beside wall time, because it is steadier on a
machine that others use too.

    python tools/bench_cpu_convolutions.py [--steps]

With --steps it times steps of training with a device for each core instead, convolutions by Eigen
and by what is chosen there (oneDNN, where jaxlib has it), in turn.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdna.config import load_config
from jaxdna.data.dataset import Split
from jaxdna.ops import convolution
from jaxdna.ops.max_pool import max_pool
from jaxdna.parallel.mesh import make_mesh
from jaxdna.tasks.kinds import of_classes
from jaxdna.training.dispatch import convolution_options
from jaxdna.training.program import Program

BATCH, REPEATS = 256, 5


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Without padding, stride 1."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def seconds(function: Callable[..., Any], options: dict[str, Any], *arguments: Any) -> list[float]:
    """Returns median wall and processor seconds of one call."""
    compiled = jax.jit(function).lower(*arguments).compile(compiler_options=options)
    jax.block_until_ready(compiled(*arguments))
    times = []
    for _ in range(REPEATS):
        wall, processor = time.perf_counter(), time.process_time()
        jax.block_until_ready(compiled(*arguments))
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    return [median(column) for column in zip(*times, strict=True)]


class ByEigen(Program):
    """The program as it is where devices share cores."""

    compiler_options = property(  # type: ignore[assignment]
        lambda self: convolution_options("cpu", convolves=True, a_core_each=False)
    )


def steps(name: str) -> None:
    """Prints milliseconds an image of both, and the median of their ratios."""
    config = load_config(f"configs/{name}.py:timing")
    rng, batch = np.random.default_rng(0), config.train.batch_size
    shape = {"cifar10": (32, 32, 3), "mnist": (28, 28, 1)}[name]
    images = rng.integers(0, 256, (batch, *shape), np.uint8)
    split = Split(images, rng.integers(0, 10, batch, np.int32))
    mesh, runs = make_mesh(config, jax.devices()), []
    for kind in (ByEigen, Program):
        program = kind(config, mesh, shape, of_classes(10), batch)
        runs.append([program.compiled(1), program.init(), program.feed(split)(0, 1)])
    times: list[list[list[float]]] = [[], []]
    for _ in range(2 * REPEATS + 1):
        for run, found in zip(runs, times, strict=True):
            step, state, rows = run
            wall, processor = time.perf_counter(), time.process_time()
            run[1] = jax.block_until_ready(step(state, rows)[0])
            taken = time.process_time() - processor, time.perf_counter() - wall
            found.append([1e3 / batch * seconds for seconds in taken])
    eigen, chosen = np.array(times)[:, 1:]  # the first warms up
    for kind, values in (("Eigen", eigen), ("chosen", chosen), ("ratio", chosen / eigen)):
        processor_time, wall_time = np.median(values, axis=0)
        print(f"{name:8} {kind:7} processor {processor_time:.3f}  wall {wall_time:.3f}")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", action="store_true", help="times steps of training instead")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    if parser.parse_args().steps:
        for name in ("cifar10", "mnist"):
            steps(name)
        return
    mesh = jax.make_mesh((2,), ("data",))
    rows = NamedSharding(mesh, P("data"))
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (BATCH, 32, 32, 32))
    kernel = jax.random.normal(keys[1], (3, 3, 32, 32))
    upstream = jax.random.normal(keys[2], (BATCH, 30, 30, 32))

    def kernel_gradient(x: jax.Array, kernel: jax.Array, upstream: jax.Array) -> jax.Array:
        return jax.vjp(lambda k: convolve(x, k), kernel)[1](upstream)[0]

    def products(x: jax.Array, kernel: jax.Array, upstream: jax.Array) -> jax.Array:
        return jax.vjp(lambda k: convolution.convolve(x, k, "VALID"), kernel)[1](upstream)[0]

    split = (P("data"), P(), P("data"))

    @partial(jax.shard_map, mesh=mesh, in_specs=split, out_specs=P("data"), check_vma=False)
    def on_two(x: jax.Array, kernel: jax.Array, upstream: jax.Array) -> jax.Array:
        return products(x, kernel, upstream)[None]

    def behind_relu(gradient: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        # As in a network: what the gradient reads is an activation that XLA can compute anew.
        def step(x: jax.Array, kernel: jax.Array, upstream: jax.Array) -> jax.Array:
            active = jax.nn.relu(x + 1)
            return gradient(active, kernel, upstream) + jnp.sum(convolve(active, kernel))

        return step

    def bias_gradient(add: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        return lambda x, bias, upstream: jax.vjp(lambda b: add(x, b), bias)[1](upstream)[0]

    def relu(x: jax.Array, bias: jax.Array) -> jax.Array:
        return jax.nn.relu(x + bias)

    def input_gradient(x: jax.Array, kernel: jax.Array, upstream: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: convolve(x, kernel), x)[1](upstream)[0]

    def updated(x: jax.Array, kernel: jax.Array, upstream: jax.Array) -> jax.Array:
        # Scaled by the kernel, so that no step can be taken out of the loop.
        return kernel - 1e-6 * kernel_gradient(x, kernel, upstream * kernel[0, 0, 0, 0])

    def looped(x: jax.Array, kernel: jax.Array, upstream: jax.Array) -> jax.Array:
        def once(kernel: jax.Array, _: None) -> tuple[jax.Array, None]:
            return updated(x, kernel, upstream), None

        return lax.scan(once, kernel, length=2)[0]

    def unrolled(x: jax.Array, kernel: jax.Array, upstream: jax.Array) -> jax.Array:
        return updated(x, updated(x, kernel, upstream), upstream)

    def pooled(pool: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
        return jax.grad(lambda x: jnp.sum(pool(x) ** 2))

    def windows(x: jax.Array) -> jax.Array:
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    ours = convolution_options("cpu", convolves=True, a_core_each=False)
    cases: list[tuple[str, Callable[..., Any], dict[str, Any], tuple[jax.Array, ...]]] = []
    for label, options in (("default", {}), ("ours", ours)):
        few = (x[:8], kernel, upstream[:8])
        cases += [
            (f"convolution, {label} options", convolve, options, (x, kernel)),
            (f"gradient of the input, {label}", input_gradient, options, (x, kernel, upstream)),
            (f"gradient of the kernel, {label}", kernel_gradient, options, (x, kernel, upstream)),
            (f"the last, twice, of 8 images, {label}", unrolled, options, few),
            (f"the same in a loop, {label}", looped, options, few),
        ]
    halves = (jax.device_put(x, rows), kernel, jax.device_put(upstream, rows))
    bias = (upstream, kernel[0, 0, 0], upstream)
    cases += [
        ("gradient of the kernel, products", products, ours, (x, kernel, upstream)),
        ("the same, half of the images on each of two devices", on_two, ours, halves),
        ("the same behind ReLU, XLA's", behind_relu(kernel_gradient), ours, (x, kernel, upstream)),
        ("the same behind ReLU, products", behind_relu(products), ours, (x, kernel, upstream)),
        ("gradient of bias and ReLU, XLA's sum", bias_gradient(relu), ours, bias),
        ("gradient of bias and ReLU, product", bias_gradient(convolution.bias_relu), ours, bias),
        ("max pooling and gradient, reduce_window", pooled(windows), ours, (x,)),
        ("max pooling and gradient, slices", pooled(lambda x: max_pool(x, 2)), ours, (x,)),
    ]
    print("| what | wall ms | processor ms |\n| --- | --- | --- |")
    for label, function, options, arguments in cases:
        wall, processor = seconds(function, options, *arguments)
        print(f"| {label} | {wall * 1e3:.1f} | {processor * 1e3:.1f} |", flush=True)


if __name__ == "__main__":
    main()
