"""Dinucleotide shuffles: exact counts, every valid order equally likely."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from jaxdna.data import shuffle
from jaxdna.data.records import Records, join
from jaxdna.data.sequences import decode, encode
from jaxdna.data.shuffle import _trees, dinucleotide_shuffle, shuffle_records


def dinucleotides(codes):
    kind = codes[:, :-1].astype(int) * 6 + codes[:, 1:]
    return np.stack([np.bincount(row, minlength=36) for row in kind])


@pytest.mark.parametrize(("letters", "length"), [(4, 500), (6, 120), (5, 50), (2, 30), (1, 9)])
def test_counts_and_ends_are_kept_exactly(letters, length):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, letters, (300, length)).astype(np.uint8)
    shuffled = dinucleotide_shuffle(codes, rng)
    np.testing.assert_array_equal(dinucleotides(shuffled), dinucleotides(codes))
    np.testing.assert_array_equal(shuffled[:, [0, -1]], codes[:, [0, -1]])
    if letters > 2:
        assert (shuffled != codes).any(axis=1).all()


@settings(max_examples=200, deadline=None)
@given(st.text("ACGTN", min_size=0, max_size=40), st.integers(0, 2**32 - 1))
def test_counts_are_kept_for_any_text(letters, seed):
    codes = encode(letters)[None]
    shuffled = dinucleotide_shuffle(codes, np.random.default_rng(seed))
    assert shuffled.shape == codes.shape
    np.testing.assert_array_equal(dinucleotides(shuffled), dinucleotides(codes))


@pytest.mark.parametrize(
    "letters", ["ACAGACTGAC", "AACGAACTAAG", "AAAACAAAAG", "ACNNACGNAC", "GATTACAGAT"]
)
def test_every_valid_shuffle_is_equally_likely(letters):
    given_pairs = dinucleotides(encode(letters)[None])
    orders = {
        text
        for middle in set(permutations(letters[1:-1]))
        if (text := letters[0] + "".join(middle) + letters[-1])
        and (dinucleotides(encode(text)[None]) == given_pairs).all()
    }
    draws = 400 * len(orders)
    codes = np.repeat(encode(letters)[None], draws, axis=0)
    shuffled = dinucleotide_shuffle(codes, np.random.default_rng(1))
    found, counts = np.unique(shuffled, axis=0, return_counts=True)
    assert {decode(row) for row in found} == orders
    expected = draws / len(orders)
    statistic = ((counts - expected) ** 2 / expected).sum()
    # Seeded, so this passes or fails for good.
    assert chi2.sf(statistic, len(orders) - 1) > 1e-3


def test_a_rare_exit_is_found_without_a_retry():
    codes = encode("A" * 5000 + "C" + "G")[None]
    shuffled = dinucleotide_shuffle(codes, np.random.default_rng(0))
    np.testing.assert_array_equal(shuffled, codes)  # there is no other order


@pytest.mark.parametrize("letters", [2, 4, 6])
def test_number_of_trees_is_cayleys(letters):
    for root in range(letters):
        trees = _trees(letters, root)
        assert len(trees) == letters ** (letters - 2)
        assert len(np.unique(trees, axis=0)) == len(trees)


def test_seed_decides():
    codes = np.random.default_rng(0).integers(0, 4, (20, 60)).astype(np.uint8)
    one, same, other = (dinucleotide_shuffle(codes, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_records_of_any_lengths_keep_theirs():
    letters = ["ACGTACGGTACCA", "", "A", "ACGTNNACG", "GGGACGTACCCTA"]
    records = join(list("abcde"), [encode(text) for text in letters])
    codes = np.full_like(records.codes, 255)
    shuffle_records(records, np.random.default_rng(0), codes)
    shuffled = Records(records.ids, codes, records.offsets)
    for i in range(len(letters)):
        pairs = [dinucleotides(given[i][None]) for given in (records, shuffled)]
        np.testing.assert_array_equal(*pairs)


@pytest.mark.parametrize("rows", [1, 7, 8192])
def test_records_of_one_length_are_shuffled_as_an_array_is(rows, monkeypatch):
    monkeypatch.setattr(shuffle, "_CHUNK_ROWS", rows)
    codes = np.random.default_rng(0).integers(0, 4, (20, 60)).astype(np.uint8)
    shuffled = np.empty_like(codes)
    given = Records([""] * 20, codes.reshape(-1), np.arange(21) * 60)
    shuffle_records(given, np.random.default_rng(1), shuffled.reshape(-1))
    np.testing.assert_array_equal(shuffled, dinucleotide_shuffle(codes, np.random.default_rng(1)))
