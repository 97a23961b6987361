"""Some rows of an array on disk, which enter memory only where they are asked for."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class MappedRows:
    """Looks like `values[rows]`, and reads what is indexed.

    Attributes:
      values: uint8 [records, ...], memory-mapped.
      rows: int64 [examples], which records, in this order.
    """

    values: NDArray[np.uint8]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all the rows together."""
        return (len(self.rows), *self.values.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return self.values.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.values.ndim

    @property
    def nbytes(self) -> int:
        """Bytes that all the rows would take in memory."""
        return len(self.rows) * int(np.prod(self.values.shape[1:])) * self.values.itemsize

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        """Reads the rows that `index` (integers, a slice or an array) names."""
        return np.asarray(self.values[self.rows[index]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.uint8]:
        """Reads all rows."""
        if copy is False:
            raise ValueError("rows on disk cannot become an array without a copy")
        return np.asarray(self.values[self.rows], dtype=dtype)
