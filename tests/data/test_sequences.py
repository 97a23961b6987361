import numpy as np
import pytest

from jaxdna.data.sequences import decode, encode, one_hot, reverse_complement
from jaxdna.errors import UserError


def test_letters_become_codes_and_come_back():
    assert encode("ACGTacgtUu").tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 3, 3]
    codes = np.random.default_rng(0).integers(0, 4, 999, dtype=np.uint8)
    assert encode(decode(codes)).tolist() == codes.tolist()


@pytest.mark.parametrize(("policy", "row"), [("zero", [0.0] * 4), ("uniform", [0.25] * 4)])
def test_ambiguous_letters_follow_the_policy(policy, row):
    codes = encode("ARYNnG", ambiguous=policy)
    assert one_hot(codes)[1:5].tolist() == [row] * 4
    assert decode(codes) == "ANNNNG"


@pytest.mark.parametrize(
    ("letters", "policy"),
    [("ACNT", "error"), ("AC*T", "zero"), ("AC-T", "uniform"), ("ACET", "zero")],
)
def test_a_letter_that_is_no_base_is_named_with_its_offset(letters, policy):
    with pytest.raises(
        UserError, match=rf"'{'[*]' if letters[2] == '*' else letters[2]}' at offset 2"
    ):
        encode(letters, ambiguous=policy)


def test_reverse_complement_is_the_other_strand():
    assert decode(reverse_complement(encode("AACGTTN"))) == "NAACGTT"
    batch = np.random.default_rng(1).integers(0, 6, (3, 50), dtype=np.uint8)
    assert (reverse_complement(reverse_complement(batch)) == batch).all()
