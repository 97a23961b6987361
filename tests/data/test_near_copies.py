"""Near-copies are found on both strands, as a count of k-mers says, and nothing else is."""

from collections import Counter

import numpy as np
import pytest

from jaxdna.data.near_copies import kmer_length, near_copies
from jaxdna.data.sequences import decode, reverse_complement


def shared(one, other, k):
    """The k-mers in common and their share, counted as text."""

    def kmers(text):
        turned = text.translate(str.maketrans("ACGT", "TGCA"))[::-1]
        windows = range(len(text) - k + 1)
        both = ((text[i : i + k], turned[len(text) - k - i :][:k]) for i in windows)
        return Counter(min(pair) for pair in both if "N" not in pair[0])

    a, b = kmers(one), kmers(other)
    return (a & b).total(), (a & b).total() / max(1, min(a.total(), b.total()))


def test_two_sequences_are_alike_from_the_share_of_kmers_on():
    rng = np.random.default_rng(0)
    for trial in range(60):
        one = rng.integers(0, 4, rng.integers(60, 120)).astype(np.uint8)
        changed = rng.random(one.size) < rng.uniform(0, 0.15)
        other = np.where(changed, rng.integers(0, 5, one.size), one).astype(np.uint8)
        other = (other, reverse_complement(other), other[10:], np.tile(other, 2)[:120])[trial % 4]
        codes = np.full((2, 120), 4, np.uint8)
        codes[0, : one.size], codes[1, 120 - other.size :] = one, other
        common, share = shared(decode(one), decode(other), kmer_length(120))
        for similarity in (share - 1e-9, share + 1e-9):
            # With less in common a sketch may have nothing in common, and chance as much.
            if 0.2 < similarity <= 1 and common > 12:
                families = near_copies(codes, similarity)
                assert (families[0] == families[1]) == (share >= similarity), trial


@pytest.mark.parametrize("length", [60, 200, 500])
def test_sixty_families_of_five_are_found_whole(length):
    rng = np.random.default_rng(length)
    parents = rng.integers(0, 4, (60, length)).astype(np.uint8)
    copies = np.tile(parents, (5, 1))
    codes = np.where(rng.random(copies.shape) < 0.04, rng.integers(0, 4, copies.shape), copies)
    codes[::2] = 3 - codes[::2, ::-1]
    np.testing.assert_array_equal(near_copies(codes.astype(np.uint8), 0.25), np.arange(300) % 60)


@pytest.mark.parametrize("length", [30, 200])
@pytest.mark.parametrize("weights", [(0.25,) * 4, (0.1, 0.4, 0.4, 0.1)])
def test_random_sequences_have_no_family(weights, length):
    codes = np.random.default_rng(1).choice(4, (20_000, length), p=weights).astype(np.uint8)
    np.testing.assert_array_equal(near_copies(codes, 0.25), np.arange(20_000))


def test_one_kmer_of_few_in_common_makes_no_family():
    rng = np.random.default_rng(3)
    codes = rng.choice(5, (2_000, 40), p=[0.22] * 4 + [0.12]).astype(np.uint8)
    np.testing.assert_array_equal(near_copies(codes, 0.25), np.arange(2_000))


def test_a_common_run_of_one_letter_makes_no_family():
    codes = np.random.default_rng(2).integers(0, 4, (2_000, 200)).astype(np.uint8)
    codes[:, 90:125] = 0
    assert np.bincount(near_copies(codes, 0.25)).max() < 5


@pytest.mark.parametrize("codes", [np.full((3, 100), 4), np.zeros((3, 4)), np.zeros((0, 50))])
def test_what_has_no_kmer_has_no_family(codes):
    assert near_copies(codes.astype(np.uint8), 0.25).tolist() == list(range(len(codes)))
