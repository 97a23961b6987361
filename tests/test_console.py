"""What reaches a terminal: users' text as it is, and nothing that the terminal would obey."""

import pytest

from jaxdna.console import loud, results_console, table
from jaxdna.errors import UserError, report

TEXTS = {
    "chr1[/dup]": "chr1[/dup]",
    "[b]x[/b]": "[b]x[/b]",
    "[fd00::2]:80": "[fd00::2]:80",
    ":smile:": ":smile:",
    "a\x1b[31mb": r"a\x1b[31mb",
    "\u202egpj.fa": r"\u202egpj.fa",
    "\rover": r"\rover",
    "gen\udce9": r"gen\udce9",
    "Größe 測試": "Größe 測試",
}


@pytest.mark.parametrize(("text", "shown"), TEXTS.items(), ids=ascii)
def test_users_text_is_shown_and_never_obeyed(text, shown, capsys):
    console = results_console()
    console.print(text)
    loud(console)(text)
    console.print(table(text, ("", text), [(text, 1)]))
    report(UserError(text))
    out, err = capsys.readouterr()
    assert out.count(shown) == 5
    assert err == f"jaxdna: {shown}\n"
