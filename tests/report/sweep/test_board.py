"""What the launcher shows while it works."""

from __future__ import annotations

import io
import json
import sys

from rbkit.report.sweep.launcher import Board, progress_of


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_line_for_each_ended_run_where_there_is_no_terminal(capsys):
    with Board(total=2, done=0, at_once=1, shown=True) as board:
        board.update({})
        board.ended("a", "ok", 1.0, None)
        board.ended("b", "failed", 2.0, "bad\x1b[31m \u202enews")
    assert capsys.readouterr().err == "[1/2] a  ok  1.0 s\n[2/2] b  failed  2.0 s  bad news\n"


def test_nothing_is_shown_if_nothing_is_wanted(capsys):
    with Board(total=1, done=0, at_once=1, shown=False) as board:
        board.ended("a", "ok", 1.0, None)
    assert capsys.readouterr().err == ""


def test_a_table_in_a_terminal_with_steps_and_losses_and_no_markup(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = {"step": 10, "steps": 60, "loss": 4.25}
    (tmp_path / "run.json").write_text(json.dumps({"status": "running", "progress": progress}))
    with Board(total=3, done=1, at_once=1, shown=True) as board:
        board.update({"a": (tmp_path, 3.0)})
        board.ended("a", "failed", 4.0, "[bold]no")
    said = terminal.getvalue()
    assert "1 ok, 1 running of 3" in said
    assert "step 10/60  loss 4.250" in said
    assert "[bold]no" in said


def test_a_reader_that_goes_away_does_not_stop_the_runs(monkeypatch):
    class Closed(io.StringIO):
        def write(self, _text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    board = Board(total=2, done=0, at_once=1, shown=True)
    board.ended("a", "ok", 1.0, None)
    board.ended("b", "ok", 1.0, None)
    assert board.counts["ok"] == 2


def test_a_run_tried_again_is_counted_once():
    board = Board(total=1, done=0, at_once=1, shown=False)
    board.ended("a", "killed", 1.0, None, retry=True)
    board.ended("a", "ok", 1.0, None)
    assert board.headline([]) == "1 ok, 0 running of 1"


def test_a_record_that_says_nothing_of_use_shows_nothing(tmp_path):
    assert progress_of(tmp_path) == ""
    for text in ("{", '{"status": "ok"}', '{"status": "running"}', "[]"):
        (tmp_path / "run.json").write_text(text)
        assert progress_of(tmp_path) == ""
