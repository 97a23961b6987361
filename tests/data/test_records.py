"""Records of one common length, and the sentences where they cannot have it."""

import numpy as np
import pytest

from jaxdna.data.records import check_minimum, fit_length, join
from jaxdna.data.sequences import decode, encode
from jaxdna.errors import UserError


def records(*letters):
    return join([f"r{i}" for i in range(len(letters))], [encode(text) for text in letters])


def test_joined_records_are_what_went_in():
    joined = records("ACG", "", "T")
    assert [decode(joined[i]) for i in range(3)] == ["ACG", "", "T"]
    assert joined.lengths.tolist() == [3, 0, 1]
    assert len(join([], [])) == 0


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        # One N more on the right, and one base less on the left, where the number is odd.
        (("pad", 5), ["NACGN", "ACGTN", "NNTNN"]),
        (("pad", 4), ["ACGN", "ACGT", "NTNN"]),
        (("center_crop", 1), ["C", "C", "T"]),
    ],
)
def test_policies_keep_the_middle(policy, expected):
    name, length = policy
    given = records("ACG", "ACGT", "T")
    assert [decode(row) for row in fit_length(given, length, name, "x")] == expected


def test_offenders_are_named():
    with pytest.raises(UserError) as caught:
        fit_length(records("ACG", "AC", "ACGTT"), 3, "error", "x.fa")
    assert str(caught.value) == (
        "x.fa: records 'r1' (2), 'r2' (5) are not 3 bases long, and --config.data.lengths=error "
        "does not change their length; legal: lengths=center_crop or pad"
    )
    with pytest.raises(UserError, match="record 'r1' \\(2\\) is shorter than a filter; legal: 3"):
        check_minimum(records("ACG", "AC"), 3, "x.fa")
    check_minimum(records("ACG"), 3, "x.fa")
    with pytest.raises(UserError, match="did you mean 'center_crop'"):
        fit_length(records("A"), 1, "centre_crop", "x")


@pytest.mark.parametrize("policy", ["error", "center_crop", "pad"])
def test_cropping_is_not_proposed_where_a_filter_would_not_fit(policy):
    given = records("ACGTAC", "AC", "ACGTACGT")
    for width, proposed in ((2, True), (3, False)):
        with pytest.raises(UserError) as caught:
            fit_length(given, 6, policy, "x.fa", width)
        legal = str(caught.value).partition("legal:")[2]
        crops = "center_crop" in legal or "data.length=2" in legal
        assert (crops, bool(legal)) == (proposed, True)


def test_equal_lengths_are_not_copied():
    given = records("ACG", "TTT")
    assert np.shares_memory(fit_length(given, 3, "error", "x"), given.codes)
