"""What the filters of a trained network look for: frequency matrices from their best windows.

Source: Alipanahi, Delong, Weirauch and Frey (2015), Predicting the sequence specificities of DNA-
and RNA-binding proteins by deep learning, Nature Biotechnology 33:831-838: align the windows on
which a filter fires and count bases. As DragoNN does, a window counts if its activation exceeds
half of the filter's largest. Which window is a sequence's best, see `windows`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from jaxdna.analysis.motif_match import Hit, match_motif
from jaxdna.analysis.windows import Windows
from jaxdna.data.motifs import Motif
from jaxdna.data.sequences import UNKNOWN, Codes, reverse_complement
from jaxdna.models.layers import Dense
from jaxdna.models.motif_cnn import scan_of
from jaxdna.models.network import Network
from jaxdna.progress import counted
from jaxdna.runs.trained import Trained

_LEAST_SITES = 10  # fewer windows make no frequency matrix
_THRESHOLD = 0.5  # of the largest activation
_MOST_SLOPES = 2000  # sequences over which derivatives are averaged
_AT_ONCE = 64  # of these, which keeps a chip's memory free
_EDGE_BITS = 0.25  # columns at the ends that tell less are no part of a motif


@dataclass(frozen=True)
class FilterMotif:
    """A filter as a motif.

    Attributes:
      number: of the filter, from 0.
      weight: what one unit of its activation adds to the output that it changes most, on average
        where more than one linear layer follows.
      influence: weight times the activation's standard deviation over the sequences.
      sites: windows that stand behind the matrix.
      motif: the frequency matrix; None where the filter fires on too few sequences.
      core: the motif without columns at its ends that tell next to nothing.
      hits: known motifs that it resembles, best first.
      output: the output that it changes most.
    """

    number: int
    weight: float
    influence: float
    sites: int
    motif: Motif | None
    core: Motif | None
    hits: Sequence[Hit]
    output: str = ""

    def _repr_html_(self) -> str:
        from jaxdna.analysis.pages import logo_card

        return f'<div style="max-width:26rem">{logo_card(self)}</div>'


def filter_motifs(
    trained: Trained,
    codes: Codes,
    windows: Windows,
    library: Sequence[Motif],
    most: int | None = None,
) -> list[FilterMotif]:
    """Returns every filter as a motif, the most influential first.

    Args:
      trained: the network.
      codes: uint8 [sequences, length], what `windows` were found in.
      windows: of `find_windows`.
      library: known motifs to compare with.
      most: how many filters to compare, the most influential with a motif; all if None.
    """
    weights, outputs = _weights(trained, codes)
    spread = windows.activation.std(axis=0)
    made = []
    for number, weight in enumerate(weights.tolist()):
        activation = windows.activation[:, number]
        firing = np.flatnonzero((activation > _THRESHOLD * activation.max()) & (activation > 0))
        motif = core = None
        if firing.size >= _LEAST_SITES:
            starts = windows.start[firing, number]
            sites = codes[firing[:, None], starts[:, None] + np.arange(windows.width)]
            turned = windows.reverse[firing, number]
            sites[turned] = reverse_complement(sites[turned])
            motif = _frequencies(sites, f"filter{number}")
            core = informative_part(motif) if motif else None
        influence = weight * float(spread[number])
        output = trained.task.names[int(outputs[number])]
        count = int(firing.size)
        made.append(FilterMotif(number, weight, influence, count, motif, core, (), output))
    made.sort(key=lambda one: -abs(one.influence))
    cores = [(one.number, one.core) for one in made if one.core and library][:most]
    compared = counted("comparing with known motifs", cores, len(cores))
    hits = {number: match_motif(core, library) for number, core in compared}
    return [replace(one, hits=hits.get(one.number, ())) for one in made]


def information(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the information of each position in bits, against equal base frequencies.

    Args:
      probabilities: float64 [width, 4].
    """
    safe = np.maximum(probabilities, np.finfo(np.float64).tiny)
    return 2 + (probabilities * np.log2(safe)).sum(axis=1)


def informative_part(motif: Motif) -> Motif | None:
    """Cuts columns of little information off both ends; None if nothing is left."""
    telling = np.flatnonzero(information(motif.probabilities) >= _EDGE_BITS)
    if not telling.size:
        return None
    rows = motif.probabilities[telling[0] : telling[-1] + 1]
    return Motif(motif.name, motif.source, rows)


def found_share(
    trained: Trained,
    codes: Codes,
    windows: Windows,
    starts: NDArray[np.int32],
    width: int,
) -> tuple[float, float]:
    """Returns how often the network looks at the embedded instance, and how often chance would.

    The network looks at the window that adds most to the logit. It counts as found if the middle
    of the instance lies in that window.

    Args:
      trained: the network.
      codes: uint8 [sequences, length].
      windows: of `find_windows`, in these sequences.
      starts: int32 [sequences], first base of each instance; -1 where there is none.
      width: bases of an instance.
    """
    weights, _ = _weights(trained, codes)
    top = (windows.activation * weights).argmax(axis=1)
    place = np.take_along_axis(windows.start, top[:, None], axis=1)[:, 0]
    bound = starts >= 0
    middle, spanned = starts[bound] + width // 2, windows.width
    inside = (place[bound] <= middle) & (middle < place[bound] + spanned)
    return float(inside.mean()), spanned / (codes.shape[1] - spanned + 1)


def _weights(trained: Trained, codes: Codes) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Returns each filter's weight for the output that it matters most to, and which that is.

    Where one linear layer follows the scan its kernel holds the weights. Where more follows, a
    filter has no weight of its own, and what counts is the outputs' derivative by its bias, which
    for one linear layer is the same wherever the filter fires: the mean over those sequences.

    Args:
      trained: the network.
      codes: uint8 [sequences, length].
    """
    network = trained.network(trained.params)
    rest = network.names[1:]
    if len(rest) == 1 and isinstance(getattr(network, rest[0]), Dense):
        kernel = np.asarray(trained.params[rest[0]]["kernel"])
    else:
        kernel = _slopes(network, codes[:_MOST_SLOPES]).T
    most = np.abs(kernel).argmax(axis=1)
    return kernel[np.arange(len(kernel)), most], most


def _slopes(network: Network, codes: Codes) -> NDArray[np.float32]:
    """Returns the mean derivative of each output by each filter's bias, [outputs, filters]."""
    graph, state = nnx.split(network)

    def outputs(bias: jax.Array, one: jax.Array) -> jax.Array:
        copy = nnx.merge(graph, state)
        scan = scan_of(copy)
        assert scan
        scan.bias = nnx.Param(bias)
        return copy(one[None])[0]

    by_bias = jax.jit(jax.vmap(jax.jacrev(outputs), in_axes=(None, 0)))
    scan = scan_of(network)
    assert scan
    chunks = [codes[start : start + _AT_ONCE] for start in range(0, len(codes), _AT_ONCE)]
    slopes = np.concatenate([np.asarray(by_bias(scan.bias[...], chunk)) for chunk in chunks])
    return slopes.sum(axis=0) / np.maximum((slopes != 0).sum(axis=0), 1)


def _frequencies(sites: Codes, name: str) -> Motif | None:
    counts = np.stack([(sites == base).sum(axis=0) for base in range(4)], axis=1)
    if (sites < UNKNOWN).sum(axis=0).min() == 0:  # a column of nothing but N
        return None
    return Motif(name, "jaxdna", counts / counts.sum(axis=1, keepdims=True))
