"""A run is looked at from elsewhere: the view follows it, ends with it, and changes nothing."""

import threading
import time

import numpy as np
import pretend
import pytest

import rbkit as rb
from rbkit.balance.signals import GramEstimate
from rbkit.errors import InputError
from rbkit.show.live.panel import View
from rbkit.train import Run


@pytest.fixture
def live(tmp_path):
    """A run in the middle of its second round."""
    live = rb.live(
        tmp_path / "run", pretend.NAMES, q=pretend.Q, steps=60, mixer="RnB", display=False
    )
    for step in range(15):
        pretend.one_step(live, step)
    live.recorder.beat(every=0, step=15, steps=60)
    return live


def until(true, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_follows_the_run_to_its_end(live, screen, frames_at_once, real_figure):
    view = rb.attach(live.recorder.path, display="live", screen=screen)
    assert "running, step 15 of 60" in screen.words[0]
    for step in range(15, 60):
        pretend.one_step(live, step)
    assert view.wait(30) == "ok"
    assert sorted(screen.shown[-1].data) == ["image/png", "text/plain"]
    assert "ended" in repr(view)


def test_a_killed_run_is_said_to_be_killed(live, screen, frames_at_once):
    view = rb.attach(live.recorder.path, display="live", screen=screen)
    live.recorder.info["pid"] = 2**30
    live.recorder.beat(every=0, step=15, steps=60)
    assert view.wait(30) == "killed"
    assert "killed, step 15 of 60" in screen.words[-1]


def test_ending_the_view_leaves_the_run_alone(live, screen, frames_at_once):
    def contents():
        return {f.name: f.read_bytes() for f in live.recorder.path.rglob("*") if f.is_file()}

    before = contents()
    view = rb.attach(live.recorder.path, display="live", screen=screen)
    view.stop()
    assert view.status == "running"
    assert "No longer followed" in screen.shown[-1].data["text/html"]
    assert contents() == before


def test_a_click_while_the_last_figure_is_drawn_does_not_cover_it(
    live, screen, frames_at_once, monkeypatch
):
    view = rb.attach(live.recorder.path, display="live", screen=screen)
    drawing, clicked, draw = threading.Event(), threading.Event(), view._view.figure

    def slowly():
        drawing.set()
        clicked.wait(20)
        return draw()

    monkeypatch.setattr(view._view, "figure", slowly)
    live.end("interrupted")
    drawing.wait(20)
    click = threading.Thread(target=view.toggle)
    click.start()
    clicked.set()
    click.join(20)
    assert view.wait(20) == "interrupted"
    assert "image/png" in screen.shown[-1].data


def test_a_view_that_fails_says_that_it_has_ended(live, screen, frames_at_once, monkeypatch):
    view = rb.attach(live.recorder.path, display="live", screen=screen)
    monkeypatch.setattr(view._view.run, "refresh", lambda: 1 / 0)
    until(lambda: "This view has ended: ZeroDivisionError" in screen.shown[-1].data["text/html"])
    with pytest.raises(ZeroDivisionError):
        view.wait(20)


def test_names_cannot_move_the_cursor_of_a_terminal(tmp_path):
    loop = rb.live(tmp_path, ["a\x1b]0;oak\x07", "car"], p=[0.5, 0.5], steps=2, display=False)
    seen = GramEstimate(np.eye(2), np.full(2, 9), np.ones(2), np.ones(2))
    loop(1.0, p=[0.4, 0.6], gram=seen)
    view = View(tmp_path)
    view.run.refresh()
    assert view.frame().data["text/plain"].isprintable()


def test_inner_products_for_cosines_and_back(live, screen, frames_at_once):
    view = rb.attach(live.recorder.path, display="live", screen=screen)
    view.toggle()
    assert "inner products of domain gradients" in screen.words[-1]
    view.kind = "cosine"
    assert "cosines of domain gradients" in screen.words[-1]
    view.stop()


@pytest.mark.parametrize("display", ["batch", "final"])
def test_where_nobody_watches_the_run_is_shown_as_it_is_now(live, screen, display):
    view = rb.attach(Run.open(live.recorder.path), display=display, screen=screen)
    assert [sorted(o.data) for o in screen.shown] == [["image/png", "text/plain"]]
    assert view.status == "running"


def test_outside_of_a_notebook_it_is_said_in_words(live, capsys):
    rb.attach(live.recorder.path)
    assert "step 15 of 60" in capsys.readouterr().out


def test_a_run_that_has_not_begun_is_waited_for_a_moment(tmp_path):
    with pytest.raises(InputError, match=r"no run there after 0\.2 s"):
        rb.attach(tmp_path / "nowhere", wait=0.2)
