"""A split that the user has decided: a table of record names and splits."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.dataset import SPLITS
from jaxdna.data.separated import splitter
from jaxdna.data.streams import read_lines
from jaxdna.errors import UserError


def read_split_table(
    path: str, ids: Sequence[str]
) -> tuple[dict[str, NDArray[np.int64]], list[str]]:
    """Reads which record belongs to which split.

    Args:
      path: a table with a header; columns `id` and `split` are read, others passed over.
      ids: the records' names, each once.

    Returns:
      The rows of `ids` in each split, in the order of the table, and notes.

    Raises:
      UserError: the table or a name in it is wrong, or two records share a name.
    """
    row_of = {name: row for row, name in enumerate(ids)}
    if len(row_of) < len(ids):
        twice = next(name for row, name in enumerate(ids) if row_of[name] != row)
        raise UserError(
            f"two records are called '{twice}', so --config.data.split_table={path} cannot tell "
            "them apart; give each record a different name"
        )
    lines = read_lines(path)
    _, header = next(lines)
    fields_of = splitter(header)
    columns = fields_of(header)
    if not {"id", "split"} <= set(columns):
        raise UserError(f"{path}, line 1 has no columns id and split; give a header with both")
    name_column, split_column = columns.index("id"), columns.index("split")
    rows: dict[str, list[int]] = {name: [] for name in SPLITS}
    seen: set[str] = set()
    for number, line in lines:
        if not line.strip():
            continue
        fields = fields_of(line)
        name = fields[name_column] if name_column < len(fields) else ""
        split = fields[split_column] if split_column < len(fields) else ""
        if split not in rows:
            raise UserError(f"{path}, line {number}: split {split!r}; legal: {', '.join(SPLITS)}")
        if name not in row_of or name in seen:
            what = "is listed twice" if name in seen else "is the id of no record"
            raise UserError(f"{path}, line {number}: '{name}' {what}; list each record once")
        seen.add(name)
        rows[split].append(row_of[name])
    for split, members in rows.items():
        if not members:
            raise UserError(f"{path} puts no record into {split}; legal: one or more for each")
    left_out = len(ids) - len(seen)
    notes = [f"{path}: {left_out} of {len(ids)} records are in no split"] if left_out else []
    return {split: np.array(members, dtype=np.int64) for split, members in rows.items()}, notes
