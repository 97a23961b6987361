"""What hangs together through others."""

import numpy as np
from numpy.typing import NDArray


def components(
    first: NDArray[np.integer], second: NDArray[np.integer], nodes: int
) -> NDArray[np.int64]:
    """Numbers the connected components of a graph.

    Args:
      first: int [edges], one end of each edge.
      second: int [edges], its other end.
      nodes: how many there are.

    Returns:
      int64 [nodes], the component of each, from 0.
    """
    # Here, because every start of a command would pay for SciPy's graphs.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(nodes, nodes))
    return connected_components(graph, directed=False)[1].astype(np.int64)
