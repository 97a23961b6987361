"""Rows 1 and 25 to 32 of the table of faults, at random moments; the long one is in docs/."""

import pytest

from tools.fault_campaign import campaign
from tools.fault_kinds import KINDS


# The seeds hurt one run in several ways; of two processes one is stopped, then one is killed.
@pytest.mark.parametrize(
    ("processes", "faults", "seed", "kinds"),
    [
        (1, 5, 136, sorted(KINDS.keys() - {"stopped lock holder"})),
        (2, 2, 51, ["kill", "stop"]),
    ],
)
def test_fault_01_a_campaign_of_random_faults_loses_nothing(
    tmp_path, processes, faults, seed, kinds
):
    report = campaign(faults, processes, seed, tmp_path, kinds)
    assert report.faults.total() >= faults
    assert report.starts > report.runs
    assert report.losses == []
