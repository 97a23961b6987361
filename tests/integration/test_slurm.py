"""The job script in a real SLURM of this one machine: two tasks, a preemption, the resumption."""

import json
import subprocess

import pytest

from tests.integration.launch_support import REPOSITORY, SHORT, environment

pytestmark = pytest.mark.launch

_CANNOT = 69  # tools/one_machine_slurm.sh: SLURM cannot be started here

# The folder, then the flags. SLURM puts a requeued job off for two minutes: hence StartTime=now.
_SCRIPT = """
cd "$1"; shift
job=$(sbatch --parsable --nodes=1 --ntasks-per-node=2 --gpus-per-node=0 --output=out.txt \
  "$REPOSITORY/tools/launch/slurm.sbatch" train "$@" --workdir=run)
until_out() { for _ in {1..600}; do grep -q "$1" out.txt 2>/dev/null && return; sleep 0.1; done; }
until_state() {
  for _ in {1..600}; do [[ $(squeue --noheader --format=%T) = "$1" ]] && return; sleep 0.1; done
}
until_out "^epoch 3/"
scancel --signal=TERM --batch "$job"
until_state PENDING
echo "requeued: $(squeue --noheader --format=%T)"
# Not before the node has done with the first start: SLURM would fail the second at once.
for _ in {1..600}; do [[ $(sinfo --noheader --format=%t) = idle ]] && break; sleep 0.1; done
sleep 2
scontrol update jobid="$job" StartTime=now
until_state ""
scontrol show job "$job" | grep -o "JobState=[A-Z]*\\|Restarts=[0-9]*\\|ExitCode=.*"
"""


def test_slurm_s_tasks_find_each_other_and_a_preempted_job_is_requeued_and_resumes(tmp_path):
    tool = REPOSITORY / "tools" / "one_machine_slurm.sh"
    flags = [*SHORT, "--config.train.epochs=24"]
    done = subprocess.run(
        [tool, "bash", "-c", _SCRIPT, "job", tmp_path, *flags],
        env={**environment(tmp_path), "REPOSITORY": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode == _CANNOT:
        pytest.skip(f"SLURM cannot be started here: {done.stderr.strip().splitlines()[-1]}")
    output = (tmp_path / "out.txt").read_text(errors="replace")
    assert done.stdout.split("\n")[:3] == [
        "requeued: PENDING",
        "JobState=COMPLETED",
        "Restarts=1",
    ], done.stdout
    for task in (0, 1):
        assert f"SLURM (SLURM_STEP_NUM_TASKS=2): process {task} of 2" in output
    assert "stopped by SIGTERM to one of the processes" in output
    assert "resuming after epoch" in output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["processes"], summary["devices"], summary["epochs"]) == (2, 2, 24)
