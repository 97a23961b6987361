import csv
import io
import json
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import psutil
import pytest

from jaxdna.config import load_config
from jaxdna.errors import UserError
from jaxdna.parallel.gradient_sync import no_sync
from jaxdna.parallel.mesh import make_mesh
from jaxdna.study.scaling import Part, parts_of, rows_of
from jaxdna.study.scaling_report import (
    comma_separated,
    duration,
    markdown,
    report_table,
    sentences,
)
from jaxdna.tasks.kinds import of_classes
from jaxdna.training.program import Program

SMALL = [
    "--config=configs/tal1.py",
    "--config.data.length=60",
    "--config.data.train_examples=512",
    "--config.data.validation_examples=64",
    "--config.data.test_examples=64",
    "--repeats=2",
]


def part(devices, mode="strong"):
    return Part("tal1", load_config("configs/tal1.py", ["train.epochs=10"]), mode, devices)


def answer(steps, alone=None, count=100):
    return {
        "step_seconds": steps, "alone_seconds": alone, "steps": count, "examples": 3200,
        "mesh": {"data": 1}, "kind": "cpu", "simulated": False, "compile_seconds": 1.0,
    }  # fmt: skip


def test_rows_compare_with_the_fewest_devices_of_their_own_mode():
    measured = [
        (part(2), answer([0.4, 0.2, 0.1], [0.3, 0.1, 0.1])),
        (part(8), answer([0.1, 0.1, 0.1], [0.04, 0.05, 0.03])),
        (part(2, "weak"), answer([0.5], [0.5])),
        (part(4, "weak"), answer([0.5], [0.6], count=50)),
    ]
    two, eight, weak_two, weak_four = rows_of(measured, price_per_hour=1.8)
    assert (two.seconds, two.speedup, two.efficiency) == (pytest.approx(20), 1, 1)
    assert two.spread == pytest.approx(0.3 / 2 / 0.2)
    assert two.samples_per_second == pytest.approx(3200 / 20)
    assert two.cost == pytest.approx(1.8 * 2 * 20 / 3600)
    assert two.communication == pytest.approx(0.25)  # of 0.25, 0.5 and 0
    assert eight.speedup == pytest.approx(2)
    assert eight.efficiency == pytest.approx(0.5)
    assert eight.cost == pytest.approx(1.8 * 8 * 10 / 3600)
    assert eight.communication == pytest.approx(0.6)
    assert (weak_two.speedup, weak_four.speedup) == (1, pytest.approx(2))
    assert weak_four.efficiency == pytest.approx(1)
    assert weak_four.communication == 0
    assert rows_of(measured, None)[0].cost is None

    said = sentences([two, eight], cores=2)
    assert len(said) == 1
    assert "8 devices: communication outweighs the work (60% of each step" in said[0]
    slower = rows_of([(part(1), answer([0.1])), (part(2), answer([0.2], [0.19]))], None)
    assert "takes longer than on fewer devices" in sentences(slower, cores=2)[0]


def test_tables_have_the_report_s_shape_and_csv_every_field():
    rows = rows_of([(part(1), answer([2.64])), (part(4), answer([0.547], [0.5]))], None)
    assert report_table(rows) == [
        ["training time", "1 device", "4 devices"],
        ["tal1, strong scaling", "4 min 24 s", "54.7 s"],
    ]
    assert "| tal1, strong scaling | 4 min 24 s | 54.7 s |" in markdown(rows, 2)
    read = list(csv.DictReader(io.StringIO(comma_separated(rows))))
    assert [int(row["devices"]) for row in read] == [1, 4]
    assert float(read[1]["seconds"]) == rows[1].seconds
    assert duration(3725) == "1 h 2 min 5 s"


def test_weak_scaling_keeps_the_batch_of_each_device_and_wrong_batches_are_refused():
    configs = {"tal1": load_config("configs/tal1.py")}
    weak = parts_of(configs, [1, 4], ["weak"])
    assert [one.config.train.batch_size for one in weak] == [32, 128]
    with pytest.raises(UserError, match="batch_size=32 is not divisible by mesh data x fsdp = 3"):
        parts_of(configs, [1, 3], ["strong"])


def test_the_step_without_exchange_exchanges_nothing_and_is_else_the_same():
    config = load_config("configs/tal1.py", ["data.length=60", "optimizer.name=sgd"])

    def text(devices, without):
        program = Program(
            config, make_mesh(config, jax.devices()[:devices]), (60,), of_classes(2), 64
        )
        call = program.call_with(no_sync(program.mesh)) if without else program.train_call
        batches = program.abstract_batches(1)
        return program, call, call.lower(program.abstract_state, batches).compile().as_text()

    assert "all-reduce" in text(4, without=False)[2]
    alone = text(4, without=True)[2]
    assert not any(kind in alone for kind in ("all-reduce", "all-gather", "collective-permute"))

    batch = {
        "x": np.random.default_rng(0).integers(0, 4, (1, 32, 60), dtype=np.uint8),
        "y": np.zeros((1, 32), np.int32),
        "weight": np.ones((1, 32), np.float32),
    }
    states = [
        call(program.init(), batch)[0] for program, call, _ in (text(1, False), text(1, True))
    ]
    jax.tree.map(np.testing.assert_array_equal, states[0].params, states[1].params)


def ended_while(command, words, number):
    """Sends a signal to the study once it says `words`; holds that what it started ends too."""
    with psutil.Popen(
        [sys.executable, "-m", "jaxdna", *command], stderr=subprocess.PIPE, text=True
    ) as study:
        assert any(words in line for line in study.stderr)
        while not (measuring := study.children()):
            time.sleep(0.01)
        study.send_signal(number)
        _, alive = psutil.wait_procs([study, *measuring], timeout=60)
        for process in alive:
            process.kill()
        assert not alive
    return study.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_study_that_is_stopped_leaves_no_measurement_running(tmp_path, number):
    # Measured for ever, if nobody ended it.
    command = ["scale", *SMALL, "--devices=1", "--repeats=100000", f"--workdir={tmp_path}"]
    assert ended_while(command, "1 device: measuring", number) != 0


def test_a_pipeline_is_measured_as_one(jaxdna, tmp_path):
    """Two stages on two devices; four are more than it has layers, which nothing else minds."""
    pipeline = ["--config.strategy=pipeline", "--config.mesh.stage=-1", "--config.mesh.data=1"]
    done = jaxdna("scale", *SMALL, *pipeline, "--devices=2,4", f"--workdir={tmp_path}")
    assert done.returncode == 2
    assert "mesh.stage=4 is more than the 2 layers" in done.stderr.splitlines()[-1]
    (two,) = json.loads((tmp_path / "measured.json").read_text()).values()
    assert two["mesh"]["stage"] == 2
    assert min(two["step_seconds"]) > 0
    assert two["alone_seconds"] is None  # the stages cannot do without each other


def test_an_interrupted_study_continues_with_the_rows_it_has(jaxdna, tmp_path):
    command = ["scale", *SMALL, "--devices=1,2", "--price-per-hour=2", f"--workdir={tmp_path}"]
    assert ended_while(command, "2 devices: measuring", signal.SIGKILL) == -signal.SIGKILL
    (before,) = json.loads((tmp_path / "measured.json").read_text()).values()

    done = jaxdna(*command, "--json")
    assert done.returncode == 0, done.stderr
    assert "1 device: kept from before" in done.stderr
    assert "2 devices: measuring" in done.stderr
    assert "Simulated devices share" in done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert [row["devices"] for row in rows] == [1, 2]
    assert set(rows[0]) >= {
        "devices", "mesh", "seconds", "samples_per_second", "speedup", "efficiency", "cost",
    }  # fmt: skip
    assert rows[0]["seconds"] == pytest.approx(np.median(before["step_seconds"]) * 20 * 16)
    assert [row["simulated"] for row in rows] == [False, True]
    assert rows[1]["mesh"]["data"] == 2
    assert 0 <= rows[1]["communication"] < 1
    assert {path.name for path in tmp_path.iterdir()} == {
        "measured.json", "scaling.csv", "scaling.md", "scaling.png",
    }  # fmt: skip
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--devices=1,two"], "--devices=1,two is not legal"),
        (["--devices=0"], "--devices=0 is not legal"),
        (["--devices=1,3"], "batch_size=32 is not divisible"),
        (["--devices=4", "--config.runtime.cpu_devices=2"], "is more than there are: 1 to 2"),
        (["--repeats=0"], "--repeats=0"),
        (["--price-per-hour=-1"], "--price-per-hour=-1"),
        (["--mode=both", "--workdir=pyproject.toml"], "--workdir=pyproject.toml cannot be made"),
        (["--workdir={train}"], "/train holds a run of `jaxdna train`; give another folder"),
        (["--config=tal1"], "--config=tal1 is the second with the name tal1; give each"),
        (
            ["--config.strategy=parameter_server"],
            "--config.strategy=parameter_server cannot be measured on --devices, since its "
            "workers have devices of their own; legal: spmd, pipeline",
        ),
        (
            ["--config.strategy=pipeline", "--devices=8,16"],
            "pipeline.microbatches=4 does not fit a batch of 32 on 16 data shards",
        ),
        (
            ["--config.mesh.dcn.data=2", "--devices=1,2"],
            "--config.mesh.dcn.data=2 does not divide mesh.data=1; legal: 1",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_exit_code_2(jaxdna, tmp_path, flags, words):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "config.json").write_text("{}")
    flags = [flag.replace("{train}", f"{tmp_path}/train") for flag in flags]
    done = jaxdna("scale", *SMALL, f"--workdir={tmp_path}/study", *flags)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "measuring" not in done.stderr
