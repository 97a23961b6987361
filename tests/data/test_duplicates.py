"""Equal sequences are found on both strands, in any splits, and nothing else is."""

import numpy as np

from jaxdna.data import duplicates
from jaxdna.data.duplicates import (
    Duplicates,
    find_duplicates,
    same_sequences,
    sequence_keys,
)
from jaxdna.data.records import join
from jaxdna.data.sequences import encode, reverse_complement


def records(*letters):
    return join([f"r{i}" for i in range(len(letters))], [encode(text) for text in letters])


def test_keys_agree_for_both_strands_and_only_for_them():
    rng = np.random.default_rng(0)
    codes = np.unique(rng.integers(0, 4, (4_000, 6)).astype(np.uint8), axis=0)
    flipped = reverse_complement(codes)
    keys = sequence_keys(join([""] * len(codes), list(codes)))
    np.testing.assert_array_equal(keys, sequence_keys(join([""] * len(codes), list(flipped))))
    smaller = np.array([min(a.tobytes(), b.tobytes()) for a, b in zip(codes, flipped, strict=True)])
    assert np.unique(keys).size == np.unique(smaller).size


def test_lengths_and_unknown_bases_count():
    keys = sequence_keys(records("A", "AA", "AAA", "AAN", "NAA", "TTT", "NTT"))
    assert keys[2] == keys[5]
    assert keys[4] == sequence_keys(records("TTN"))[0]
    assert keys[3] == keys[6]
    assert np.unique(keys).size == 5


def test_keys_are_the_same_in_pieces_of_any_size(monkeypatch):
    rng = np.random.default_rng(3)
    one = rng.integers(0, 6, 257).astype(np.uint8)
    given = join(["a", "b", "c"], [one, one[:-1], reverse_complement(one)])
    whole = sequence_keys(given)
    monkeypatch.setattr(duplicates, "_CHUNK_BASES", 10)
    keys = sequence_keys(given)
    assert whole[0] == whole[2] != whole[1]
    assert keys[0] == keys[2] != keys[1]


def test_records_are_the_same_by_one_key_or_another():
    a, b = np.array([1, 2, 1, 4, 5], np.uint64), np.array([7, 7, 8, 9, 6], np.uint64)
    assert same_sequences([a]).tolist() == [0, 1, 0, 2, 3]
    assert same_sequences([a, b]).tolist() == [0, 0, 0, 1, 2]
    assert same_sequences([a[:0]]).size == 0


def test_leaks_and_conflicts_are_counted():
    given = records("ACGGT", "TTTTT", "ACCGT", "AAAAA", "GGGGG", "GGGGG", "CATCA")
    found = find_duplicates(
        sequence_keys(given), np.array([0, 0, 1, 0, 2, 2, 1]), np.array([1, 0, 1, 1, 0, 0, 1])
    )
    # r0 and r2 are reverse complements in two splits; r1 and r3 in one split have two classes.
    assert (found.repeated, found.across, found.conflicting) == (3, 2, 2)
    assert sorted(found.examples) == [(0, 2), (1, 3)]
    notes = found.notes(list(given.ids))
    assert "2 sequences, or their reverse complements, are in two splits" in notes[0]
    assert "another class" in notes[1]


def test_nothing_is_found_where_nothing_is():
    given = records("ACGGT", "TTTTT")
    found = find_duplicates(sequence_keys(given), np.array([0, 1]), np.array([0, 1]))
    assert found == Duplicates(0, 0, 0, ())
    assert found.notes(["a", "b"]) == []


def test_any_number_of_keys_joins_records():
    keys = np.array([0, 1, 1])
    assert same_sequences([keys] * 50).tolist() == [0, 1, 1]
