"""A VCF file as it was read, with scores in its INFO column."""

import re
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

_PREFIX = "JAXDNA_"
_OURS = re.compile(rf"##INFO=<ID={_PREFIX}")
_COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
_INFO = 7  # its place among the columns
_PLAIN = "!\"#$&'()*+-./:<>?@[\\]^_`{|}~"  # what VCF 4.3 leaves as it is in a value, but blanks


def header_lines(
    header: Sequence[str], keys: Mapping[str, tuple[str, str]], chromosomes: Mapping[str, int]
) -> str:
    """Returns the header of the file that was read, with lines for the keys that rows get.

    Args:
      header: its lines that begin with `#`, in order.
      keys: type and description of each key, without our prefix.
      chromosomes: bases of each, for files that do not say.
    """
    columns = next((line for line in header if line.startswith("#CHROM")), _COLUMNS)
    if columns.count("\t") < _INFO:
        columns = _COLUMNS
    lines = [line for line in header if line.startswith("##") and not _OURS.match(line)]
    if not any(line.startswith("##fileformat=") for line in lines):
        lines.insert(0, "##fileformat=VCFv4.3")
    if not any(line.startswith("##contig=") for line in lines):
        lines += [f"##contig=<ID={name},length={size}>" for name, size in chromosomes.items()]
    lines += [
        f'##INFO=<ID={_PREFIX}{key},Number=A,Type={kind},Description="{text}">'
        for key, (kind, text) in keys.items()
    ]
    return "".join(f"{line}\n" for line in [*lines, columns])


def row_line(row: str, values: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Returns a row with values for each of its alleles; its earlier ones of ours are replaced.

    Args:
      row: a line of the file, without its end.
      values: keys without our prefix, each with a text for every allele; `.` for none.
    """
    fields = row.split("\t")
    fields += ["."] * (_INFO + 1 - len(fields))
    kept = [
        part for part in fields[_INFO].split(";") if part != "." and not part.startswith(_PREFIX)
    ]
    kept += [f"{_PREFIX}{key}={','.join(texts)}" for key, texts in values if set(texts) != {"."}]
    fields[_INFO] = ";".join(kept) or "."
    return "\t".join(fields) + "\n"


def as_value(text: str) -> str:
    """Returns a text as INFO may have it: `.` if empty, percent signs for what VCF reserves."""
    return quote(text, safe=_PLAIN) or "."
