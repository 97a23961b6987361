"""Variants from a VCF file, each allele as the two windows that a model must compare."""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdna.data.genome import Genome, other_style
from jaxdna.data.sequences import AmbiguousLetter, Codes, WrongLetter, decode, encode
from jaxdna.data.streams import STREAMED, display, read_lines
from jaxdna.errors import UserError

_FIXED_COLUMNS = 5  # CHROM POS ID REF ALT
_POSITION_DIGITS = 18  # far beyond any genome, and fits into 64 bits
MISMATCH = "reference mismatch"  # how the note of one begins
_SHOWN_BASES = 20
_BLOCK_BASES = 2**14  # of a genome that are read at once
_PLAIN_LETTERS = frozenset("ACGTNacgtn")  # what VCF allows in REF and ALT
_SYMBOLIC = re.compile(r"<.*>|[*.]|.*[\[\]].*")  # where no sequence is: <DEL>, *, ., a breakend
_IUPAC_LETTERS = frozenset("RYSWKMBDHVryswkmbdhv")  # what some assemblies have there nevertheless


class Variant(NamedTuple):
    """One alternative allele.

    Attributes:
      chromosome: as the file names it.
      position: first base of the reference allele, from 1 as in the file.
      id: column 3.
      reference: letters of the reference allele.
      alternative: letters of this alternative allele.
      reference_codes: uint8 [length], the window with the reference allele; None where `note` says
        why there is none.
      alternative_codes: uint8 [length], the same window with the alternative allele.
      note: what a person should know of this row; empty if nothing.
      row: the line of the file, the same object for all alleles of it.
      windows: how many windows there are, each one base further than the last: 1 or, where the
        codes have more than `length` bases, as many as lie in them.
      centre: which of them has the reference allele in its middle.
      start: the base of the genome at which the first begins, from 0.
    """

    chromosome: str
    position: int
    id: str
    reference: str
    alternative: str
    reference_codes: Codes | None
    alternative_codes: Codes | None
    note: str
    row: str = ""
    windows: int = 1
    centre: int = 0
    start: int = 0


def read_variants(
    path: str | Path,
    genome: Genome,
    length: int,
    slide: bool = False,
    header: list[str] | None = None,
) -> Iterator[Variant]:
    """Yields the alternative alleles of a VCF file in order, one by one.

    Both windows begin at the same base of the genome, and the reference allele lies in the middle
    of its window. Behind each allele follow the bases that follow the reference allele, up to the
    window's length: an insertion pushes bases out at the right end, a deletion draws bases in.
    The alleles' letters are the file's, also where the genome has others (noted); an N is read by
    the genome's policy, whichever of the two has it. A file of header lines alone has no variant.

    Args:
      path: VCF, plain or gzipped, or `-` for stdin.
      genome: the assembly that the variants refer to.
      length: bases of each window.
      slide: whether the codes are to hold every window that has the whole reference allele in it
        and lies on the chromosome; where the one in the middle does not, it is the only one.
      header: gets the lines that begin with `#`.

    Raises:
      UserError: a row is no VCF, or the genome calls the chromosomes otherwise; the sentence has
        the line.
    """
    where, nearby, seen, headed = display(path), _Nearby(genome), False, False
    for number, line in read_lines(path, STREAMED):
        seen = seen or bool(line.strip())
        if line.startswith("#") or not line.strip():
            headed = headed or line.startswith("#")
            if header is not None and line.startswith("#"):
                header.append(line)
            continue
        fields = line.split("\t", _FIXED_COLUMNS)
        if not _is_row(fields, headed):
            raise UserError(
                f"{where}, line {number} is not a VCF row; legal: CHROM, POS, ID, REF and ALT, "
                "separated by tabs"
            )
        chromosome, position, name, reference, alternatives = fields[:_FIXED_COLUMNS]
        if chromosome not in genome.lengths and other_style(chromosome, genome.lengths):
            genome.require([chromosome], f"{where}, line {number}")
        place = chromosome, int(position)
        for alternative in alternatives.split(","):
            codes, note, *span = _windows(nearby, *place, reference, alternative, length, slide)
            one, other = codes
            yield Variant(*place, name, reference, alternative, one, other, note, line, *span)
    if not seen:
        raise UserError(f"{where} contains no variants; give VCF with at least a header")


def _is_row(fields: list[str], headed: bool) -> bool:
    """Whether this is a row of a VCF file; what its alleles are is for its note.

    Without a header the file may have another format, such as BED with its name in REF's place.
    """
    if len(fields) < _FIXED_COLUMNS or not fields[3]:
        return False
    position, reference = fields[1], fields[3]
    named = not headed and not reference.isalpha() and not _SYMBOLIC.fullmatch(reference)
    is_position = position.isascii() and position.isdecimal() and len(position) <= _POSITION_DIGITS
    return is_position and not named


class _Nearby:
    """Reads a genome in blocks: the rows of a VCF file mostly lie side by side."""

    def __init__(self, genome: Genome) -> None:
        self.genome = genome
        self._block = lru_cache(maxsize=4)(
            lambda name, first: genome.codes(name, first, first + 2 * _BLOCK_BASES)
        )

    def codes(self, chromosome: str, start: int, stop: int) -> Codes:
        """Returns what `Genome.codes` does."""
        first = start - start % _BLOCK_BASES
        if start >= 0 and stop - first <= 2 * _BLOCK_BASES:
            try:
                return self._block(chromosome, first)[start - first : stop - first]
            except WrongLetter:  # which another part of the block may have
                pass
        return self.genome.codes(chromosome, start, stop)


def _windows(
    nearby: _Nearby,
    chromosome: str,
    position: int,
    reference: str,
    alternative: str,
    length: int,
    slide: bool,
) -> tuple[Any, ...]:
    """Returns both windows, or twice None, and a note; then those fields of `Variant` behind it."""
    genome = nearby.genome
    if chromosome not in genome.lengths:
        return (None, None), f"{genome.path.name} has no chromosome {chromosome}"
    for what, allele in (("allele", alternative), ("REF", reference)):
        if note := _unreadable(allele):
            return (None, None), f"{what} {shorten(allele) or '(none)'} has {note}"
    first = position - 1
    if first < 0 or first + len(reference) > genome.lengths[chromosome]:
        return (None, None), f"position lies outside {chromosome}"
    start = first + len(reference) // 2 - length // 2
    if not _reaches_change(reference, alternative, start - first, start - first + length):
        return (None, None), (
            f"a window of {length} bases around the middle of REF ({len(reference)} bases) "
            "contains none of the change"
        )
    try:
        return _fill(nearby, chromosome, first, start, reference, alternative, length, slide)
    except AmbiguousLetter:
        return (None, None), "an ambiguous letter, which --config.data.ambiguous=error refuses"
    except WrongLetter:
        return (None, None), f"{genome.path.name} has a letter here that is not a base"


def _unreadable(allele: str) -> str:
    """Returns what an allele has that is not a sequence of A, C, G, T and N; nothing if it is."""
    if not allele or _SYMBOLIC.fullmatch(allele):
        return "no sequence of its own"
    wrong = min(set(allele) - _PLAIN_LETTERS, default="")
    if not wrong or wrong in _IUPAC_LETTERS:
        return wrong and f"the ambiguous letter {wrong}"
    return f"the letter {wrong!r}, which is not a base"


def _reaches_change(reference: str, alternative: str, start: int, stop: int) -> bool:
    """Whether alternative[start:stop], with the bases around the allele, shows what has changed.

    That is one of the bases that the alternative has anew, or both sides of where others are gone.
    """
    pair = [reference.upper(), alternative.upper()]
    same_before = _common(*pair)
    same_after = _common(*(allele[same_before:][::-1] for allele in pair))
    return start < len(alternative) - same_after and same_before < stop


def _common(one: str, other: str) -> int:
    """Returns how many letters both begin with."""
    differ = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))


def _fill(
    nearby: _Nearby,
    chromosome: str,
    first: int,
    start: int,
    reference: str,
    alternative: str,
    length: int,
    slide: bool,
) -> tuple[tuple[Codes, Codes], str, int, int, int]:
    notes, genome = [], nearby.genome
    after = first + len(reference)
    there = decode(nearby.codes(chromosome, first, after))
    if there != decode(_codes(reference, "zero")):
        notes.append(f"{MISMATCH}: the genome has {shorten(there)}")
    if start < 0 or start + length > genome.lengths[chromosome]:
        notes.append(f"the window leaves {chromosome} (padded)")
    centre, whole = start, length
    last = min(first, genome.lengths[chromosome] - length)
    if slide and max(0, after - length) <= start <= last:
        start = max(0, after - length)
        whole = last - start + length
    left = nearby.codes(chromosome, start, max(start, first))
    skipped = max(0, start - first)  # an allele longer than the window begins before it
    alleles = [_codes(allele, genome.ambiguous)[skipped:] for allele in (reference, alternative)]
    missing = max(0, whole - left.size - min(map(len, alleles)))
    right = nearby.codes(chromosome, after, after + missing)
    reference_codes, alternative_codes = (
        np.concatenate([left, allele, right])[:whole] for allele in alleles
    )
    if max(len(reference), len(alternative)) > length:
        notes.append(f"an allele is longer than the window of {length} bases")
    codes = reference_codes, alternative_codes
    return codes, "; ".join(notes), whole - length + 1, centre - start, start


@lru_cache(maxsize=4096)
def _codes(allele: str, ambiguous: str) -> Codes:
    """Returns the codes of an allele; most are one of a few, and nobody writes into them."""
    return encode(allele, ambiguous)


def shorten(letters: str) -> str:
    """Returns an allele for people: a long one's first letters."""
    return letters if len(letters) <= _SHOWN_BASES else f"{letters[:_SHOWN_BASES]}..."
