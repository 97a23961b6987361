import argparse
import json
import os
import pty
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxdna.cli import train
from jaxdna.cli.common import own_sequences
from jaxdna.cli.main import VERBS, main, split_overrides
from jaxdna.errors import report


def test_help_answers_in_under_half_a_second_of_processor_time():
    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "jaxdna", "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.5


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_no_verb_imports_jax_for_it(verb):
    code = (
        "import sys\nfrom jaxdna.cli.main import main\n"
        "try:\n    main([sys.argv[1], '--help'])\nfinally:\n"
        "    assert 'jax' not in sys.modules and 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, verb], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"jaxdna {verb}" in done.stdout


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["doctor", "--help"], ["doctor"]]
)
def test_results_that_nobody_reads_are_no_failure_and_a_full_disk_is_one_sentence(arguments):
    def run(stdout):
        return subprocess.run(
            [sys.executable, "-m", "jaxdna", *arguments],
            stdout=stdout, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "80"},
        )  # fmt: skip

    for reader, writer in (os.pipe(), pty.openpty()):
        os.close(reader)
        done = run(writer)
        os.close(writer)
        assert (done.returncode, done.stderr) == (0, "")
    with open("/dev/full", "w") as full:
        done = run(full)
    sentence = "jaxdna: stdout cannot be written (No space left on device)\n"
    assert (done.returncode, done.stderr) == (1, sentence)


def test_a_disk_that_fails_is_no_terminal_that_was_closed():
    """Both answer EIO, as a file of /proc does that cannot be written."""
    try:
        file = os.open("/proc/version", os.O_WRONLY)
    except OSError as error:
        pytest.skip(f"no file that fails as a broken disk does: {error}")
    command = [sys.executable, "-m", "jaxdna", "--help"]
    done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True)
    os.close(file)
    sentence = "jaxdna: stdout cannot be written (Input/output error)\n"
    assert (done.returncode, done.stderr) == (1, sentence)


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="sees imports in /proc")
@pytest.mark.parametrize("library", ["_json", "numpy", "jaxlib"])
def test_ctrl_c_while_it_starts_is_one_word(library):
    """Whatever is being imported then: a library left halfway says anything but that."""
    with subprocess.Popen(
        [sys.executable, "-m", "jaxdna", "doctor"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        maps = Path(f"/proc/{process.pid}/maps")
        while library not in maps.read_text() and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert (process.returncode, said) == (130, "jaxdna: interrupted\n")


def test_few_open_files_are_refused_and_more_are_taken_where_they_may_be():
    def run(soft, hard):
        code = (
            "import resource\nfrom jaxdna.cli.main import main\n"
            f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
            "code = main(['simulate'])\nprint(code, *resource.getrlimit(resource.RLIMIT_NOFILE))"
        )
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    few = run(32, 32)
    assert few.stdout == "2 32 32\n"
    assert few.stderr == (
        "jaxdna: this process may open 32 files (ulimit -n), and a run needs 64 or more; run "
        "`ulimit -n 1024` first\n"
    )
    assert run(32, 200).stdout.splitlines()[-1].split()[1:] == ["200", "200"]


def test_a_name_that_the_terminal_cannot_show_is_shown_in_escapes():
    code = (
        "from jaxdna.cli import main\nmain.main = lambda _: print('\\udce9\\u2028')\nmain.entry()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("\\udce9\\u2028\n", "")


def test_what_does_not_fit_into_memory_is_one_sentence(capfd):
    """On the host it is NumPy that says so, on a device XLA."""
    import jax
    import numpy as np

    from jaxdna.parallel.plugins import held_back

    with held_back():
        jax.devices()
    for fail in (lambda: np.empty(2**62, np.uint8), lambda: jax.numpy.zeros(2**50, "uint8")):
        with pytest.raises((MemoryError, RuntimeError)) as caught:
            jax.block_until_ready(fail())
        assert report(caught.value) == 2
        said = capfd.readouterr().err
        assert said.startswith("jaxdna: not enough memory (") and said.count("\n") == 1


def test_what_python_was_told_not_to_hold_back_is_not_held_back():
    code = (
        "import os\nfrom jaxdna.cli import main\n"
        "main.main = lambda _: (print('said'), os._exit(0))\nmain.entry()"
    )
    done = subprocess.run([sys.executable, "-u", "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("said\n", "")


def test_overrides_are_taken_in_both_spellings():
    assert split_overrides(["--config=c.py", "--config.a.b=1", "--json", "--config.c", "2"]) == (
        ["a.b=1", "c=2"],
        ["--config=c.py", "--json"],
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "did you mean 'train'"),
        (["train"], "--config"),
        (["train", "--config=nowhere.py"], "is neither a file"),
        (["train", "--config=configs/tal1.py", "--config.train.batch_size=0"], "1 or more"),
        (["train", "--config=configs/tal1.py", "--config.train.batch_size=12801"], "12800 train"),
        (["train", "--config=configs/tal1.py", "--config.mesh.data=3"], "mesh.data=3"),
        (["train", "--config=configs/tal1.py", "--config.data.motif=nix"], "data.motif=nix"),
        (["train", "--config=configs/tal1.py", "--workdir=pyproject.toml"], "is a file"),
        (["train", "--config=configs/tal1.py", "--workdir=jaxdna"], "holds files but no run"),
        (["train", "--config=configs/tal1.py", "--colour=red"], "--colour"),
        (
            ["train", "--positives=a", "--positives=b"],
            "--positives is given twice (a, b); give one",
        ),
        (["train", "--config=configs/tal1.py", "--config.runtime.require_accelerator=true"], "CPU"),
        (["train", "--config=configs/tal1.py", "--config.runtime.platform=rocm"], "platform=rocm"),
        (["evaluate", "--workdir=jaxdna"], "not a run folder"),
        (["simulate", "--config=configs/tal1.py"], "--output"),
        (["simulate", "--config=configs/tal1.py", "--output=jaxdna"], "--output=jaxdna"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2_and_nothing_is_written(
    jaxdna, tmp_path, arguments, words
):
    if arguments[0] == "train" and not any("--workdir" in a for a in arguments):
        arguments = [*arguments, f"--workdir={tmp_path}/run"]
    done = jaxdna(*arguments)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2
    assert words in last and last.startswith("jaxdna: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


def test_doctor_prints_what_a_bug_report_needs_also_where_no_device_starts(jaxdna, tmp_path):
    seen = json.loads(jaxdna("doctor", "--json").stdout)
    assert {"jaxdna", "python", "jax", "jaxlib", "flax", "numpy"} <= set(seen["versions"])
    assert seen["installed"].startswith("checkout") and seen["memory_gib"] > 0
    assert seen["platform"] == "cpu" and seen["devices"] and seen["error"] is None
    assert seen["environment"]["JAX_PLATFORMS"] == "cpu" and seen["reason"]
    tmp_path.chmod(0o777)
    broken = jaxdna(
        "doctor", "--config.runtime.platform=rocm", f"--config.runtime.data_cache={tmp_path}"
    )
    assert broken.returncode == 0, broken.stderr
    said = " ".join(broken.stdout.split())
    assert "platform=rocm cannot be started" in said
    assert "warning other users can write to the folder of converted sequences: " in said
    assert "jaxlib" in broken.stdout


@pytest.mark.parametrize(
    ("flags", "config", "overrides"),
    [
        (
            "--positives=a.fa --negatives=b.fa",
            "fasta",
            ["data.lengths=pad", "data.positives=a.fa", "data.negatives=b.fa"],
        ),
        (
            "--config=configs/fasta.py:large --table=t --test-table=u --config.data.lengths=error",
            "configs/fasta.py:large",
            ["data.lengths=pad", "data.table=t", "data.test_table=u", "data.lengths=error"],
        ),
        (
            "--bed=b --genome=g",
            "fasta",
            ["data.bed=b", "data.genome=g", "data.negatives=gc_matched"],
        ),
        (
            "--bed=b --genome=g --config.data.tracks=t.bw",
            "fasta",
            ["data.bed=b", "data.genome=g", "data.tracks=t.bw"],
        ),
        ("--config=mine.py --positives=a.fa", "mine.py", ["data.positives=a.fa"]),
        ("--config=tal1", "tal1", []),
    ],
)
def test_flags_for_files_stand_for_keys_of_a_config(flags, config, overrides):
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    given, others = split_overrides(flags.split())
    arguments = parser.parse_args(others)
    arguments.overrides = given
    assert own_sequences(arguments) == (config, overrides)


def test_training_without_a_config_or_a_file_is_one_sentence(capsys):
    assert main(["train"]) == 2
    assert "legal: --config=NAME or FILE.py, or your own sequences" in capsys.readouterr().err
