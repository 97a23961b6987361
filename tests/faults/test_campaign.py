"""Row 1 of the table of faults, at random moments; docs/reliability.md has the long campaign."""

import pytest

from tools.fault_campaign import campaign


# Seed 298 stops one process of two, kills the other one, and has done enough in one run.
@pytest.mark.parametrize(("processes", "faults", "seed"), [(1, 8, 1), (2, 2, 298)])
def test_fault_01_a_campaign_of_random_faults_loses_nothing(tmp_path, processes, faults, seed):
    report = campaign(faults, processes, seed, folder=tmp_path)
    assert report.faults.total() >= faults
    assert report.starts > report.runs
    assert report.losses == []
