"""A page with a widget and no Jupyter."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
AT = "http://widget.test"

# JupyterLab's dark theme, as far as the widgets look at it.
DARK = """() => Object.entries({
  "--jp-layout-color0": "#111111", "--jp-layout-color1": "#212121",
  "--jp-ui-font-color0": "rgba(255,255,255,1)", "--jp-ui-font-color1": "rgba(255,255,255,0.87)",
  "--jp-ui-font-color2": "rgba(255,255,255,0.54)", "--jp-border-color2": "#616161",
}).forEach(([name, value]) => document.documentElement.style.setProperty(name, value))"""


@pytest.fixture
def open_widget(chromium):
    """Open a widget alone in a page: ``open_widget(script, style, state, hear)``.

    `hear` gets ``{"kind": "save", "name", "value"}`` or ``{"kind": "message", "message"}`` and
    answers a message with ``{"state", "replies"}``. The page must stay quiet: no word on its
    console, no request but for its own files.
    """
    contexts, noise = [], []

    def start(script, style, state, hear, width=1240, height=860, dark=False, scale=1):
        context = chromium.new_context(
            viewport={"width": width, "height": height}, device_scale_factor=scale
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: noise.append(message.text))
        page.on("pageerror", lambda error: noise.append(str(error)))
        page.on(
            "request", lambda r: r.url.startswith((AT, "data:", "blob:")) or noise.append(r.url)
        )
        html = (HERE / "page.html").read_text("utf-8").replace("/*STYLE*/", style)
        files = {
            "/": (html, "text/html"),
            "/widget.js": (script, "text/javascript"),
            "/favicon.ico": ("", "image/x-icon"),
        }

        def serve(route):
            body, kind = files[route.request.url.removeprefix(AT)]
            route.fulfill(body=body, content_type=kind + "; charset=utf-8")

        context.route(AT + "/**", serve)
        page.expose_function("toPython", hear)
        page.goto(AT + "/")
        if dark:
            page.evaluate(DARK)
        page.evaluate(f"window.address = '{AT}/widget.js'")
        page.wait_for_function("window.ready")
        page.evaluate("state => start(state)", state)
        return page

    yield start
    for context in contexts:
        context.close()
    assert noise == []
