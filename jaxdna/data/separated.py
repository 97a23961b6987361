"""The fields of a table's lines: between tabs, or as spreadsheets write CSV."""

import csv
from collections.abc import Callable


def splitter(first: str) -> Callable[[str], list[str]]:
    """Returns what splits the lines of a table, by its first line.

    Fields are between tabs if it has one, else between semicolons or commas, whichever it has more
    of; then they may be in double quotes.
    """
    mark = "\t" if "\t" in first else max(";", ",", key=first.count)

    def split(line: str) -> list[str]:
        if mark == "\t" or '"' not in line:
            return line.split(mark)
        try:
            return next(csv.reader([line], delimiter=mark))
        except csv.Error:  # a field of more than 131,072 letters
            return line.split(mark)

    return split
