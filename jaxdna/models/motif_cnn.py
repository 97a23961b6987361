"""The report's network for DNA: filters, ReLU, the best position, one linear score."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from jaxdna.models.layers import BIAS_INIT, KERNEL_INIT, Dense
from jaxdna.models.network import Layer, Network, Shape
from jaxdna.ops.motif_dense import joins, motif_dense
from jaxdna.ops.sharded_scan import motif_scan_on_mesh
from jaxdna.ops.strands import Strands


class MotifScan(Layer):
    """Conv1D (no padding), ReLU and global max pooling over codes, as one operation.

    Attributes:
      kernel: float32 [width, 4, filters].
      bias: float32 [filters].
      implementation: a key of `ops.motif_scan.IMPLEMENTATIONS`.
    """

    splits = ("model", "seq")

    def __init__(self, width: int, filters: int, implementation: str = "auto", *, rngs: nnx.Rngs):
        """Draws the kernel; the bias starts at zero."""
        self.kernel = nnx.Param(KERNEL_INIT(rngs.params(), (width, 4, filters)))
        self.bias = nnx.Param(BIAS_INIT(rngs.params(), (filters,)))
        self.implementation = implementation

    def __call__(self, x: jax.Array | Strands, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps codes uint8 [batch, length], one-hot or `Strands`, to float [batch, filters]."""
        # ReLU grows with its argument, so it may as well come after the max: on fewer numbers.
        best = motif_scan_on_mesh(x, self.filters(), self.bias[...], self.implementation)
        return nnx.relu(best)

    def filters(self) -> jax.Array:
        """The kernel as it scans."""
        return self.kernel[...]

    def joined(self, following: nnx.Module, x: Any) -> Layer | None:
        """Returns the scan and a dense layer as one operation, for GPUs that have its kernels."""
        one_hot = not isinstance(x, Strands) and jnp.issubdtype(x.dtype, jnp.floating)
        if type(following) is not Dense or one_hot:
            return None
        both = ScanAndDense(self, following)
        return both if joins(self.implementation, *both.parameters()) else None

    @property
    def width(self) -> int:
        """Bases that a filter spans."""
        return self.kernel.shape[0]

    @property
    def least_stretch(self) -> int:
        """The bases of a filter: a halo comes from one neighbour only."""
        return self.width

    def parts(self, x: Shape, y: Shape) -> list[tuple[str, Shape, bool]]:
        """Shows the two layers that the operation joins."""
        width, _, filters = self.kernel.shape
        return [("Conv1D", (x[0] - width + 1, filters), True), ("GlobalMaxPooling1D", y, False)]


class ScanAndDense(Layer):
    """A motif scan and the dense layer after it, computed as one.

    Attributes:
      scan: the first layer.
      dense: the second one.
    """

    def __init__(self, scan: MotifScan, dense: Dense):
        """Takes the two layers, whose parameters stay theirs."""
        self.scan = scan
        self.dense = dense

    def parameters(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The filters [width, 4, filters], their bias [filters] and weights [filters, outputs]."""
        return self.scan.filters(), self.scan.bias[...], self.dense.kernel[...]

    def __call__(self, x: jax.Array | Strands, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps codes uint8 [batch, length] or `Strands` to float32 [batch, outputs]."""
        return self.dense.activation(motif_dense(x, *self.parameters()) + self.dense.bias[...])


def scan_of(network: Network) -> MotifScan | None:
    """Returns the motif scan of the first layer, or which that layer is; of other networks none."""
    first = getattr(network, network.names[0])
    scans = (scan for scan in (first, getattr(first, "scan", None)) if isinstance(scan, MotifScan))
    return next(scans, None)


def motif_cnn(config: ConfigDict, outputs: int, example_shape: Shape, rngs: nnx.Rngs) -> Network:
    """Builds the network; with 16 filters of width 15 and one output it has 993 parameters.

    Args:
      config: `config.model`: filters, width, scan.
      outputs: number of logits.
      example_shape: (length,); sequences of any length do.
      rngs: source of the initial parameters.
    """
    return Network(
        {
            "conv": MotifScan(config.width, config.filters, config.scan, rngs=rngs),
            "dense": Dense(config.filters, outputs, rngs=rngs),
        }
    )
