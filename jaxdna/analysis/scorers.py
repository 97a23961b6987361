"""The scorer that suits a trained network."""

from jaxdna.analysis.scan_scorer import ScanScorer
from jaxdna.analysis.scorer import Scorer
from jaxdna.analysis.window_scorer import WindowScorer
from jaxdna.runs.trained import Trained


def make_scorer(trained: Trained, strands: str | None = None) -> Scorer:
    """Returns the fast scan where the network offers one, else the network on whole sequences.

    Args:
      trained: the network.
      strands: how both strands make one answer; as it was trained if None.
    """
    return (ScanScorer if trained.scan else WindowScorer)(trained, strands)
