"""What `import jaxdna` offers, as a notebook uses it."""

import base64
import csv
import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxdna
from jaxdna.api import default_workdir
from jaxdna.data.motifs import load_motif
from jaxdna.data.sequences import decode
from jaxdna.data.simulator import simulate
from jaxdna.errors import speaking_of_flags, speaking_python
from jaxdna.parallel.settings import SETTINGS
from jaxdna.runs.guard import Guard
from jaxdna.runs.run_folder import RunFolder

SMALL = [
    "data.length=120",
    "data.train_examples=2000",
    "data.validation_examples=500",
    "data.test_examples=500",
    "train.epochs=8",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Trained with no folder given, then opened from another one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("api"))
        made = jaxdna.train(jaxdna.load_config("tal1", SMALL), quiet=True)
        made.folder = RunFolder(made.folder.path.absolute())
        yield made


@pytest.fixture
def command(request):
    """The command; its fixture has the name of the package."""
    return request.getfixturevalue("jaxdna")


def test_importing_jaxdna_imports_nothing_heavy():
    code = (
        "import sys, jaxdna\n"
        "heavy = {'jax', 'numpy', 'flax', 'ml_collections', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert set(jaxdna.__all__) <= set(dir(jaxdna))\n"
        "assert jaxdna.UserError.exit_code == 2 and 'numpy' not in sys.modules\n"
        "try:\n    jaxdna.trian\n"
        "except AttributeError as error:\n    assert 'trian' in str(error)\n"
        "else:\n    raise SystemExit('a name that is not there was found')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(hasattr(jaxdna, name) for name in jaxdna.__all__)


def test_what_training_imports_is_not_scipy_nor_what_draws():
    """Each takes a fifth of a command's start, which those that stop at a mistake need not pay."""
    code = (
        "import sys, jaxdna.runs.loop, jaxdna.strategies.prepare\n"
        "heavy = {'scipy', 'matplotlib', 'pandas', 'tensorflow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_has_its_summary_history_and_config(run):
    assert run.summary == json.loads((run.folder.path / "summary.json").read_text())
    assert [row["epoch"] for row in run.history] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert run.config.train.epochs == 8
    again = jaxdna.open_run(run.folder.path, quiet=True)
    assert again.summary == run.summary
    assert eval(repr(again)).folder.path == run.folder.path


def test_predict_and_filters_and_evaluate_are_the_verbs(run, command, tmp_path):
    made = simulate(load_motif("TAL1_known4"), 40, 120, 0.4, seed=5)
    sequences = [decode(codes) for codes in made.codes]
    fasta = tmp_path / "x.fa"
    fasta.write_text("".join(f">{i}\n{letters}\n" for i, letters in enumerate(sequences)))
    found = run.predict(sequences)
    assert found.dtype == np.float32 and found.shape == (40,)
    np.testing.assert_array_equal(run.predict(fasta), found)
    assert found[made.labels == 1].mean() > 0.7 > 0.3 > found[made.labels == 0].mean()
    flags = [f"--workdir={run.folder.path}", "--config.runtime.cpu_devices=8"]
    output = tmp_path / "y.tsv"
    command("predict", *flags, f"--sequences={fasta}", f"--output={output}")
    rows = list(csv.DictReader(output.open(), delimiter="\t"))
    np.testing.assert_allclose(found, [float(row["probability"]) for row in rows], rtol=1e-5)
    by_verb = json.loads(command("evaluate", *flags, "--json").stdout)
    evaluated = run.evaluate()
    assert evaluated["test"] == by_verb["test"]
    assert evaluated["test"] == pytest.approx(run.summary["test"], rel=1e-5)
    assert evaluated["devices"] == 8
    filters = run.filters()
    assert len(filters) == 16
    assert filters[0].hits[0].target.startswith("TAL1")
    assert [abs(f.influence) for f in filters] == sorted(
        (abs(f.influence) for f in filters), reverse=True
    )


def test_predict_takes_one_sequence_and_none_and_names_the_wrong_one(run):
    letters = "ACGTTGACCAGATGGTT" * 3
    np.testing.assert_array_equal(run.predict(letters), run.predict([letters]))
    assert run.predict([]).shape == (0,)
    assert np.isnan(run.predict([letters, "ACGT"])).tolist() == [False, True]
    with pytest.raises(jaxdna.UserError, match=r"sequence 1: letter '!' at offset 2"):
        run.predict([letters, "AC!T"])


def test_attribute_scores_letters_and_files_alike_and_shows_logos(run, tmp_path):
    letters = ["ACGTTGACCAGATGGTT" * 3, "TTTGACACAGCTGTTGACA" * 2 + "ACGTACGTACGTA"]
    found = run.attribute(letters, shuffles=4)
    assert found.contributions.shape == (2, 1, 51) and not found.beyond.any()
    assert found.ids == ["0", "1"] and found.answers == ("logit",)
    (tmp_path / "x.fa").write_text("".join(f">s{i}\n{own}\n" for i, own in enumerate(letters)))
    of_file = run.attribute(tmp_path / "x.fa", shuffles=4)
    np.testing.assert_array_equal(of_file.hypothetical, found.hypothetical)
    shown = found._repr_html_()
    picture = base64.b64decode(re.search('src="data:image/png;base64,([^"]+)"', shown)[1])
    assert picture.startswith(b"\x89PNG") and len(found.plot(most=1).axes) == 1
    exact = run.attribute(letters[0], "ism")
    np.testing.assert_allclose(exact.hypothetical.sum(axis=-1), 0, atol=1e-4)


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (lambda run: jaxdna.train(3), "config=3 is not a configuration; legal: the name"),
        (lambda run: jaxdna.train(run.config, workdir=3), "workdir=3 is not a path; legal"),
        (lambda run: jaxdna.open_run(None), "workdir=None is not a path; legal"),
        (lambda run: jaxdna.load_config(3), "^config=3 is neither a file .*; legal: attention"),
        (lambda run: jaxdna.load_config("tal1", "train.epochs=5"), "must be a list, such as"),
        (lambda run: jaxdna.load_config("tal1", None), "overrides=None must be a list"),
        (lambda run: jaxdna.load_config("tal1", [3]), r"^config\.3 is an unknown key"),
        (lambda run: run.predict(3), "sequences=3 are not sequences; legal: letters"),
        (lambda run: run.predict({"id": "ACGT"}), "are not sequences; legal: letters"),
        (lambda run: run.predict(b"ACGT"), "are not sequences; legal: letters"),
        (lambda run: run.predict(["ACGT", 3]), "sequence 1: 3 has no letters; give a string"),
        (lambda run: run.predict("x.fa"), "letter 'x' .*; a file is given as a pathlib.Path"),
        (lambda run: run.predict("ACGT", "forwrd"), "strands='forwrd' .* did you mean 'forward'"),
        (lambda run: run.attribute(3), "sequences=3 are not sequences; legal: letters"),
        (lambda run: run.attribute([]), "there is no sequence to attribute"),
        (
            lambda run: run.attribute("ACGT" * 9, "shap"),
            "method='shap' is unknown; legal: deep",
        ),
        (lambda run: run.attribute("ACGT" * 9, references="x"), "references='x' is unknown; legal"),
        (lambda run: run.attribute("ACGT" * 9, shuffles=0), "shuffles=0 is not legal"),
        (lambda run: run.attribute(["ACGT" * 9, "A" * 30]), "'1' .30. is not 36 bases long"),
        (lambda run: run.evaluate(3), "strands=3 is unknown; legal: average, forward, max"),
        (lambda run: run.evaluate(table=3), "table=3 is not a path; legal"),
        (lambda run: run.filters(["ACGT"]), "sequences=.* is not a path; legal"),
        (lambda run: run.filters(motifs=3), "motifs=3 is not a path; legal"),
        (lambda run: run.interpret(mutate=-1), "^mutate=-1 is not legal"),
        (lambda run: jaxdna.open_run("nowhere"), "^workdir=nowhere is not a run folder"),
        (
            lambda run: jaxdna.train(jaxdna.load_config("tal1", ["optimizer.learning_rate=-1"])),
            "^optimizer.learning_rate=-1 is not legal: it must be a number above 0",
        ),
    ],
)
def test_a_mistake_is_one_sentence_that_says_what_is_legal(run, mistake, sentence):
    with pytest.raises(jaxdna.UserError, match=sentence):
        mistake(run)


def test_a_config_is_a_path_too_and_labelled_files_come_in_any_order(run, tmp_path):
    assert jaxdna.load_config(Path("configs/tal1.py")) == jaxdna.load_config("tal1")
    made = simulate(load_motif("TAL1_known4"), 40, 120, 0.4, seed=7)
    for name, label in (("bound.fa", 1), ("unbound.fa", 0)):
        sequences = made.codes[made.labels == label]
        records = [f">{i}\n{decode(codes)}\n" for i, codes in enumerate(sequences)]
        (tmp_path / name).write_text("".join(records))
    bound, unbound = tmp_path / "bound.fa", tmp_path / "unbound.fa"
    one_way = run.evaluate(positives=bound, negatives=str(unbound))["test"]
    assert run.evaluate(negatives=unbound, positives=bound)["test"] == one_way
    assert one_way["auroc"] > 0.8


def test_evaluate_takes_labelled_files_that_go_together(run, tmp_path):
    made = simulate(load_motif("TAL1_known4"), 60, 120, 0.4, seed=6)
    rows = [f"{decode(x)}\t{y}\n" for x, y in zip(made.codes, made.labels, strict=True)]
    table = tmp_path / "t.tsv"
    table.write_text("".join(rows))
    scored = run.evaluate(table=str(table))
    assert scored["examples"] == 60 and scored["test"]["auroc"] > 0.8
    with pytest.raises(jaxdna.UserError, match=r"^labels given; legal: positives and negatives"):
        run.evaluate(labels=str(table))


def test_the_same_call_finds_the_run_finished_and_another_configuration_is_another_run(
    run, monkeypatch
):
    monkeypatch.chdir(run.folder.path.parents[1])
    config = jaxdna.load_config("tal1", SMALL)
    assert run.folder.path == Path.cwd() / default_workdir(config)
    assert jaxdna.train(config, quiet=True).summary == run.summary
    config.seed = 1
    assert run.folder.path != Path.cwd() / default_workdir(config)
    config.train.batch_sise = 8
    with pytest.raises(jaxdna.UserError, match=r"did you mean 'train\.batch_size'"):
        jaxdna.train(config, quiet=True)


def test_the_cells_of_the_notebook_page_run(run, monkeypatch):
    """On the small data of this file; its run is the page's, and so is found finished."""
    page = (Path.cwd() / "docs" / "notebook.md").read_text()
    cells = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(cells) >= 5
    monkeypatch.chdir(run.folder.path.parents[1])
    code = "\n".join(cells).replace('load_config("tal1")', f'load_config("tal1", {SMALL})')
    names: dict = {}
    exec(compile(code, "notebook.md", "exec"), names)
    assert names["run"].summary == run.summary
    assert names["again"].folder.path == default_workdir(names["config"])
    assert names["best"].motif.probabilities.shape == (15, 4)


def test_a_run_and_its_report_show_themselves(run):
    """In frames that run no script; a run that is under way by its epochs until now."""
    shown = html.unescape(html.unescape(run._repr_html_()))  # a page within a page
    assert shown.startswith("<iframe sandbox srcdoc=") and "<script" not in shown
    verdict = run.summary["verdict"]
    for part in (verdict, "best possible AUROC", "<h2>Curves", "<h2>What the filters look for"):
        assert part in shown
    assert "<h2>Configuration" not in shown
    page = run.report()
    assert page.path == run.folder.report
    assert "<h2>Configuration" in html.unescape(page._repr_html_())
    curves = run.plot_curves()
    assert curves._repr_png_().startswith(b"\x89PNG")
    loss = next(line for line in curves.axes[0].lines if line.get_label() == "Bayes ceiling")
    assert loss.get_ydata()[0] == run.summary["validation_ceiling"]["loss"]
    assert "<svg" in run.filters()[0]._repr_html_()


def test_a_run_without_an_end_shows_its_epochs(run, tmp_path):
    for name in ("config.json", "data.json", "metrics.jsonl"):
        shutil.copy(run.folder.path / name, tmp_path / name)
    unfinished = jaxdna.open_run(tmp_path, quiet=True)
    assert "is not finished: 8 epochs are done" in unfinished._repr_html_()
    assert unfinished.plot_curves()._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(jaxdna.UserError, match=r"has no report.html; legal: a finished run"):
        unfinished.report()


def test_interpret_leaves_what_the_verb_leaves_and_shows_it(run, command, tmp_path):
    found = run.interpret(mutate=1, output=tmp_path / "api")
    flags = [f"--workdir={run.folder.path}", "--config.runtime.cpu_devices=8", "--mutate=1"]
    verb = json.loads(command("interpret", *flags, f"--output={tmp_path}/verb", "--json").stdout)
    assert found.filters == verb["filters"] and found.embedded == verb["embedded"]
    names = ("filters.tsv", "filters.meme", "mutagenesis.tsv")
    for name in names:
        assert (tmp_path / "api" / name).read_bytes() == (tmp_path / "verb" / name).read_bytes()
    assert html.unescape(found._repr_html_()).count("<img ") >= 2


@pytest.mark.parametrize(
    ("sentence", "spoken"),
    [
        (
            "--config.optimizer.learning_rate=-1 is not legal: it must be a number above 0",
            "optimizer.learning_rate=-1 is not legal: it must be a number above 0",
        ),
        ("--test-positives=a--b.fa needs --config.data.x.", "test_positives=a--b.fa needs data.x."),
        ("(`jaxdna simulate --list`); the same command resumes", None),
    ],
)
def test_sentences_speak_of_arguments_where_no_command_line_calls(sentence, spoken):
    spoken = spoken or sentence.replace("command", "call")
    with pytest.raises(jaxdna.UserError) as caught, speaking_python():
        raise jaxdna.UserError(sentence)
    assert str(caught.value) == spoken
    with pytest.raises(jaxdna.UserError) as caught, speaking_of_flags(), speaking_python():
        raise jaxdna.UserError(sentence)
    assert str(caught.value) == sentence


def test_an_interrupt_in_a_notebook_saves_and_leaves_the_process_alive():
    limits = dict.fromkeys(("start", "compile", "step", "evaluation", "save"), 0.0)
    before = signal.getsignal(signal.SIGINT)
    with Guard(limits, owns_process=False) as guard:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        guard.enter("step")
    with Guard(limits, owns_process=False) as guard:
        guard.enter("step")
        os.kill(os.getpid(), signal.SIGINT)
        deadline = threading.Event()
        while not guard.requested:
            assert not deadline.wait(0.01)
        assert guard.stops_here()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    heard = []

    def elsewhere() -> None:
        with Guard(limits, owns_process=False):
            heard.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert heard == [before]


def test_devices_that_are_asked_for_too_late_are_one_sentence():
    with pytest.raises(jaxdna.UserError, match="cpu_devices=3 comes too late"):
        jaxdna.train(jaxdna.load_config("tal1", [*SMALL, "runtime.cpu_devices=3"]), quiet=True)


# What a notebook, or the environment of a command, may say; each is another value than ours.
SURROUNDINGS = {
    "jax_enable_x64": True,
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 5,
    "jax_legacy_prng_key": "error",
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_default_matmul_precision": "bfloat16",
    "jax_transfer_guard": "disallow",
    "jax_disable_jit": True,
    "jax_debug_nans": True,
    "jax_debug_key_reuse": True,
    "jax_enable_checks": True,
    "jax_check_tracer_leaks": True,
}


@pytest.fixture
def strange_notebook():
    """Sets them as a notebook does, in its first cell."""
    before = {name: jax.config.values[name] for name in SURROUNDINGS}
    for name, value in SURROUNDINGS.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_a_run_has_its_own_settings_and_the_notebook_keeps_its_own(run, strange_notebook, tmp_path):
    letters = ["ACGTTGACCAGATGGTT" * 3]
    mesh = jax.make_mesh((8,), ("data",))
    with (
        jax.set_mesh(mesh),
        jax.enable_x64(True),
        jax.transfer_guard("disallow"),
        jax.numpy_rank_promotion("raise"),
    ):
        again = jaxdna.train(run.config, tmp_path / "run", quiet=True)
        assert again.summary["params_sha256"] == run.summary["params_sha256"]
        opened = jaxdna.open_run(run.folder.path, quiet=True)
        assert opened.evaluate()["test"] == run.evaluate()["test"]
        np.testing.assert_array_equal(opened.predict(letters), run.predict(letters))
        assert len(opened.filters()) == 16
        assert jax.config.jax_enable_x64 and jax.sharding.get_mesh() == mesh
    found = jax.config.values
    assert {name: found[name] for name in SURROUNDINGS} == SURROUNDINGS | {
        name: found[name]  # jax keeps words of these as values of its own
        for name in ("jax_legacy_prng_key", "jax_numpy_dtype_promotion")
    }
    assert found["jax_numpy_dtype_promotion"].value == "strict"
    assert found["jax_transfer_guard_host_to_device"] == "disallow"


def test_a_command_has_its_own_settings_whatever_the_environment_says(run, tmp_path):
    environment = os.environ | {name.upper(): str(value) for name, value in SURROUNDINGS.items()}
    environment["JAX_ENABLE_CHECKS"] = "perhaps"  # of which jax itself would make a traceback
    environment["JAX_PLATFORMS"] = "cpu"

    def command(*arguments):  # not forked: this one imports jax in that environment
        words = [sys.executable, "-m", "jaxdna", *arguments]
        return subprocess.run(
            words, env=environment, capture_output=True, text=True, check=False, timeout=300
        )

    flags = [f"--config.{flag}" for flag in (*SMALL, "runtime.cpu_devices=8")]
    trained = command("train", "--config=tal1", *flags, f"--workdir={tmp_path}/run", "--json")
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["params_sha256"] == run.summary["params_sha256"]
    assert "note     a run has its own settings; ignored: JAX_DEFAULT_PRNG_IMPL" in trained.stderr
    workdir = f"--workdir={run.folder.path}"
    evaluated = command("evaluate", workdir, "--config.runtime.cpu_devices=8", "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["test"] == run.evaluate()["test"]


def test_the_settings_of_a_run_are_jaxs_own_defaults():
    code = (
        "import jax, json; from jaxdna.parallel.settings import SETTINGS\n"
        "values = {n: getattr(v, 'value', v) for n, v in jax.config.values.items()}\n"
        "print(json.dumps({n: values[n] for n in SETTINGS if n in values}, default=str))"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    asked = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True)
    found = json.loads(asked.stdout)
    assert {"jax_enable_x64", "jax_default_prng_impl", "jax_threefry_partitionable"} <= set(found)
    differing = {name for name, value in found.items() if value != SETTINGS[name]}
    # Guards are "allow" where nothing is said; and this one is numbered.
    assert {n for n in differing if "guard" not in n} <= {"jax_explicit_x64_dtypes"}
