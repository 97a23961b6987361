"""Filters of two widths, long sites and short words, and a hidden layer over their best places."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from jaxdna.errors import UserError
from jaxdna.models.image_cnn import dense_layers
from jaxdna.models.motif_cnn import MotifScan
from jaxdna.models.network import Network, Shape


class TwoWidths(MotifScan):
    """A motif scan whose last filters span fewer bases: all of one kernel, so one scan finds all.

    The taps of a short filter that lie outside its middle are 0, and stay it: they are multiplied
    by 0, so they get no gradient, and what is 0 does not decay.

    Attributes:
      kernel, bias, implementation: as those of `MotifScan`.
      short_filters: how many filters are short.
      short_width: bases that they span.
    """

    def __init__(
        self,
        width: int,
        filters: int,
        short_width: int,
        short_filters: int,
        implementation: str = "auto",
        *,
        rngs: nnx.Rngs,
    ):
        """Draws each kind of filters as a layer of its own would be; the bias starts at zero."""
        super().__init__(width, filters, implementation, rngs=rngs)
        short = MotifScan(short_width, short_filters, rngs=rngs)
        before = (width - short_width) // 2
        around = ((before, width - short_width - before), (0, 0), (0, 0))
        padded = jnp.pad(short.kernel[...], around)
        self.kernel = nnx.Param(jnp.concatenate([self.kernel[...], padded], axis=2))
        self.bias = nnx.Param(jnp.concatenate([self.bias[...], short.bias[...]]))
        self.short_width, self.short_filters = short_width, short_filters

    def filters(self) -> jax.Array:
        """The kernel as it scans, short filters cut to their width."""
        kernel = self.kernel[...]
        width, _, filters = kernel.shape
        taps = np.ones((width, 1, filters), np.float32)
        before = (width - self.short_width) // 2
        taps[:before, :, filters - self.short_filters :] = 0
        taps[before + self.short_width :, :, filters - self.short_filters :] = 0
        return kernel * taps.astype(kernel.dtype)


def two_widths(config: ConfigDict, rngs: nnx.Rngs) -> TwoWidths:
    """Builds the scan.

    Args:
      config: `config.model`: filters, width, short_filters, short_width, scan.
      rngs: source of the initial parameters.

    Raises:
      UserError: the short filters are longer than the others.
    """
    if config.short_width > config.width:
        raise UserError(
            f"--config.model.short_width={config.short_width} is longer than "
            f"--config.model.width={config.width}; legal: 1 to {config.width}"
        )
    return TwoWidths(
        config.width,
        config.filters,
        config.short_width,
        config.short_filters,
        config.scan,
        rngs=rngs,
    )


def multiscale(config: ConfigDict, outputs: int, example_shape: Shape, rngs: nnx.Rngs) -> Network:
    """Builds the network.

    Args:
      config: `config.model`: those of the scan, dense, dropout.
      outputs: numbers for each example.
      example_shape: (length,); sequences of any length do.
      rngs: source of the initial parameters.

    Raises:
      UserError: the short filters are longer than the others.
    """
    del example_shape
    scan = two_widths(config, rngs)
    # The maxima are all positive and much alike in all examples: units with ReLU would die.
    features = config.filters + config.short_filters
    return Network({"conv": scan, **dense_layers(config, features, outputs, rngs, nnx.gelu)})
