"""Motifs in the text formats that people have: MEME, JASPAR, HOMER, gimme, TRANSFAC and CIS-BP.

A format is told by its lines, never by the file's name; what can be read in two ways is refused.
Sources: https://meme-suite.org/meme/doc/meme-format.html, https://jaspar.elixir.no/docs/,
http://homer.ucsd.edu/homer/motif/creatingCustomMotifs.html, https://gimmemotifs.readthedocs.io,
https://cisbp.ccbr.utoronto.ca; TRANSFAC as JASPAR, STAMP, RSAT and SwissRegulon write it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import dropwhile, takewhile
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FORMATS = "MEME, JASPAR, HOMER, gimme, TRANSFAC or CIS-BP"

Lines = Sequence[tuple[int, str]]  # number from 1, text without blanks around it

_EQUAL = 0.01  # relative: sums of rounded frequencies differ by less
_MEME = re.compile(r"MOTIF(?:\s|$)")
_ALPHABET = re.compile(r"ALPHABET\b\s*=?\s*(.*)", re.I)
_TITLE = re.compile(r">")
_END = re.compile("//")  # of a motif, in RSAT's tables
_MATRIX = "letter-probability matrix:"
_COLUMNS = re.compile(
    r"(P[O0]|Pos|Position)?\s*\b([ACGTU])\s+([ACGTU])\s+([ACGTU])\s+([ACGTU])(?:\s+cons\b.*)?$",
    re.I,
)
_TAG = re.compile(r"(AC|ID|NA|DE|TF Name|Motif)\s+(.*)")


class Matrix(NamedTuple):
    """A motif as its file has it.

    Attributes:
      line: where it begins, from 1.
      name: its first name, which may be an accession.
      protein: its second name, or nothing.
      rows: float64 [positions, 4], columns A C G T: frequencies or counts.
    """

    line: int
    name: str
    protein: str
    rows: NDArray[np.float64]


def parse(text: str, stem: str) -> list[Matrix]:
    """Returns every motif of a file.

    Args:
      text: its content, lines ending in a line feed.
      stem: the name of a motif that the file does not name.

    Raises:
      ValueError: the text is in none of the formats; the message has the line.
    """
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    lines = [(number, line) for number, line in lines if not line.startswith(("#", ";"))]
    if any("MEME version" in line or _MEME.match(line) for _, line in lines):
        return list(_read_meme(lines))
    if any(_TITLE.match(line) for _, line in lines):
        return _read_titled(_split(lines, _TITLE)[1:])
    if any(_COLUMNS.match(line) or line.split()[:1] == ["DE"] for _, line in lines):
        return list(_read_tagged(lines, stem))
    blocks = _split([(1, "//"), *lines], _END)[1:]
    found = [[one for one in block if one[1]] for _, _, block in blocks]
    found = [block for block in found if block]
    names = [f"{stem}_{i}" for i in range(1, len(found) + 1)] if len(found) > 1 else [stem]
    return _read_titled([(b[0][0], name, b) for name, b in zip(names, found, strict=False)])


def _split(lines: Lines, mark: re.Pattern[str]) -> list[tuple[int, str, Lines]]:
    """Cuts at lines that begin with a mark: line, what follows the mark, and the lines below.

    The first part is what lies above the first mark.
    """
    at = [i for i, (_, line) in enumerate(lines) if mark.match(line)]
    parts = [(lines[i][0], mark.sub("", lines[i][1], count=1).strip()) for i in at]
    blocks = [lines[i + 1 : stop] for i, stop in zip(at, [*at, len(lines)][1:], strict=True)]
    first = lines[: at[0]] if at else lines
    return [(1, "", first), *((*part, block) for part, block in zip(parts, blocks, strict=True))]


def _read_meme(lines: Lines) -> Iterator[Matrix]:
    (_, _, preamble), *blocks = _split(lines, _MEME)
    order = _meme_alphabet(preamble, "ACGT")
    for number, title, block in blocks:
        # MEME's own output goes on with `width = 11 sites = 20`, its older ones without a name.
        name, protein = _names(re.sub(r"\bwidth\s*=.*", "", title))
        inside = list(dropwhile(lambda line: not line[1].startswith(_MATRIX), block))
        if not inside:
            log_odds = any(line.startswith("log-odds matrix:") for _, line in block)
            only = ", only log-odds, which are not frequencies" if log_odds else ""
            raise ValueError(f"line {number}: motif {name} has no letter-probability matrix{only}")
        below = list(dropwhile(lambda line: not _numbers(line[1]), inside[1:]))
        rows = [_numbers(line) for _, line in takewhile(lambda line: _numbers(line[1]), below)]
        _check_end(below[len(rows) :])
        declared = re.search(r"\bw=\s*(\d+)", inside[0][1])
        if declared and int(declared[1]) != len(rows):
            raise ValueError(
                f"line {inside[0][0]}: motif {name} declares w={declared[1]} but has "
                f"{len(rows)} rows"
            )
        yield Matrix(number, name, protein, _ordered(number, name, rows, order))
        order = _meme_alphabet(block, order)  # files are put together, each with its own


def _meme_alphabet(lines: Lines, order: str) -> str:
    """Returns the order of columns from some lines on; `order` if they do not speak of it."""
    rest = iter(lines)
    for number, line in rest:
        if not (found := _ALPHABET.match(line)):
            continue
        given = found[1].strip()
        if "=" not in line and not re.fullmatch("[ACGTU]+", given, re.I):
            # a definition of symbols, which MEME sorts
            definition = takewhile(lambda line: not line[1].startswith("END"), rest)
            given = "".join(sorted(set("".join(map(_core_symbols, definition)))))
        order = given.upper().replace("U", "T")
        if "".join(sorted(order)) != "ACGT":
            raise ValueError(f"line {number}: alphabet {given[:40]} is neither DNA nor RNA")
    return order


def _core_symbols(line: tuple[int, str]) -> str:
    """The symbols of a line such as `A "Adenine" CC0000 ~ T "Thymine" 0000CC`."""
    text = re.sub(r'"[^"]*"', " ", line[1])
    return (
        "" if "=" in text else "".join(part.split()[0] for part in text.split("~") if part.strip())
    )


def _read_titled(blocks: Iterable[tuple[int, str, Lines]]) -> list[Matrix]:
    """Rows below a title: of bases in JASPAR, of positions in HOMER and gimme."""
    found = []
    for number, title, lines in blocks:
        cells = title.split("\t") if "\t" in title else title.split()
        labels, rows = _labelled_rows(lines)
        # HOMER's title has consensus, name and threshold; titles of others may have a number too.
        homer = len(cells) > 2 and bool(_numbers(cells[2])) and labels != "ACGT"
        homer = homer and {len(row) for row in rows} == {4}
        name, protein = _names(cells[1] if homer else title)
        if not rows or len({len(row) for row in rows}) > 1:
            raise ValueError(f"line {number}: motif {name} has rows of different lengths, or none")
        table = np.array(rows)
        bases = False if homer else _rows_are_bases(number, name, labels, table)
        found.append((number, name, protein, table, bases))
    told = {bases for *_, bases in found if bases is not None}
    matrices = []
    for number, name, protein, table, bases in found:
        if bases is None:  # a file is in one format
            bases = (
                told == {True} if len(told) == 1 else _square_rows_are_bases(number, name, table)
            )
        matrices.append(Matrix(number, name, protein, table.T if bases else table))
    return matrices


def _labelled_rows(lines: Lines) -> tuple[str, list[list[float]]]:
    """Returns the letters that rows begin with, or nothing, and the rows."""
    labels, rows = "", list[list[float]]()
    for number, line in lines:
        bare = re.sub(r"[\[\]]", " ", line).strip()
        label = re.match(r"([A-Za-z])\s*[|:\s]\s*", bare)
        row = _numbers(bare[label.end() :] if label else bare)
        if row and bool(label) == bool(labels or (label and not rows)):
            labels += label[1].upper().replace("U", "T") if label else ""
            rows.append(row)
        elif bare and labels != "ACGT":  # behind its four bases a motif may have remarks
            raise _not_a_row(number, line)
    return labels, rows


def _rows_are_bases(number: int, name: str, labels: str, table: NDArray[np.float64]) -> bool | None:
    """Tells JASPAR's rows from those of positions; None for four unlabelled rows of four."""
    if labels == "ACGT" or (not labels and len(table) == 4 != table.shape[1]):
        return True
    if table.shape[1] != 4 or "".join(sorted(labels)) == "ACGT":
        raise ValueError(
            f"line {number}: motif {name} has {len(table)} rows of {table.shape[1]} numbers"
            + (f" for {labels}" if labels else "")
            + "; legal: a row each for A, C, G and T in this order, or four numbers a position"
        )
    return None if len(table) == 4 and not labels else False


def _square_rows_are_bases(number: int, name: str, table: NDArray[np.float64]) -> bool:
    """Tells by which sums are equal: those over the bases of a position."""
    with np.errstate(all="ignore"):  # sums that overflow are refused later
        down, across = (
            np.ptp(sums) <= _EQUAL * sums.max() for sums in (table.sum(0), table.sum(1))
        )
    if down == across and not np.array_equal(table, table.T):
        raise ValueError(
            f"line {number}: the rows of motif {name} may be bases or positions; legal: rows that "
            "begin with A, C, G and T, or one for each position below HOMER's title"
        )
    return bool(down)


def _read_tagged(lines: Lines, stem: str) -> Iterator[Matrix]:
    """Rows of positions below a line that names the columns, and tags around them."""
    first, tags = 0, dict[str, str]()
    order = ""
    sizes: tuple[int, ...] = (5,)  # numbers that a row may have
    rows: list[list[float]] = []
    for number, line in [*lines, (0, "")]:
        words = line.split()
        # Behind its numbers a position may have the consensus, and SwissRegulon its information.
        consensus = next((i for i, word in enumerate(words) if word.isalpha()), len(words))
        row = _numbers(" ".join(words[:consensus]))
        if order and len(row) in sizes:
            first = first if rows else number
            rows.append(row[-4:])
            sizes = (len(row),)
            continue
        if order:
            _check_end([(number, line)])
        if rows:
            name = next(
                (tags[key] for key in ("Motif", "AC", "ID", "DE", "NA") if key in tags), stem
            )
            name = name.split()[0]
            protein = tags.get("TF Name") or tags.get("NA") or tags.get("ID", "")
            protein = "" if protein == name else protein
            yield Matrix(first, name, protein, _ordered(first, name, rows, order))
        if rows or words[:1] == ["//"] or line.startswith("TF\t"):  # the next motif begins
            tags, order, sizes, rows = {}, "", (5,), []
        if (tag := _TAG.match(line)) and tag[2]:
            tags.setdefault(tag[1], tag[2])
        if columns := _COLUMNS.match(line):
            order = "".join(columns.groups()[1:]).upper().replace("U", "T")
            sizes = (5,) if columns[1] else (4, 5)
            if "".join(sorted(order)) != "ACGT":
                raise ValueError(f"line {number}: columns {order}; legal: A, C, G and T, once each")
        elif words[:1] == ["DE"]:  # STAMP names no columns
            order = "ACGT"


def _ordered(number: int, name: str, rows: list[list[float]], order: str) -> NDArray[np.float64]:
    """Brings the columns into the order A C G T."""
    if not rows or {len(row) for row in rows} != {4}:
        raise ValueError(
            f"line {number}: motif {name} has rows without exactly four numbers, or no rows"
        )
    return np.array(rows)[:, [order.index(base) for base in "ACGT"]]


def _names(title: str) -> tuple[str, str]:
    """Returns a motif's two names; newer releases of JASPAR repeat the first in the second."""
    name, protein = [*title.split(None, 2), "", ""][:2]
    return name or "?", protein.removeprefix(f"{name}.")


def _numbers(line: str) -> list[float]:
    try:
        return [float(word) for word in line.split()]
    except ValueError:
        return []


def _not_a_row(number: int, line: str) -> ValueError:
    return ValueError(f"line {number}: {line[:40]!r} is not a row of numbers")


def _check_end(lines: Lines) -> None:
    """A matrix ends with its file, a blank line or words; a row with a typing error is none."""
    for number, line in lines[:1]:
        if line[:1] and line[0] in "0123456789.":
            raise _not_a_row(number, line)
