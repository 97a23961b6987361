"""Row 1 of the table of faults, at random moments; docs/reliability.md has the long campaign."""

import pytest

from tools.fault_campaign import campaign


@pytest.mark.parametrize(("processes", "faults"), [(1, 8), (2, 2)])
def test_fault_01_a_campaign_of_random_faults_loses_nothing(tmp_path, processes, faults):
    report = campaign(faults, processes, seed=processes, folder=tmp_path)
    assert report.faults.total() >= faults
    assert report.starts > report.runs
    assert report.losses == []
