"""The report's network for DNA: filters, ReLU, the best position, one linear score."""

import jax
from flax import nnx
from ml_collections import ConfigDict

from jaxdna.models.layers import BIAS_INIT, KERNEL_INIT, Dense
from jaxdna.models.network import Layer, Network, Shape
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
        best = motif_scan_on_mesh(x, self.kernel[...], self.bias[...], self.implementation)
        return nnx.relu(best)

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
