"""Motifs as files that other tools read: MEME's minimal format, and JASPAR's."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.motifs import Motif

UNIFORM_BACKGROUND = (0.25, 0.25, 0.25, 0.25)


def meme(
    motifs: Sequence[Motif],
    sites: Sequence[int],
    background: Sequence[float] = UNIFORM_BACKGROUND,
) -> str:
    """Returns MEME's minimal format.

    Format: https://meme-suite.org/meme/doc/meme-format.html.

    Args:
      motifs: in this order.
      sites: how many sequences stand behind each motif; other tools weigh pseudocounts by it.
      background: frequencies of A C G T where the motifs were found.
    """
    lines = ["MEME version 4", "", "ALPHABET= ACGT", "", "strands: + -", ""]
    frequencies = " ".join(
        f"{base} {share:.6g}" for base, share in zip("ACGT", background, strict=True)
    )
    lines += ["Background letter frequencies", frequencies, ""]
    for motif, count in zip(motifs, sites, strict=True):
        lines.append(f"MOTIF {_word(motif.name)}")
        lines.append(f"letter-probability matrix: alength= 4 w= {motif.width} nsites= {count} E= 0")
        lines += [" " + " ".join(f"{share:.6f}" for share in row) for row in motif.probabilities]
        lines.append("")
    return "\n".join(lines)


def jaspar(motifs: Sequence[Motif], sites: Sequence[int]) -> str:
    """Returns JASPAR's format: whole counts, four lines A C G T per motif.

    Format: https://jaspar.elixir.no/docs/.

    Args:
      motifs: in this order.
      sites: how many sequences stand behind each motif, the sum of its counts at each position.
    """
    lines = []
    for motif, total in zip(motifs, sites, strict=True):
        lines.append(f">{_word(motif.name)}")
        counts = _whole_counts(motif.probabilities, total)
        width = len(str(total))
        for base, row in zip("ACGT", counts.T, strict=True):
            lines.append(f"{base} [ " + " ".join(f"{count:{width}d}" for count in row) + " ]")
        lines.append("")
    return "\n".join(lines)


def _whole_counts(probabilities: NDArray[np.float64], sites: int) -> NDArray[np.int64]:
    """Rounds so that each position still sums to `sites`: the largest remainders go up."""
    exact = probabilities * sites
    counts = np.floor(exact).astype(np.int64)
    missing = sites - counts.sum(axis=1, keepdims=True)
    rank = np.argsort(np.argsort(counts - exact, axis=1, kind="stable"), axis=1)
    return counts + (rank < missing)


def _word(name: str) -> str:
    """A name is ASCII in both formats, and ends at its first blank."""
    return "_".join(name.encode("ascii", "replace").decode().split()) or "motif"
