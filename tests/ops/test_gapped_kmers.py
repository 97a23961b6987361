"""Gapped k-mers against counting them one by one."""

import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdna.ops.gapped_kmers import SCALE, _products, gap_patterns, kmer_scores
from jaxdna.ops.one_hot import one_hot

RNG = np.random.default_rng(0)
LETTERS, SPAN = 5, 8
ROUNDING = 5e-7 * SCALE


def counted(codes, table, patterns):
    """Looks up each word of each window in float64; a word with an unknown letter is none."""
    windows = codes.shape[1] - SPAN + 1
    scores = np.zeros((len(codes), table.shape[2]))
    for row, sequence in enumerate(codes.tolist()):
        counts = [Counter() for _ in patterns]
        for start, (number, pattern) in itertools.product(range(windows), enumerate(patterns)):
            letters = [sequence[start + place] for place in pattern]
            if max(letters) < 4:
                word = int("".join(map(str, letters)), 4)
                scores[row] += table[number, word]
                counts[number][word] += 1
        squares = [sum(n * n for n in counts[i].values()) for i in range(0, len(patterns), 2)]
        scores[row] /= np.sqrt(sum(squares) * len(patterns) / len(squares))
    return SCALE * scores


@pytest.fixture(scope="module")
def case():
    patterns = gap_patterns(SPAN, LETTERS, 7)
    table = RNG.normal(size=(len(patterns), 4**LETTERS, 2)).astype(np.float32)
    codes = RNG.integers(0, 4, (3, 30), dtype=np.uint8)
    codes[0, 9], codes[1, 20] = 4, 5
    codes[2, 12:] = codes[2, :18]
    return codes, table, patterns


def test_patterns_are_distinct_words_wherever_they_are_read():
    patterns = gap_patterns(10, 6, 24)
    assert len(set(patterns)) == 24
    assert all(p[0] == 0 and list(p) == sorted(set(p)) and len(p) == 6 for p in patterns)
    assert {p[-1] for p in patterns} == {5, 6, 7, 8, 9}
    assert len(gap_patterns(6, 4, 100)) == 10
    assert gap_patterns(4, 4, 9) == [(0, 1, 2, 3)]
    assert gap_patterns(3, 2, 9) == [(0, 1), (0, 2)]


@pytest.mark.parametrize("form", ["codes", "one_hot"])
def test_scores_are_what_counting_gives(case, form):
    codes, table, patterns = case
    x = jnp.asarray(codes) if form == "codes" else one_hot(jnp.asarray(codes))
    found = kmer_scores(x, jnp.asarray(table), patterns)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, counted(codes, table, patterns), rtol=0, atol=ROUNDING)


def test_a_loop_over_the_patterns_has_the_same_scores(case):
    codes, table, patterns = case
    x = one_hot(jnp.asarray(codes))
    windows = codes.shape[1] - SPAN + 1
    both = [_products(x, jnp.asarray(table), patterns, windows, loop) for loop in (True, False)]
    for found, wanted in zip(*both, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_both_forms_have_the_gradient_of_the_counts(case):
    codes, table, patterns = case
    direction = RNG.normal(size=table.shape)
    wanted = counted(codes, direction, patterns).sum()  # a score is linear in the table
    for x in (jnp.asarray(codes), one_hot(jnp.asarray(codes))):
        slope = jax.grad(lambda t, x=x: kmer_scores(x, t, patterns).sum())(jnp.asarray(table))
        assert abs((np.float64(slope) * direction).sum() - wanted) < ROUNDING


def test_bfloat16_words_add_up_in_float32(case):
    codes, table, patterns = case
    coarse = jnp.asarray(table, jnp.bfloat16)
    exact = counted(codes, np.asarray(coarse, np.float64), patterns)
    for x in (jnp.asarray(codes), one_hot(jnp.asarray(codes), jnp.bfloat16)):
        np.testing.assert_allclose(kmer_scores(x, coarse, patterns), exact, rtol=0, atol=ROUNDING)
