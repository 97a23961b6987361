"""Sequences of any lengths as one flat array of codes, and how they get one common length."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jaxdna.data.memory import require_memory
from jaxdna.data.sequences import UNKNOWN, Codes
from jaxdna.errors import UserError, nearest

LENGTH_POLICIES = ("error", "center_crop", "pad")
SHOWN = 3  # offenders that an error names


@dataclass(frozen=True)
class Records:
    """Sequences one after the other.

    Attributes:
      ids: one name per record, in order; not always unique.
      codes: uint8 [bases], all sequences without gaps.
      offsets: int64 [records + 1], record i is codes[offsets[i] : offsets[i + 1]].
    """

    ids: Sequence[str]
    codes: Codes
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, record: int) -> Codes:
        """Returns the codes of one record, a view."""
        return self.codes[self.offsets[record] : self.offsets[record + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Bases in each record: int64 [records]."""
        return np.diff(self.offsets)


def join(ids: Sequence[str], sequences: Sequence[Codes]) -> Records:
    """Returns separate sequences (uint8 [length] each) as `Records`."""
    offsets = np.zeros(len(sequences) + 1, dtype=np.int64)
    np.cumsum([len(codes) for codes in sequences], out=offsets[1:])
    return Records(ids, np.concatenate([*sequences, np.empty(0, np.uint8)]), offsets)


def common_length(records: Records, policy: str) -> int:
    """Returns the length that a policy of `fit_length` gives where the user names none.

    Args:
      records: at least one.
      policy: `error` (the first record's), `center_crop` (the shortest) or `pad` (the longest).
    """
    lengths = records.lengths
    return int({"error": lengths[0], "center_crop": lengths.min(), "pad": lengths.max()}[policy])


def fit_length(records: Records, length: int, policy: str, source: str, width: int = 1) -> Codes:
    """Returns the records with one common length.

    Args:
      records: what was read.
      length: bases that each row must have.
      policy: `error` (all must have it already), `center_crop` (the middle of longer ones) or
        `pad` (`UNKNOWN` on both sides of shorter ones, one more on the right where odd).
      source: the file, for the sentence.
      width: bases that a filter spans, for the sentence: it must not propose to crop to fewer.

    Returns:
      uint8 [records, length].

    Raises:
      UserError: a record has a length that the policy does not mend (the first ones are named), or
        memory has no room for the rows.
    """
    lengths = records.lengths
    wrong = misfits(lengths, length, policy)
    if wrong.size:
        raise misfit_error(_named(records.ids, wrong), lengths, length, policy, source, width)
    if policy == "error" or (lengths == length).all():
        return records.codes.reshape(len(records), length)
    require_memory(
        len(records) * length,
        f"{source}: {len(records):,} rows of {length:,} bases (--config.data.lengths={policy})",
        "fewer or shorter records, or lengths=center_crop",
    )
    return fit_rows(records, length)


def fit_rows(records: Records, length: int) -> Codes:
    """Returns uint8 [records, length]: the middle of longer ones, `UNKNOWN` around shorter ones."""
    fitted = np.full((len(records), length), UNKNOWN, dtype=np.uint8)
    starts, kept = middles(records, length)
    pad = np.maximum(length - records.lengths, 0) // 2
    places = np.stack([starts, starts + kept, pad, pad + kept], 1)
    for row, (first, last, left, right) in zip(fitted, places.tolist(), strict=True):
        row[left:right] = records.codes[first:last]
    return fitted


def middles(records: Records, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns where in `records.codes` the bases lie that `fit_length` keeps, and how many.

    Args:
      records: of any lengths.
      length: bases of the middle; a shorter record is all kept.

    Returns:
      int64 [records], the first base of each, and int64 [records], the number of bases.
    """
    crop = np.maximum(records.lengths - length, 0) // 2
    return records.offsets[:-1] + crop, np.minimum(records.lengths, length)


def misfits(lengths: NDArray[np.int64], length: int, policy: str) -> NDArray[np.int64]:
    """Returns which records have lengths that `fit_length` does not mend, in order."""
    check_choice("--config.data.lengths", policy, LENGTH_POLICIES)
    legal = {"error": lengths == length, "center_crop": lengths >= length, "pad": lengths <= length}
    return np.flatnonzero(~legal[policy])


def misfit_error(
    names: Sequence[str],
    lengths: NDArray[np.int64],
    length: int,
    policy: str,
    source: str,
    width: int = 1,
    named: bool = True,
) -> UserError:
    """Returns what to raise where there are misfits; arguments as those of `fit_length`.

    `names` are those of the first misfits, and `lengths` are of all records of the source: of a
    part of them, what is said to be legal might not be. `named` says whether the user named the
    length: if not, another policy takes another one.
    """
    wrong = lengths[misfits(lengths, length, policy)]
    return UserError(
        f"{source}: {_first(names, wrong)} not {length} bases long, and "
        f"--config.data.lengths={policy} does not change their length; "
        + _remedy(wrong, length, policy, int(lengths.min()) >= width, named)
    )


def check_minimum(records: Records, width: int, source: str) -> None:
    """Refuses sequences that are shorter than the model's filters.

    Args:
      records: what was read.
      width: bases that a filter spans.
      source: the file, for the sentence.

    Raises:
      UserError: a record is too short; the first ones are named.
    """
    short = np.flatnonzero(records.lengths < width)
    if short.size:
        shown = _first(_named(records.ids, short), records.lengths[short])
        raise UserError(
            f"{source}: {shown} shorter than a filter; "
            f"legal: {width} bases (--config.model.width) or more"
        )


def check_choice(flag: str, value: str, options: Sequence[str]) -> None:
    """Raises UserError where `value` is none of `options`."""
    if value not in options:
        raise UserError(f"{flag}={value} is not legal; {nearest(value, options)}")


def _named(ids: Sequence[str], wrong: NDArray[np.int64]) -> list[str]:
    return [ids[i] for i in wrong[:SHOWN]]


def _first(names: Sequence[str], lengths: NDArray[np.int64]) -> str:
    shown = [f"'{name}' ({bases})" for name, bases in zip(names, lengths, strict=False)][:SHOWN]
    rest = lengths.size - len(shown)
    more = f" and {rest} more" if rest else ""
    return f"{'record' if lengths.size == 1 else 'records'} {', '.join(shown)}{more} " + (
        "is" if lengths.size == 1 else "are"
    )


def _remedy(
    lengths: NDArray[np.int64], length: int, policy: str, croppable: bool, named: bool
) -> str:
    """Says what is legal; cropping is, unless a filter does not fit into the shortest record."""
    if policy == "center_crop":
        shorter = f"--config.data.length={lengths.min()} or less, or " if croppable else ""
        return f"legal: {shorter}lengths=pad"
    if policy == "pad":
        crop = ", or lengths=center_crop" if croppable else ""
        return f"legal: --config.data.length={lengths.max()} or more{crop}"
    fits = {
        "center_crop": croppable and (not named or (lengths > length).any()),
        "pad": not named or not croppable or (lengths < length).any(),
    }
    return f"legal: lengths={' or '.join(way for way, it_does in fits.items() if it_does)}"
