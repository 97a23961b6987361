"""`runtime.profile`: a trace that XProf reads, and a run that is the same with it."""

import json

import jax
import pytest

from jaxdna.config import load_config
from jaxdna.data.registry import spec_of
from jaxdna.parallel.machines import MACHINES, Machine
from jaxdna.runs.profile import Profiler
from jaxdna.runs.speed import NO_SPEED, speed_of
from jaxdna.storage.files import folder_at
from jaxdna.study.plan import program_on

SMALL = [
    "--config=tal1", "--config.data.length=100", "--config.data.train_examples=640",
    "--config.data.validation_examples=64", "--config.data.test_examples=64",
    "--config.train.epochs=3", "--config.train.steps_per_call=5",
]  # fmt: skip


def program(*overrides):
    config = load_config("tal1", ["data.length=100", "data.train_examples=640", *overrides])
    return program_on(config, spec_of(config), jax.devices()[:1])


def test_a_trace_holds_the_calls_with_the_steps_and_changes_no_bit(jaxdna, tmp_path):
    summaries = []
    for name, flags in (("plain", []), ("traced", ["--config.runtime.profile=26:32"])):
        done = jaxdna("train", *SMALL, *flags, f"--workdir={tmp_path / name}", "--json")
        assert done.returncode == 0, done.stderr
        summaries.append(json.loads(done.stdout.splitlines()[-1]))
    assert summaries[0]["params_sha256"] == summaries[1]["params_sha256"]
    board = tmp_path / "traced" / "tensorboard"
    assert (
        f"steps 25 to 34 are traced; to look: pip install xprof, then xprof --logdir={board}"
        in (" ".join(done.stderr.split()))
    )
    (trace,) = (board / "plugins/profile/steps-25-34").glob("*.xplane.pb")
    events = [
        event
        for plane in jax.profiler.ProfileData.from_file(str(trace)).planes
        for line in plane.lines
        for event in line.events
    ]
    steps = [dict(event.stats)["step_num"] for event in events if event.name == "train"]
    assert sorted(steps) == [25, 30]
    assert any("fusion" in event.name for event in events)  # what the device did
    again = jaxdna("train", *SMALL, "--config.runtime.profile=1:2", f"--workdir={tmp_path / name}")
    assert again.returncode == 0 and "finished run" in again.stderr


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("5", "it must be START:STOP, two whole numbers of which the first is smaller"),
        ("9:9", "it must be START:STOP"),
        ("-1:3", "it must be START:STOP"),
        ("50:61", "profile=50:61 goes beyond the last step; legal: STOP up to 60"),
    ],
)
def test_steps_that_there_are_none_of_are_one_sentence_and_nothing_is_written(
    jaxdna, tmp_path, flag, words
):
    folder = tmp_path / "run"
    done = jaxdna("train", *SMALL, f"--config.runtime.profile={flag}", f"--workdir={folder}")
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())
    assert not folder.exists()


def test_the_workers_of_a_parameter_server_cannot_be_traced(jaxdna, tmp_path):
    done = jaxdna(
        "train", *SMALL, "--config.strategy=parameter_server", "--config.runtime.profile=0:1",
        f"--workdir={tmp_path / 'run'}",
    )  # fmt: skip
    assert done.returncode == 2 and "cannot trace strategy=parameter_server" in done.stderr


def test_a_trace_that_fails_is_said_and_the_run_goes_on(monkeypatch, tmp_path):
    def broken(folder):
        raise RuntimeError("no profiler here")

    monkeypatch.setattr(jax.profiler, "start_trace", broken)
    said = []
    profiler = Profiler(program("runtime.profile=2:4"), folder_at(tmp_path), True, said.append)
    for step in range(5):
        profiler.before(step, 1, jax.numpy.zeros(1))
        profiler.after(step + 1, jax.numpy.zeros(1))
    profiler.close()
    assert said == ["note     the steps cannot be traced (no profiler here)"]
    assert not list(tmp_path.iterdir())


def test_the_share_of_the_peak_is_that_of_all_devices_at_the_precision_of_the_run(monkeypatch):
    sheet = Machine(1e9, 4e9, 1, 1, 1, 1, "this test")
    monkeypatch.setitem(MACHINES, jax.devices()[0].device_kind, sheet)
    example = 3 * (86 * 16 * 2 * 60 + 32)
    float32 = speed_of(program())(1000, 2.0)
    assert float32["samples_per_second"] == 500
    assert float32["flops_per_second"] == 500 * example
    assert float32["mfu"] == pytest.approx(500 * example / 1e9, abs=1e-4)
    bfloat16 = speed_of(program("train.precision=bfloat16"))(1000, 2.0)
    assert bfloat16["mfu"] == pytest.approx(500 * example / 4e9, abs=1e-4)
    assert speed_of(program())(0, 0.0) == NO_SPEED
