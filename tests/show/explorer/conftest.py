"""A page with the explorer and no Jupyter, and what a hand does on it."""

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
def open_explorer(chromium, fake_session):
    """Open the explorer alone in a page, answered by a fake session; it must stay quiet."""
    contexts, noise = [], []

    def start(session=None, width=1240, height=860, dark=False, silent=False, scale=1, **options):
        from rbkit.show.explorer.widget import script, style

        session = session or fake_session(**options)
        context = chromium.new_context(
            viewport={"width": width, "height": height}, device_scale_factor=scale
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: noise.append(message.text))
        page.on("pageerror", lambda error: noise.append(str(error)))
        page.on("request", lambda r: r.url.startswith("http://explorer.test/") or
                r.url.startswith(("data:", "blob:")) or noise.append(r.url))  # fmt: skip
        html = (HERE / "page.html").read_text("utf-8").replace("/*STYLE*/", style())
        files = {"/": (html, "text/html"), "/explorer.js": (script(), "text/javascript"),
                 "/favicon.ico": ("", "image/x-icon")}  # fmt: skip

        def serve(route):
            body, kind = files[route.request.url.removeprefix("http://explorer.test")]
            route.fulfill(body=body, content_type=kind + "; charset=utf-8")

        context.route("http://explorer.test/**", serve)

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

        page.expose_function("toPython", hear)
        page.goto("http://explorer.test/")
        if dark:
            page.evaluate(DARK)
        page.evaluate("window.address = 'http://explorer.test/explorer.js'")
        page.wait_for_function("window.ready")
        page.evaluate("state => start(state)", session.wire())
        if silent:
            page.evaluate("model.silent = true")
        page.session = session
        return page

    yield start
    for context in contexts:
        context.close()
    assert noise == []


# JupyterLab's dark theme, as far as the explorer looks at it.
DARK = """() => Object.entries({
  "--jp-layout-color0": "#111111", "--jp-layout-color1": "#212121",
  "--jp-ui-font-color0": "rgba(255,255,255,1)", "--jp-ui-font-color1": "rgba(255,255,255,0.87)",
  "--jp-ui-font-color2": "rgba(255,255,255,0.54)", "--jp-border-color2": "#616161",
}).forEach(([name, value]) => document.documentElement.style.setProperty(name, value))"""


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
