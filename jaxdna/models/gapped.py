"""Motifs and gapped k-mers side by side: what one site tells, and what many weak words tell.

A linear score of words and a deep network trained together are known as wide and deep (Cheng et al.
2016, Wide & deep learning for recommender systems, arXiv 1606.07792). Words learn a small set by
heart before filters have found anything, and what is explained leaves no gradient. So in training
every example reaches one of the two branches only.
"""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from jaxdna.errors import UserError
from jaxdna.models.image_cnn import dense_layers, sizes_of
from jaxdna.models.layers import Dense, even_rows
from jaxdna.models.motif_cnn import MotifScan
from jaxdna.models.multiscale import two_widths
from jaxdna.models.network import Layer, Network, Shape, WordTable, by_rows
from jaxdna.models.sequence_layers import Convolution
from jaxdna.ops.gapped_kmers import gap_patterns, kmer_scores
from jaxdna.ops.largest import largest
from jaxdna.ops.one_hot import one_hot
from jaxdna.ops.sequence_convolution import convolve_along
from jaxdna.ops.strands import complement_strand
from jaxdna.parallel.mesh import BATCH_AXES

Branches = dict[str, jax.Array]


class GappedKmers(Layer):
    """A weight for each gapped k-mer and output; a score is their sum over a sequence.

    Attributes:
      table: float32 [patterns, 4**letters, outputs]; it starts at zero and does not decay.
      patterns: places of the letters in a window.
    """

    def __init__(self, span: int, letters: int, most: int, outputs: int):
        """Takes the bases of a window, the letters of a word, and how many patterns at most."""
        self.patterns = tuple(gap_patterns(span, letters, most))
        self.table = WordTable(jnp.zeros((len(self.patterns), 4**letters, outputs)))

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps codes uint8 [batch, length], or their one-hot form, to float32 [batch, outputs]."""
        return kmer_scores(x, self.table[...], self.patterns)


class Beside(Layer):
    """A motif scan with gapped k-mers of the same sequences beside it.

    Attributes:
      scan: of motifs.
      kmers: the words.
      both_strands: whether a filter's best place may lie on either strand, or on the given one.
    """

    splits: ClassVar[tuple[str, ...] | None] = ("model", "seq")

    def __init__(self, scan: MotifScan, kmers: GappedKmers, both_strands: bool):
        """Takes them."""
        self.scan, self.kmers, self.both_strands = scan, kmers, both_strands

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> Branches:
        """Maps codes uint8 [batch, length], or their one-hot form, to the input of each branch.

        In training the rows that `BranchMean` will not look at are zeros, and not computed where
        each device has as many of the one kind as of the other.
        """
        if rngs is None or len(x) % (2 * _row_shards()):
            return {"kmers": by_rows(self.kmers, x, None), "motifs": self._best(x)}
        pairs = x.reshape(-1, 2, *x.shape[1:])
        motifs, kmers = self._best(pairs[:, 0]), by_rows(self.kmers, pairs[:, 1], None)
        return {
            "kmers": _alternating(jnp.zeros_like(kmers), kmers),
            "motifs": _alternating(motifs, jnp.zeros_like(motifs)),
        }

    def _best(self, x: jax.Array) -> jax.Array:
        """What the motifs' branch sees, float [batch, features]."""
        best = self.on_strand(x)
        if not self.both_strands:
            return best
        return jnp.maximum(best, self.on_strand(complement_strand(x)))

    def on_strand(self, x: jax.Array) -> jax.Array:
        """Each filter's best score on the given strand, float [batch, filters]."""
        return self.scan(x)

    @property
    def least_stretch(self) -> int:
        """As of the scan: the words are looked up in whole sequences."""
        return self.scan.least_stretch

    def parts(self, x: Shape, y: Shape) -> list[tuple[str, Shape, bool]]:
        """Shows the parameters of both beside the shapes of the scan."""
        (_, scanned, _), pooled = self.scan.parts(x, y)
        return [("Conv1D, GappedKmers", scanned, True), pooled]


class Arranged(Beside):
    """The same, with inner filters that see how far apart sites lie.

    They look at the best scores in windows of a few bases; of each filter and inner filter the best
    place counts. Filters may hang over the ends of a sequence: a motif scan's may not, but what
    decides how sites lie should see them all.

    Attributes:
      inner: the second convolution, over windows.
      pool: bases of a window.
    """

    splits = None

    def __init__(
        self, scan: MotifScan, kmers: GappedKmers, both_strands: bool, inner: Convolution, pool: int
    ):
        """Takes them."""
        super().__init__(scan, kmers, both_strands)
        self.inner, self.pool = inner, pool

    def on_strand(self, x: jax.Array) -> jax.Array:
        """Each filter's and inner filter's best score, float [batch, filters + inner filters]."""
        kernel = self.scan.filters()
        sites = nnx.relu(convolve_along(one_hot(x, kernel.dtype), kernel) + self.scan.bias[...])
        batch, length, filters = sites.shape
        count = -(-length // self.pool)
        # What ReLU leaves is not negative, so zeros win nowhere.
        filled = jnp.pad(sites, ((0, 0), (0, count * self.pool - length), (0, 0)))
        windows = largest(filled.reshape(batch, count, self.pool, filters), 2)
        return jnp.concatenate([largest(windows, 1), largest(self.inner(windows), 1)], axis=1)

    @property
    def least_stretch(self) -> int:
        """Any: positions are gathered."""
        return 1

    def parts(self, x: Shape, y: Shape) -> list[tuple[str, Shape, bool]]:
        """Shows the parameters of all beside the shapes of both convolutions."""
        filters, inner = self.scan.kernel.shape[2], self.inner.kernel.shape[2]
        return [
            ("Conv1D, GappedKmers", (x[0], filters), True),
            ("Conv1D", (-(-x[0] // self.pool), inner), False),
            ("GlobalMaxPooling1D", y, False),
        ]


class OnMotifs(Layer):
    """A dense layer or dropout of the motifs' branch, past which goes the score of the k-mers.

    Attributes:
      layer: maps one array to one.
    """

    splits = ("model",)

    def __init__(self, layer: Layer):
        """Takes the layer."""
        self.layer = layer

    def __call__(self, x: Branches, rngs: nnx.Rngs | None = None) -> Branches:
        """Maps both branches to the same."""
        return {**x, "motifs": self.layer(x["motifs"], rngs)}

    def parts(self, x: Shape, y: Shape) -> list[tuple[str, Shape, bool]]:
        """Shows what the layer does."""
        return self.layer.parts(x, y)


class BranchMean(Dense):
    """The weighted mean of what both branches answer, each of them twice its score.

    Attributes:
      kernel, bias: of the motifs' linear score.
      kmer_share: weight of the k-mers' answer, 0 to 1; where it is 0.5, the scores are added up.
    """

    def __init__(self, inputs: int, outputs: int, kmer_share: float, *, rngs: nnx.Rngs):
        """Draws the kernel; the bias starts at zero."""
        super().__init__(inputs, outputs, rngs=rngs)
        self.kmer_share = kmer_share

    def __call__(self, x: Any, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps `Branches` to float32 [batch, outputs].

        In training an example reaches one branch, which answers alone: those with an even number
        the motifs, the others the k-mers. Each epoch shuffles the examples.
        """
        motifs, kmers = super().__call__(x["motifs"]), x["kmers"]
        if rngs is None:
            return 2 * ((1 - self.kmer_share) * motifs + self.kmer_share * kmers)
        return 2 * jnp.where(even_rows(kmers)[:, None], motifs, kmers)


def _row_shards() -> int:
    """Devices among which the rows that are seen here are still to be split."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty or mesh.manual_axes else math.prod(map(mesh.shape.get, BATCH_AXES))


def _alternating(even: jax.Array, odd: jax.Array) -> jax.Array:
    """Returns the rows of both in turn, [rows, n] and [rows, n] as [2 rows, n]."""
    return jnp.stack([even, odd], axis=1).reshape(-1, even.shape[1])


def gapped(config: ConfigDict, outputs: int, example_shape: Shape, rngs: nnx.Rngs) -> Network:
    """Builds the network.

    Args:
      config: `config.model`: those of `multiscale`, span, letters, patterns, kmer_share,
        both_strands, inner_filters, inner_width, pool, strands.
      outputs: numbers for each example.
      example_shape: (length,).
      rngs: source of the initial parameters.

    Raises:
      UserError: the widths, or the bases and letters of a word, do not fit each other or the
        sequences.
    """
    (length,) = example_shape
    if config.span > length:
        raise UserError(
            f"--config.model.span={config.span} is longer than the sequences of {length} bases; "
            f"legal: 2 to {length}"
        )
    if config.letters > config.span:
        raise UserError(
            f"--config.model.letters={config.letters} do not fit into "
            f"--config.model.span={config.span} bases; legal: 2 to {config.span}"
        )
    kmers = GappedKmers(config.span, config.letters, config.patterns, outputs)
    both = config.both_strands and config.strands != "forward"
    filters, inner_filters = config.filters + config.short_filters, config.inner_filters
    first = Beside(two_widths(config, rngs), kmers, both)
    if inner_filters:
        inner = Convolution(config.inner_width, filters, inner_filters, rngs=rngs)
        first = Arranged(first.scan, kmers, both, inner, config.pool)
    *hidden, (head, _) = dense_layers(
        config, filters + inner_filters, outputs, rngs, nnx.gelu
    ).items()
    return Network(
        {
            "conv": first,
            **{name: OnMotifs(layer) for name, layer in hidden},
            head: BranchMean(sizes_of(config.dense)[-1], outputs, config.kmer_share, rngs=rngs),
        }
    )
