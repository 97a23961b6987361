"""What is wrong with a command line is one sentence, with what was probably meant."""

import pytest

from jaxdna.cli.main import main
from jaxdna.cli.parser import at_home


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("train --positive=a.fa", "--positive is an unknown flag; did you mean '--positives'?"),
        ("train --epochs=3", "--epochs is an unknown flag; did you mean '--config.train.epochs'?"),
        ("train a.fa b.fa", "a.fa stands without a flag before it; give it as --FLAG=a.fa"),
        ("train --workdir", "--workdir needs a value"),
        ("train --config=tal1 --workdir=", "--workdir needs a value"),
        ("predict", "--workdir is missing"),
        ("launch --processes=2 train --config=tal1", "-- is missing before train"),
        ("interpret --workdir=x --mutate=a", "--mutate=a is not legal: it must be an integer"),
        ("evaluate --workdir=x --strands=no", "--strands=no; legal: average, forward, max"),
        ("train --table=a.tsv --table=b.tsv", "--table is given twice (a.tsv, b.tsv); give one"),
        ("predict --workdir=README.md --sequences=x", "--workdir=README.md is a file; give"),
    ],
)
def test_a_mistake_on_the_command_line_says_what_was_meant(arguments, sentence, capsys):
    assert main(arguments.split()) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"jaxdna: {sentence}") and len(shown.splitlines()) == 1


def test_a_tilde_is_the_home_folder_also_where_the_shell_leaves_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["predict", "--workdir=~/runs/a", "--sequences=x.fa"]) == 2
    assert f"--workdir={tmp_path}/runs/a is not a run folder" in capsys.readouterr().err
    words = ["--config.data.positives=~/a.fa", "--a=b~/c", "--a=~b", "~/x", "--a=~"]
    home = str(tmp_path)
    assert at_home(words) == [f"--config.data.positives={home}/a.fa", *words[1:4], f"--a={home}"]
