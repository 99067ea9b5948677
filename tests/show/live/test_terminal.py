"""``rbkit watch``: a run in a terminal, whatever its width, its state and its names."""

import io
import json
import os
import platform
import re
import threading
import time
import unicodedata
from datetime import UTC, datetime

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from rbkit.errors import InputError
from rbkit.show.live.snapshot import snapshot
from rbkit.show.live.terminal import LEFT, Room, TerminalView, draw, watch

HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "[red]markup[/red]",
    "\u202eturned",
    "line\nbreak\r\a",
    ":smile:",
    "日本語の名前" * 5,
    "",
    "costs $5",
]


def console(width=100, *, terminal=False, colours=None, height=24, **options):
    return Console(
        file=io.StringIO(),
        width=width,
        height=height,
        force_terminal=terminal,
        color_system=colours,
        markup=False,
        emoji=False,
        highlight=False,
        **options,
    )


def shown(run, where=None, **options):
    """What is on the screen, and the exit code."""
    where = where or console()
    code = TerminalView(run.path, where, **options).follow(once=True)
    return where.file.getvalue(), code


def revive(run):
    """Let a written run be one that is running in this process."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    change(run, status="running", pid=os.getpid(), host=platform.node(), heartbeat=now)


def change(run, **info):
    path = run.path / "run.json"
    (path.with_suffix(".new")).write_text(json.dumps(json.loads(path.read_text()) | info))
    os.replace(path.with_suffix(".new"), path)


@pytest.fixture
def running(tmp_path, write_run):
    run = write_run(tmp_path / "run", status="interrupted")
    revive(run)
    return run


@pytest.mark.parametrize("width", [60, 80, 200])
def test_everything_is_there_and_fits_the_width(runs, width):
    said, code = shown(runs[-1], console(width))
    assert code == 0
    assert "finished" in said
    assert max(map(cell_len, said.splitlines())) <= width
    for part in (
        "step 300 of 300",
        "Gram matrix",
        "cosine, round 12",
        "train",
        "eval",
        "worst",
        "effective domains 13.6 of 14",
        "noise floor",
        "price of adapting",
    ):
        assert part in said, part
    for number in ("00", "05", "13"):
        assert re.search(rf"^{number} ", said, re.MULTILINE)


def test_rows_show_the_proportions_in_force_and_their_target(runs):
    run, (said, _) = runs[-1], shown(runs[-1])
    snap = snapshot(run)
    for name, p, q in zip(snap.names, snap.p[-1], snap.q, strict=True):
        (line,) = (line for line in said.splitlines() if line.startswith(name[:12]))
        assert line.split()[-2:] == [f"{100 * p:.1f}", f"{100 * q:.1f}"]
        assert "│" in line


def test_colours_are_centred_at_zero_and_signs_stand_for_them(runs):
    snap = snapshot(runs[-1])
    coloured = console(terminal=True, colours="truecolor")
    coloured.print(draw(snap, Room(100), scale=1.0))
    assert "48;2;103;0;31" in coloured.file.getvalue()  # dark red: the diagonal
    plain, _ = shown(runs[-1])
    assert "\x1b" not in plain
    assert "−1 ==--··++## +1" in plain  # the scale
    assert "[]" in plain


def test_no_color_is_respected(runs, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    said, _ = shown(runs[-1], console(terminal=True, colours="truecolor"))
    assert "38;" not in said
    assert "48;" not in said
    assert "++" in said


def test_raw_shows_inner_products_on_their_own_scale(runs):
    said, _ = shown(runs[-1], raw=True)
    assert "inner product, round 12" in said
    largest = re.search(r"\+(\S+)  inner product", said).group(1)
    assert float(largest) < 0.1


def test_a_status_cannot_reach_the_terminal(tmp_path, write_run):
    run = write_run(tmp_path / "run", status="\x1b]0;title\a odd")
    output, _ = shown(run, console(80))
    assert "odd" in output
    assert "\x1b" not in output


def test_names_cannot_reach_the_terminal(tmp_path, write_run):
    run = write_run(tmp_path / "run", names=HOSTILE, status="failed", error="\x1b]0;title\a boom")
    said, code = shown(run, console(80))
    assert code == 1
    assert "FAILED" in said
    assert "[red]markup" in said  # as it is written: no markup
    assert ":smile:" in said
    odd = {c for c in said if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"}
    assert not odd
    assert max(map(cell_len, said.splitlines())) <= 80


def test_very_many_domains_are_put_together(tmp_path, write_run):
    run = write_run(tmp_path / "run", names=[f"d{i}" for i in range(500)], rounds=2)
    snap = snapshot(run)
    for height in (24, 60):
        where = console(height=height)
        where.print(draw(snap, Room(100, height)))
        lines = where.file.getvalue().splitlines()
        assert len(lines) < height
        shares = [float(x.split()[-2]) for x in lines if x.startswith("+")]
        assert sum(shares) == pytest.approx(100, abs=0.05 * len(shares))


def test_runs_without_matrix_or_without_anything_are_shown(tmp_path, write_run, runs):
    assert "no Gram matrix recorded" in shown(runs[0])[0]
    run = write_run(tmp_path / "run", status="killed")
    for name in ("metrics.jsonl", "history.npz"):
        (run.path / name).unlink()
    change(run, domains=None, ledger=None)
    said, code = shown(run)
    assert code == 1
    for part in ("KILLED", "no round yet", "no loss recorded"):
        assert part in said


def test_domains_without_examples_are_hatched(runs):
    snap = snapshot(runs[-1])
    gram = np.array(snap.gram)
    gram[3] = gram[:, 3] = np.nan
    where = console()
    where.print(draw(type(snap)(**{**vars(snap), "gram": gram}), Room(100)))
    assert where.file.getvalue().count("░░") >= 14


def test_it_follows_until_the_run_ends(running):
    where = console(terminal=True, colours="truecolor")
    follower = TerminalView(running.path, where, every=0.01)
    threading.Timer(0.3, change, [running], {"status": "ok"}).start()
    assert follower.follow() == 0
    said = where.file.getvalue()
    assert said.index("running") < said.index("finished")


def test_what_is_no_terminal_gets_a_line_now_and_then(running):
    where = console()
    threading.Timer(0.3, change, [running], {"status": "failed", "error": "boom"}).start()
    assert TerminalView(running.path, where, every=0.01, line_every=0.1).follow() == 1
    said = where.file.getvalue()
    lines = [line for line in said.splitlines() if line.startswith("running")]
    assert 1 <= len(lines) <= 4
    assert "step 104 of 300" in lines[0]
    assert "training loss 5." in lines[0]
    assert "boom" in said


def test_ctrl_c_leaves_the_view_and_not_the_run(running, monkeypatch):
    where = console(terminal=True)
    follower = TerminalView(running.path, where)
    monkeypatch.setattr(time, "sleep", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
    assert follower.follow() == LEFT
    assert "the run continues" in where.file.getvalue()
    assert json.loads((running.path / "run.json").read_text())["status"] == "running"


def test_a_folder_that_is_about_to_appear_is_waited_for(tmp_path, write_run):
    threading.Timer(0.2, write_run, [tmp_path / "soon"]).start()
    where = console()
    assert TerminalView(tmp_path / "soon", where, every=0.02).follow() == 0
    assert "waiting for a run" in where.file.getvalue()
    assert "finished" in where.file.getvalue()


def test_where_there_is_no_run_it_says_so(tmp_path):
    with pytest.raises(InputError, match="no run there; give the folder of a run"):
        TerminalView(tmp_path, console(), patience=0.05).follow()
    with pytest.raises(InputError, match="no run there"):
        watch(tmp_path, once=True)


def test_watch_prints_and_returns_the_exit_code(running, capsys):
    assert watch(running.path, once=True) == 0  # still running, nothing wrong
    assert "running" in capsys.readouterr().out
    change(running, status="interrupted")
    assert watch(running.path) == 1
    assert "INTERRUPTED" in capsys.readouterr().out


@pytest.mark.parametrize(
    "field", ["parameters", "domains", "progress", "final", "watch", "ledger", "seconds", "steps"]
)
def test_a_record_that_makes_no_sense_ends_no_view(tmp_path, write_run, field):
    run = write_run(tmp_path / "run", "RnB")
    for value in (7, "text", [1], {"names": 3, "step": "x", "mixer": [2]}):
        change(run, **{field: value})
        assert "ok" in shown(run)[0].lower()


def test_arrays_that_do_not_fit_end_no_view(tmp_path, write_run):
    run = write_run(tmp_path / "run", "RnB")
    np.savez(run.path / "history.npz", p=np.ones((3, 2)), gram=np.ones(4), step=np.ones((2, 2)))
    assert "ok" in shown(run)[0].lower()
