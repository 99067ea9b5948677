"""The explorer in a page without Jupyter, and what a hand does on it."""

from __future__ import annotations

import importlib.util
import types
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent


def load(name):
    """Import a module of this folder: the test folders are no packages."""
    spec = importlib.util.spec_from_file_location(f"rbkit_explorer_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fake_session():
    return load("fake_session").FakeSession


@pytest.fixture
def open_explorer(open_widget, fake_session):
    """Open the explorer alone in a page, answered by a fake session; it must stay quiet."""

    def start(session=None, silent=False, **options):
        from rbkit.show.widgets import joined

        look = {k: options.pop(k) for k in ("width", "height", "dark", "scale") if k in options}
        session = session or fake_session(**options)

        def hear(event):
            if event["kind"] == "save":
                if event["name"] == "selection":
                    event["value"] = session.selection = np.array(event["value"], int)
                session.state[event["name"]] = event["value"]
                return None
            before = {name: id(value) for name, value in session.state.items()}
            replies = session.handle(event["message"])
            wire = session.wire()
            changed = {n: wire[n] for n, v in session.state.items() if before.get(n) != id(v)}
            return {"state": changed, "replies": replies}

        page = open_widget(
            joined("js", "map", "explorer"), joined("css", "explorer"), session.wire(), hear, **look
        )
        if silent:
            page.evaluate("model.silent = true")
        page.session = session
        return page

    return start


def messages(page, kind=None):
    """What the explorer has sent so far."""
    sent = page.evaluate("model.sent")
    return [m for m in sent if kind in (None, m["type"])]


def operations(page):
    return [m["op"] for m in messages(page, "op")]


def lasso(page, corners, *, modifier=None, steps=6, pause=0):
    """Drag a loop on the map through corners in pixels of its canvas."""
    box = page.locator("[data-test=map]").last.bounding_box()
    if modifier:
        page.keyboard.down(modifier)
    for i, (x, y) in enumerate([*corners, corners[0]]):
        page.mouse.move(box["x"] + x, box["y"] + y, steps=1 if i == 0 else steps)
        if i == 0:
            page.mouse.down()
        if pause:
            page.wait_for_timeout(pause)
    page.mouse.up()
    if modifier:
        page.keyboard.up(modifier)


@pytest.fixture(scope="session")
def tools():
    """Helpers of this folder: ``lasso``, ``messages``, ``operations``."""
    return types.SimpleNamespace(lasso=lasso, messages=messages, operations=operations)
