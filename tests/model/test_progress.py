"""Progress in plain lines, as a pipe or a log file sees it."""

import re
import sys

from model.progress import ProgressBar


def test_plain_lines_tell_rate_and_time_left(capsys):
    with ProgressBar("training", total=4, unit="crops", line_every=0) as bar:
        for _ in range(4):
            bar.advance(1, amount=8, detail="loss 0.5")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["training", f"{step}/4"] for step in (1, 2, 3, 4)]
    for line in lines[:3]:
        assert re.search(r"[\d.e+]+ crops/s  \d:\d\d:\d\d left  loss 0\.5$", line), line
    assert re.search(r"crops/s  took \d:\d\d:\d\d  loss 0\.5$", lines[3])


def test_short_jobs_say_nothing_and_long_ones_end_with_a_line(capsys):
    for line_every, expected in ((3600, 0), (0, 3)):
        with ProgressBar("reading", total=3, unit="photographs", line_every=line_every) as bar:
            for _ in range(3):
                bar.advance()
        assert len(capsys.readouterr().out.splitlines()) == expected
    with ProgressBar("reading", total=9, unit="photographs", line_every=0) as bar:
        bar.advance()
        bar.line_every = 3600
        bar.advance()
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["1/9", "2/9"]


def test_resumed_work_counts_only_what_was_done_now(capsys):
    with ProgressBar("training", total=10, unit="crops", done=8, line_every=0) as bar:
        bar.advance()
    assert "training  9/10" in capsys.readouterr().out


def test_nothing_done_or_failed_says_nothing(capsys):
    with ProgressBar("training", total=10, unit="crops"):
        pass
    try:
        with ProgressBar("training", total=10, unit="crops") as bar:
            bar.advance()
            raise KeyError
    except KeyError:
        pass
    assert capsys.readouterr().out == ""


def test_names_are_no_markup(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    with ProgressBar("[bold]x[/red].png", total=1, unit="megapixels") as bar:
        bar.advance(detail="[/italic]")
    printed = capsys.readouterr().out
    assert "[bold]x[/red].png" in printed
    assert "[/italic]" in printed
