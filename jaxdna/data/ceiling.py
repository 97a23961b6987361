"""The best that any classifier can do on simulated data: the exact likelihood ratio.

With one instance at a uniform start and strand, everything outside the instance cancels:

    LR(x) = mean over strands s and starts i of  prod_j  PWM_s[j, x[i + j]] / background[x[i + j]]

No score can have a higher expected AUROC or accuracy (Neyman and Pearson, 1933), and no probability
a lower expected log loss.
"""

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.motifs import Motif
from jaxdna.data.sequences import Codes
from jaxdna.data.simulator import background
from jaxdna.tasks.logits import log_sum_exp

_CHUNK_ROWS = 256


def log_likelihood_ratio(codes: Codes, motif: Motif, gc: float) -> NDArray[np.float64]:
    """Returns log P(x | bound) / P(x | unbound) of every sequence.

    Args:
      codes: uint8 [sequences, length], letters A C G T only (0..3).
      motif: the motif that the simulation embedded.
      gc: GC fraction of its background.

    Returns:
      float64 [sequences]; with classes of equal size it is the best possible logit.
    """
    forward = np.log(motif.smoothed() / background(gc))
    strands = (forward, forward[::-1, ::-1])  # complement swaps A-T and C-G: columns reversed
    positions = codes.shape[1] - motif.width + 1
    ratios = np.empty(len(codes))
    for first in range(0, len(codes), _CHUNK_ROWS):
        chunk = codes[first : first + _CHUNK_ROWS]
        scores = np.zeros((len(chunk), 2, positions))
        for strand, matrix in enumerate(strands):
            for j, row in enumerate(matrix):
                scores[:, strand] += row[chunk[:, j : j + positions]]
        flat = scores.reshape(len(chunk), -1)
        ratios[first : first + _CHUNK_ROWS] = log_sum_exp(flat) - np.log(flat.shape[1])
    return ratios
