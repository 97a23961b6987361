"""Splits and folds: shares, strata, groups, and the sentences where they cannot be made."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdna.data.splits import chromosome_split, fold_split, random_split, require_two_classes
from jaxdna.errors import UserError

SHARES = (0.8, 0.1, 0.1)


def test_a_family_too_large_for_a_small_split_is_trained_on():
    groups = np.concatenate([np.zeros(100, int), np.arange(1, 901)])
    labels = np.concatenate([np.ones(100, int), np.arange(900) % 2])
    for seed in range(3):
        split = random_split(labels, (0.8, 0.1, 0.1), seed, groups)
        assert (split[:100] == 0).all()
        assert np.bincount(split[100:]).tolist() == [720, 90, 90]


def test_folds_are_even_beside_a_family_too_large_for_one():
    groups = np.concatenate([np.zeros(100, int), np.arange(1, 901)])
    labels = np.concatenate([np.ones(100, int), np.arange(900) % 2])
    fold = fold_split(labels, 5, 0, groups)
    assert np.ptp(fold[:100]) == 0
    for one in (0, 1):
        assert np.ptp(np.bincount(fold[labels == one])) <= 1


@pytest.mark.parametrize("positives", [500, 100, 40])
def test_every_split_has_its_share_of_each_class(positives):
    labels = np.zeros(1000, int)
    labels[:positives] = 1
    split = random_split(labels, SHARES, seed=0)
    assert np.bincount(split).tolist() == [800, 100, 100]
    for index, share in enumerate(SHARES):
        # Each stratum is a stretch of an evenly spread pattern: off by less than two records.
        assert abs((labels[split == index] == 1).sum() - share * positives) < 2


@settings(max_examples=100, deadline=None)
@given(st.integers(30, 200), st.integers(30, 200), st.integers(0, 99))
def test_groups_stay_together_and_totals_are_exact(ones, zeros, seed):
    labels = np.repeat([1, 0], [ones, zeros])
    groups = np.arange(ones + zeros)
    groups[ones : ones + min(ones, zeros)] = np.arange(min(ones, zeros))  # a peak and its shuffle
    split = random_split(labels, SHARES, seed, groups)
    fold = fold_split(labels, 5, seed, groups)
    number = np.unique(groups).size
    assert np.bincount(split[np.unique(groups, return_index=True)[1]]).tolist() == [
        round(0.8 * number),
        round(0.9 * number) - round(0.8 * number),
        number - round(0.9 * number),
    ]
    for parts in (split, fold):
        firsts = np.full(groups.max() + 1, -1)
        firsts[groups] = parts
        np.testing.assert_array_equal(parts, firsts[groups])


def test_folds_differ_by_one_record_at_most():
    labels = np.repeat([1, 0], [103, 398])
    fold = fold_split(labels, 5, seed=3)
    for kind in (labels == 1, labels == 0, labels >= 0):
        sizes = np.bincount(fold[kind])
        assert sizes.max() - sizes.min() <= 1


def test_seed_decides():
    labels = np.arange(400) % 2
    one, same, other = (random_split(labels, SHARES, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert (fold_split(labels, 5, 1) != fold_split(labels, 5, 2)).any()


def test_a_split_of_no_share_is_empty():
    split = random_split(np.arange(100) % 2, (0.75, 0.0, 0.25), seed=0)
    assert np.bincount(split).tolist() == [75, 0, 25]


def test_chromosomes_go_where_they_are_named():
    chromosomes = np.array(["chr1", "chr2", "chr3", "chr8"] * 10)
    labels = np.repeat([0, 1], 20)
    split = chromosome_split(chromosomes, labels, ["chr8"], ["chr1", "chr3"])
    for name, index in (("chr1", 2), ("chr2", 0), ("chr3", 2), ("chr8", 1)):
        assert (split[chromosomes == name] == index).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: require_two_classes([1] * 9), ["class 1 only (9 records)", "two classes"]),
        (lambda: require_two_classes([0] * 9), ["class 0 only"]),
        (lambda: require_two_classes([]), ["no record"]),
        (lambda: random_split([0] * 2, SHARES, 0), ["validation gets no record (2 in all"]),
        (lambda: random_split([0, 1] * 9, (0.8, 0.1), 0), ["split fractions [0.8, 0.1]"]),
        (lambda: random_split([0, 1] * 9, (0.8, 0.1, 0.2), 0), ["sum to 1"]),
        (lambda: random_split([0] * 50 + [1], SHARES, 0), ["no record of class 1 (1 in all"]),
        (lambda: fold_split([0] * 50 + [1] * 3, 5, 0), ["no record of class 1 (3 in all"]),
        (lambda: fold_split([0, 1], 1, 0), ["--config.data.folds=1", "2 or more"]),
        (lambda: chromosome_split(["1", "2"], [0, 1], ["chr1"], []), ["chr1", "called 1"]),
        (lambda: chromosome_split(["chrX", "chr2"], [0, 1], [], ["X"]), ["X", "called chrX"]),
        (lambda: chromosome_split(["1", "2"], [0, 1], ["1"], ["1"]), ["both"]),
        (lambda: chromosome_split(["1", "2"], [0, 1], ["1"], []), ["train gets no record"]),
        (lambda: chromosome_split(["1", "2"], [0, 1], ["z"], []), ["names z", "legal: 1, 2"]),
    ],
)
def test_what_cannot_be_split_has_its_sentence(call, words):
    with pytest.raises(UserError) as caught:
        call()
    assert all(word in str(caught.value) for word in words), caught.value
