"""The launch scripts, as far as they can be checked without the hardware that they are for."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from jaxdna.config import load_config
from jaxdna.storage.places import place_of

REPOSITORY = Path(__file__).parent.parent.parent
SCRIPTS = sorted(
    path
    for path in [*(REPOSITORY / "tools").rglob("*"), REPOSITORY / ".ci" / "run"]
    if path.is_file() and path.read_bytes().startswith(b"#!/usr/bin/env bash")
)


def test_shellcheck_finds_nothing_and_every_script_is_a_command():
    assert {"tpu.sh", "two_tpu_slices.sh", "gpu_host.sh", "slurm.sbatch"} <= {
        path.name for path in SCRIPTS
    }
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.defpath}")
    done = subprocess.run([shellcheck, *SCRIPTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(os.access(path, os.X_OK) for path in SCRIPTS)


@pytest.mark.parametrize("name", ["tpu.sh", "two_tpu_slices.sh", "gpu_host.sh", "slurm.sbatch"])
def test_every_launch_script_states_its_ports_and_what_it_wants(name):
    script = REPOSITORY / "tools" / "launch" / name
    text = script.read_text()
    assert "port" in text and ("firewall" in text or "Let all three pass" in text)
    variables = {"PATH": os.environ["PATH"], "TPU": "t", "QUEUED": "q", "ZONE": "z"}
    done = subprocess.run([script], env=variables, capture_output=True, text=True)
    assert done.returncode == 2 and "usage" in done.stderr


def recorder(folder: Path, name: str, output: str = "") -> Path:
    """Stands for a command that only its own machines have: writes down what it is called with."""
    command = folder / name
    command.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>{folder}/{name}.calls\n{output}\n')
    command.chmod(0o755)
    return folder / f"{name}.calls"


@pytest.mark.parametrize("allowed", [True, False])
def test_ci_of_a_user_who_may_not_be_root_is_green_without_what_needs_root(tmp_path, allowed):
    script = REPOSITORY / ".ci" / "run"
    if not script.is_file():
        pytest.skip("an sdist is without .ci")
    recorder(tmp_path, "id", "echo 1000")
    for name in ("make", "chromium", "slurmctld"):
        recorder(tmp_path, name)
    calls = recorder(tmp_path, "sudo", "" if allowed else "echo a password is required >&2; exit 1")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([script], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("pytest" in calls.read_text()) == allowed
    assert ("tests that need root are not run" in done.stdout) != allowed


@pytest.mark.parametrize(
    ("script", "target"),
    [("tpu.sh", ["tpu-vm", "ssh", "t"]), ("two_tpu_slices.sh", ["queued-resources", "ssh", "q"])],
)
def test_cloud_scripts_bring_the_command_to_every_host_word_by_word(tmp_path, script, target):
    calls, wheel = recorder(tmp_path, "gcloud"), tmp_path / "jaxdna-9-py3-none-any.whl"
    command, words = [REPOSITORY / "tools" / "launch" / script], {"WHEEL": str(wheel)}
    flags = ["train", "--config=tal1", "--workdir=/disk/my run", "--config.data.motif=$(reboot)"]
    words |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TPU": "t", "QUEUED": "q", "ZONE": "z"}
    done = subprocess.run([*command, *flags], env=words, capture_output=True, text=True)
    assert done.returncode == 2 and f"WHEEL={wheel} is not a file" in done.stderr
    wheel.touch()
    done = subprocess.run([*command, *flags], env=words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = calls.read_text().splitlines()
    assert lines[2:6] == [target[0], "scp", str(wheel), f"{target[2]}:"]
    assert lines[lines.index("ssh") - 1 :][:3] == target and lines.count("--worker=all") == 3
    assert f"./{wheel.name}\\[tpu\\,gcs\\]" in calls.read_text()
    last = calls.read_text().partition("--command=exec ")[2]
    echoed = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {last.partition('jaxdna ')[2]}"],
        capture_output=True,
        text=True,
    )
    words = echoed.stdout.splitlines()
    assert words == [*flags, "--config.runtime.require_accelerator=true"]


def test_the_gpu_script_starts_one_process_or_one_for_each(tmp_path):
    recorder(tmp_path, "nvidia-smi", output="printf 'GPU 0\\nGPU 1\\nGPU 2\\n'")
    calls = recorder(tmp_path, "jaxdna")
    script = REPOSITORY / "tools" / "launch" / "gpu_host.sh"
    for each in ("0", "1"):
        variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "EACH": each}
        subprocess.run([script, "train", "--config=tal1"], env=variables, check=True)
    words = calls.read_text().split()
    one, many = words[:3], words[3:]
    assert one == ["train", "--config=tal1", "--config.runtime.require_accelerator=true"]
    assert many[:4] == ["launch", "--processes=3", "--one-gpu-each", "--max-restarts=3"]


def test_the_processes_of_a_launch_see_one_gpu_each(jaxdna, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    flags = ["--processes=2", "--one-gpu-each", f"--logs={tmp_path}"]
    done = jaxdna("launch", *flags, "--", "doctor", "--json")
    assert done.returncode == 0, done.stderr
    for process, gpu in enumerate("35"):
        log = (tmp_path / f"process-{process}.log").read_text()
        seen = json.loads(next(line for line in log.splitlines() if line.startswith("{")))
        assert seen["environment"]["CUDA_VISIBLE_DEVICES"] == gpu
        assert seen["processes"] == 2
    done = jaxdna("launch", "--processes=3", "--one-gpu-each", "--", "doctor")
    assert done.returncode == 2 and "CUDA_VISIBLE_DEVICES=3,5 names 2" in done.stderr


def test_the_gke_manifest_is_what_kubernetes_and_jobset_accept_and_fits_together():
    manifest = yaml.safe_load((REPOSITORY / "tools" / "launch" / "gke_jobset.yaml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    spec = manifest["spec"]
    assert set(spec) == {"failurePolicy", "replicatedJobs"}
    assert {rule["action"] for rule in spec["failurePolicy"]["rules"]} == {"FailJobSet"}
    (job,) = spec["replicatedJobs"]
    assert set(job) == {"name", "replicas", "template"}
    # A replicated job's template is a Job's, whose schema Kubernetes publishes.
    whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "slice"}}
    kubernetes_validate.validate(whole | job["template"], "1.31", strict=True)
    pod = job["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert job["template"]["spec"]["parallelism"] * chips == rows * columns
    assert {port["containerPort"] for port in container["ports"]} >= {8471, 8482}
    program, verb, *flags = container["command"]
    assert (program, verb) == ("jaxdna", "train")
    config = next(flag for flag in flags if flag.startswith("--config="))
    overrides = [f.removeprefix("--config.") for f in flags if f.startswith("--config.")]
    loaded = load_config(config.removeprefix("--config="), overrides)
    assert loaded.mesh.dcn.data == job["replicas"]
    workdir = next(flag for flag in flags if flag.startswith("--workdir="))
    assert place_of(workdir.removeprefix("--workdir=")).parts[0] == "gs:"  # nothing is mounted
    text = (REPOSITORY / "tools" / "launch" / "gke_jobset.yaml").read_text()
    assert "jaxdna[tpu,gcs]" in text
