"""Rows 1 and 25 to 32 of the table of faults, at random moments; the long one is in docs/."""

from tools.fault_campaign import campaign
from tools.fault_kinds import KINDS


def test_fault_01_a_campaign_of_random_faults_loses_nothing(tmp_path):
    """The seed hurts one run in several ways; test_processes.py hurts pairs of processes."""
    report = campaign(5, 1, 136, tmp_path, sorted(KINDS.keys() - {"stopped lock holder"}))
    assert report.faults.total() >= 5
    assert report.starts > report.runs
    assert report.losses == []
