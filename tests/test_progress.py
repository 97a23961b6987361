"""How far long work is, as a person sees it on a terminal, in a log, and where nobody watches."""

import io
import re

import pytest
from rich.console import Console

from jaxdna import progress
from jaxdna.console import results_console, table
from jaxdna.data.streams import BLOCK_BYTES, read_blocks
from jaxdna.progress import clock, counted, progress_line, shown_on
from jaxdna.runs.display import epoch_note
from jaxdna.tasks.classes import Binary
from jaxdna.tasks.measures import bootstrap


@pytest.fixture
def clock_of_steps(monkeypatch):
    """A clock that only `pass_time` moves."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def pass_time(seconds):
        now[0] += seconds

    return pass_time


@pytest.fixture
def log():
    return Console(file=io.StringIO(), width=120)


def lines(console):
    return console.file.getvalue().splitlines()


def test_a_log_has_a_line_every_few_seconds_with_what_is_left(clock_of_steps, log):
    with shown_on(lambda: log):
        for _ in counted("scoring", range(10), 10):
            clock_of_steps(3)
    assert lines(log) == [
        "scoring 20%  24 s left",
        "scoring 40%  18 s left",
        "scoring 60%  12 s left",
        "scoring 80%  6 s left",
        "scoring 100%  30 s so far",
    ]


def test_quick_work_says_nothing_and_neither_do_a_quiet_console_and_a_loop_without_watchers(
    clock_of_steps, log
):
    with shown_on(lambda: log):
        assert list(counted("reading", "abc", 3)) == ["a", "b", "c"]
    for _ in counted("reading", "abc", 3):
        clock_of_steps(60)
    log.quiet = True
    with shown_on(lambda: log):
        for _ in counted("reading", "abc", 3):
            clock_of_steps(60)
    assert not lines(log)


def test_a_loop_in_another_one_is_a_part_of_its_step_and_never_goes_back(clock_of_steps, log):
    with shown_on(lambda: log):
        for _ in counted("reading", (3.0, 1.0), 4.0, size=lambda bases: bases):
            for _ in counted("scoring", range(2), 2):
                clock_of_steps(5)
            for _ in counted("writing", range(4), 4):
                clock_of_steps(5)
    shares = [int(re.search(r"reading (\d+)%", line)[1]) for line in lines(log)]
    assert shares == [38, 75, 75, 75, 75, 75, 88, 100, 100, 100, 100, 100]


def test_a_loop_that_is_left_or_fails_has_no_line_any_more(clock_of_steps, log):
    def fail():
        with shown_on(lambda: log):
            for _ in counted("one", range(2), 2):
                break
            for _ in counted("two", range(2), 2):
                clock_of_steps(9)
                raise ValueError("two")

    with pytest.raises(ValueError, match="two"):
        fail()
    with shown_on(lambda: log):
        for _ in counted("three", range(1), 1):
            clock_of_steps(9)
    assert lines(log) == ["three 100%  9 s so far"]


def test_a_log_says_how_much_of_an_epoch_is_done_without_the_scores_of_the_one_before(
    clock_of_steps, log
):
    with shown_on(lambda: log), progress_line("epoch", 3, 1, lasting=True) as line:
        clock_of_steps(4)
        line.advance("train 0.5")
        clock_of_steps(6)
        line.within(0.4)
    assert lines(log) == ["epoch 2/3  train 0.5  4 s so far", "epoch 3/3, 40%  4 s left"]


def test_where_nobody_knows_how_much_there_is_the_time_so_far_is_told(clock_of_steps, log):
    with shown_on(lambda: log):
        for _ in counted("reading stdin", range(2)):
            clock_of_steps(75)
    assert lines(log) == ["reading stdin  1:15 so far", "reading stdin  2:30 so far"]


def test_a_terminal_of_80_columns_shows_all_of_the_line_of_the_epochs():
    screen = Console(file=io.StringIO(), force_terminal=True, width=80)
    row = {"train_loss": 0.1234, "val_loss": 0.2345, "val_accuracy": 0.97055}
    with shown_on(lambda: screen), progress_line("epoch", 20, 18, lasting=True) as line:
        line.advance(epoch_note(Binary(), row, "  best"))
        line.advance(epoch_note(Binary(), row, "  best"))
    frames = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.file.getvalue()).replace("\r", "\n")
    last = [frame for frame in frames.splitlines() if frame.strip()][-1].rstrip()
    assert last.startswith("epoch 20/20  train 0.1234  val 0.2345  accuracy 97.06%  best")
    assert last.endswith("so far") and len(last) <= 80


def test_reading_a_large_file_shows_how_far_it_is_and_a_gzipped_one_too(
    clock_of_steps, log, tmp_path
):
    path = tmp_path / "x.fa"
    path.write_bytes(b"A" * (3 * BLOCK_BYTES))
    with shown_on(lambda: log):
        for _ in read_blocks(path):
            clock_of_steps(5)
    assert lines(log)[0].startswith("reading x.fa 33%")
    assert lines(log)[-1].startswith("reading x.fa 100%")


def test_intervals_have_a_line(clock_of_steps, log):
    def statistics(weights):
        clock_of_steps(1)
        return {"total": weights.sum(axis=1)}

    with shown_on(lambda: log):
        bootstrap(statistics, [range_of(80_000)], resamples=100)
    assert lines(log)[0].startswith("measuring 95% intervals ")


def range_of(count):
    import numpy as np

    return np.arange(count)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (3725, "1:02:05")]
)
def test_times_are_short(seconds, text):
    assert clock(seconds) == text


def test_a_table_that_is_too_wide_loses_nothing(monkeypatch, capsys):
    console = results_console()
    monkeypatch.setattr(type(console), "is_terminal", True)
    console.width = 80
    row = [f"C{i:03}:FAMILY_OF_PROTEINS:class" for i in range(4)]
    console.print(table("Filters", ("", "weight", "sites", "resembles"), [row]))
    console.width = 200
    console.print(table("Filters", ("", "weight", "sites", "resembles"), [row]))
    narrow, wide = capsys.readouterr().out.split("Filters")[1:]
    assert max(map(len, narrow.splitlines())) <= 80 and "…" not in narrow
    letters = "".join(narrow.split())
    for text in ("weight", "sites", "resembles"):
        assert text in letters
    assert sorted(letters.replace("─", "")) == sorted(
        "".join(c for c in wide if c.isascii() and not c.isspace())
    )
