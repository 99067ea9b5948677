"""The panel shows frames in one place and ends in one figure; it never harms the training."""

import signal

import pretend
import pytest

import rbkit as rb
from rbkit.errors import InputError, RbkitWarning
from rbkit.show.live.panel import LivePanel
from rbkit.train import Run

FRAME, FIGURE = ["text/html", "text/plain"], ["image/png", "text/plain"]


def train(folder, panel, steps=30, at=None):
    """Pretend to train; call ``at(step)`` before each step."""
    options = {"q": pretend.Q, "mixer": "RnB", "parameters": {"seed": 0}}
    with rb.live(folder, pretend.NAMES, steps=steps, display=panel, **options) as live:
        for step in live:
            if at is not None:
                at(step)
            pretend.one_step(live, step)
    return Run.open(folder)


def test_frames_while_training_and_one_figure_at_the_end(
    tmp_path, screen, frames_at_once, real_figure
):
    run = train(tmp_path, LivePanel("live", screen=screen))
    assert screen.kinds[:-1] == [FRAME] * (len(screen.kinds) - 1)
    assert screen.kinds[-1] == FIGURE
    assert len(screen.kinds) >= 5
    assert "running, step 0 of 30" in screen.words[0]
    assert "running, step 20 of 30" in " ".join(screen.words)
    assert "ok, step 30 of 30" in screen.words[-2]
    assert (tmp_path / "figures" / "live.png").read_bytes()[:4] == b"\x89PNG"
    assert 0 < run.info["watch"]["seconds"] < run.info["seconds"]


def test_frames_say_how_to_stop(tmp_path, screen):
    train(tmp_path, LivePanel("live", screen=screen))
    assert f"a file named STOP in {tmp_path}" in screen.shown[0].data["text/html"]
    assert "STOP" not in screen.shown[-2].data["text/html"]


def test_too_early_there_is_no_frame(tmp_path, screen):
    train(tmp_path, LivePanel("batch", screen=screen))
    assert screen.kinds == [FRAME, FRAME, FIGURE]  # the first, the last, and the figure


def test_final_is_one_figure_and_off_is_nothing(tmp_path, screen):
    train(tmp_path / "final", LivePanel("final", screen=screen))
    assert screen.kinds == [FIGURE]
    train(tmp_path / "off", LivePanel("off", screen=screen))
    assert screen.kinds == [FIGURE]
    assert not (tmp_path / "off" / "figures").exists()


def test_a_script_without_a_screen_still_gets_its_figure(tmp_path):
    panel = LivePanel()
    assert panel.mode == "final"
    train(tmp_path, panel, steps=10)
    assert (tmp_path / "figures" / "live.png").exists()


def test_the_mode_is_told_by_the_environment(monkeypatch):
    monkeypatch.setenv("RBKIT_DISPLAY", "batch")
    assert LivePanel().mode == "batch"
    assert LivePanel("off").mode == "off"
    monkeypatch.setenv("RBKIT_DISPLAY", "hologram")
    with pytest.raises(InputError, match="RBKIT_DISPLAY: 'hologram' is unknown"):
        LivePanel()


def test_a_screen_that_fails_does_not_end_the_training(tmp_path, broken_screen):
    with pytest.warns(RbkitWarning, match="LivePanel stopped watching, training continues"):
        run = train(tmp_path, LivePanel("live", screen=broken_screen))
    assert (run.status, run.info["progress"]["step"]) == ("ok", 30)


@pytest.mark.parametrize("how", ["file", "signal"])
def test_asked_to_stop_the_loop_ends_interrupted_with_its_figure(tmp_path, screen, how):
    def at(step):
        if step == 12:
            signal.raise_signal(signal.SIGINT) if how == "signal" else (tmp_path / "STOP").touch()

    run = train(tmp_path, LivePanel("live", screen=screen), at=at)
    assert (run.status, run.info["progress"]["step"]) == ("interrupted", 13)
    assert "interrupted, step 13 of 30" in screen.words[-1]
    assert not (tmp_path / "STOP").exists()


def test_an_error_in_the_loop_is_recorded_and_raised(tmp_path, screen):
    def at(step):
        if step == 12:
            raise RuntimeError("out of <memory>\nand more")

    with pytest.raises(RuntimeError, match="memory"):
        train(tmp_path, LivePanel("live", screen=screen), at=at)
    run = Run.open(tmp_path)
    assert (run.status, run.info["error"]) == ("failed", "RuntimeError: out of <memory>")
    assert "failed, step 12 of 30" in screen.words[-1]
    assert "&lt;memory&gt;" in screen.shown[-2].data["text/html"]
