"""DNA as codes: one byte a base on the host and on the device, letters only at the edges."""

import numpy as np
from numpy.typing import NDArray

from jaxdna.errors import UserError

Codes = NDArray[np.uint8]

LETTERS = "ACGT"
UNKNOWN = 4  # any other letter, or padding: an all-zero row in one-hot form
UNIFORM = 5  # any other letter, read as a quarter of each base

# Row c is the one-hot form of code c (A C G T columns).
ONE_HOT_ROWS = np.array(
    [*np.eye(4), np.zeros(4), np.full(4, 0.25)], dtype=np.float32
)  # float32 [6, 4]


class WrongLetter(UserError):
    """A letter that is not a base."""


class AmbiguousLetter(WrongLetter):
    """N or another IUPAC letter, where the policy `error` refuses what is no single base."""


_COMPLEMENT = np.array([3, 2, 1, 0, UNKNOWN, UNIFORM], dtype=np.uint8)
_INVALID = 255
_AMBIGUOUS_LETTERS = "RYSWKMBDHVN"
_DECODE = np.frombuffer(b"ACGTNN", dtype="S1")


def _letter_table(ambiguous: int) -> Codes:
    table = np.full(256, _INVALID, dtype=np.uint8)
    letters = [(letter, code) for code, letter in enumerate(LETTERS)] + [("U", 3)]
    for letter, code in letters + [(letter, ambiguous) for letter in _AMBIGUOUS_LETTERS]:
        table[ord(letter)] = table[ord(letter.lower())] = code
    return table


_TABLES = {
    "zero": _letter_table(UNKNOWN),
    "uniform": _letter_table(UNIFORM),
    "error": _letter_table(_INVALID),
}


def encode(letters: str | bytes, ambiguous: str = "zero") -> Codes:
    """Turns letters into codes.

    Args:
      letters: bases; lower case counts as upper case and U as T.
      ambiguous: what N and the other IUPAC letters become: `zero` (`UNKNOWN`), `uniform`
        (`UNIFORM`) or `error`.

    Returns:
      uint8 [len(letters)], A C G T = 0 1 2 3.

    Raises:
      WrongLetter: one is not a nucleotide; the message names it and its offset (from 0). With
        `error` it is AmbiguousLetter where another policy would take that letter.
    """
    raw = letters.encode("latin-1", "replace") if isinstance(letters, str) else letters
    codes = _TABLES[ambiguous][np.frombuffer(raw, dtype=np.uint8)]
    wrong = np.flatnonzero(codes == _INVALID)
    if wrong.size:
        offset = int(wrong[0])
        known = _TABLES["zero"][raw[offset]] != _INVALID
        raise (AmbiguousLetter if known else WrongLetter)(
            f"letter {chr(raw[offset])!r} at offset {offset} is not a base; legal: "
            + ("A C G T U" if ambiguous == "error" else f"A C G T U {' '.join(_AMBIGUOUS_LETTERS)}")
        )
    return codes


def decode(codes: Codes) -> str:
    """Turns codes uint8 [length] into letters; `UNKNOWN` and `UNIFORM` become N."""
    return _DECODE[codes].tobytes().decode("ascii")


def reverse_complement(codes: Codes) -> Codes:
    """Returns the other strand, read in its own direction.

    Args:
      codes: uint8 [..., length].

    Returns:
      uint8 [..., length].
    """
    return _COMPLEMENT[codes[..., ::-1]]


def one_hot(codes: Codes) -> NDArray[np.float32]:
    """Returns float32 [..., length, 4] for codes uint8 [..., length], on the host."""
    return ONE_HOT_ROWS[codes]
