"""What `--help` shows: whole words at 80 columns, examples that are right, a config's values."""

import re

import pytest

from jaxdna.cli.help import columns
from jaxdna.cli.main import VERBS, main
from jaxdna.config import flat, load_config
from jaxdna.config_files import shipped_configs
from tests.test_docs import check_command


@pytest.fixture
def shown(monkeypatch, capsys):
    """Returns what a command line prints on a terminal of 80 columns."""

    def show(*arguments):
        monkeypatch.setenv("COLUMNS", "80")
        assert main(list(arguments)) == 0
        return capsys.readouterr().out

    return show


def words(text):
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("verb", ["--help", *VERBS])
def test_help_fits_80_columns_and_its_examples_are_commands_that_exist(shown, verb):
    page = shown(verb, *([] if verb == "--help" else ["--help"]))
    assert max(map(len, page.splitlines())) <= 80
    examples = re.findall(r"^  (jaxdna .*)$", page, re.MULTILINE)
    assert examples
    for line in examples:
        check_command(line)


@pytest.mark.parametrize("name", shipped_configs())
def test_help_of_a_config_has_every_key_with_its_value_and_fits_80_columns(shown, name):
    page = shown("train", f"--config={name}", "--help")
    assert max(map(len, page.splitlines())) <= 80
    sections = dict(
        re.findall(r"--config\.([\w.]*)KEY=VALUE\n((?:  .*\n?)+)", page.partition("first:")[2])
    )
    for key, value in flat(load_config(name)).items():
        section, _, rest = key.partition(".") if "." in key else ("", "", key)
        value = str(value).lower() if isinstance(value, bool) else value
        lines = sections[f"{section}." if section else ""].splitlines()
        assert any(f"{line}  ".startswith(f"  {rest}={value} ") for line in lines), key


def test_the_ten_keys_come_first_with_the_values_of_the_command_line(shown):
    page = shown("train", "--config=mnist_mlp", "--help", "--config.train.epochs=7")
    first = page.partition("ten keys that people change first: --config.KEY=VALUE\n")[2]
    keys = re.findall(r"^  (\S+)=(\S*)", first.partition("\n\n")[0], re.MULTILINE)
    assert len(keys) == 10 and dict(keys)["train.epochs"] == "7"
    assert dict(keys)["model.dense"] == "512,512" and "model.filters" not in dict(keys)


def test_files_stand_for_their_config_and_an_unknown_config_is_one_sentence(shown, capsys):
    page = shown("train", "--positives=a.fa", "--negatives=b.fa", "--help")
    assert "\n  optimizer.learning_rate=0.01 " in page
    assert "\n  optimizer.learning_rate=0.001 " in shown("train", "--help")
    assert main(["plan", "--help", "--config=tal2"]) == 2
    assert capsys.readouterr().err == (
        "jaxdna: --config=tal2 is neither a file nor one of jaxdna's configs; "
        "did you mean 'tal1'?\n"
    )


def test_no_word_is_broken_and_a_long_term_has_a_line_of_its_own(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    text = "the-very-long-word-with-many-hyphens-that-does-not-fit-here and more"
    page = columns([("short", text), ("a.key.that.is.longer.than.all.others=1", "told")])
    assert words(page).split() == [
        "short", *text.split(), "a.key.that.is.longer.than.all.others=1", "told"
    ]  # fmt: skip
    assert page.splitlines()[-1] == " " * 35 + "told"


def test_the_terminal_decides_the_width(monkeypatch, capsys):
    widths = []
    for wide in ("60", "200"):
        monkeypatch.setenv("COLUMNS", wide)
        main(["predict", "--help"])
        widths.append(max(map(len, capsys.readouterr().out.splitlines())))
    assert widths[0] <= 80 and 90 < widths[1] <= 100  # a command is never broken
