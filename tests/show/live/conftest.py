import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for pretend.py


class FakeScreen:
    """Keeps what it is shown."""

    def __init__(self, fails=False):
        self.shown, self.fails = [], fails

    def show(self, output):
        if self.fails:
            raise OSError("the screen is gone")
        self.shown.append(output)

    @property
    def kinds(self):
        return [sorted(output.data) for output in self.shown]

    @property
    def words(self):
        return [output.data["text/plain"] for output in self.shown]


@pytest.fixture
def screen():
    return FakeScreen()


@pytest.fixture
def broken_screen():
    return FakeScreen(fails=True)


@pytest.fixture
def frames_at_once(monkeypatch):
    """Panels and attached views draw at every look, whatever it costs."""
    from rbkit.show.live import panel

    monkeypatch.setattr(panel, "_PANEL_SHARE", 1e9)
    monkeypatch.setattr(panel, "_ATTACHED_SHARE", 1e9)
    monkeypatch.setattr(panel, "_LEAST", {"live": 0.0, "batch": 25.0})


@pytest.fixture
def real_figure():
    """Let a test end with the true figure."""


@pytest.fixture(autouse=True)
def quick_figure(request, monkeypatch):
    """The figure at the end takes a second, and is tested elsewhere: most do with its words."""
    if {"real_figure", "lab"} & set(request.fixturenames):
        return
    from rbkit.show.live.frame import alt
    from rbkit.show.live.panel import Output, View
    from rbkit.show.live.snapshot import snapshot

    def figure(view):
        words = alt(snapshot(view.run))
        return Output({"image/png": "iVBORw0KGgo=", "text/plain": words}, {})

    monkeypatch.setattr(View, "figure", figure)
