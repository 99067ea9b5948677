"""The panel in JupyterLab and Notebook 7, in untrusted notebooks and in exported pages."""

import json
import threading
import time
from pathlib import Path

import nbformat
import pretend
import pytest

import rbkit as rb
from rbkit.show.live.frame import frame_html
from rbkit.show.live.snapshot import snapshot
from rbkit.train import Run

pytestmark = [pytest.mark.slow, pytest.mark.browser]

SETUP = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import pretend, rbkit as rb
from rbkit.show.live import panel
panel._PANEL_SHARE, panel._LEAST["live"] = 1.0, 0.1  # many frames in a short time
"""
TRAIN = """
with rb.live("run", pretend.NAMES, q=pretend.Q, mixer="RnB", steps=80) as live:
    for step in live:
        time.sleep(0.02)
        pretend.one_step(live, step)
"""
# From the first frame to the end: how high the output is whenever the browser draws.
WATCH = """() => {
  window.heights = []; window.sources = new Set();
  const sample = () => {
    const img = document.querySelector('.jp-OutputArea-output img');
    const area = document.querySelectorAll('.jp-CodeCell .jp-OutputArea');
    if (img) window.sources.add(img.src.length + img.src.slice(-40, -20));
    const height = [...area].reduce((sum, one) => sum + one.offsetHeight, 0);
    if (img || window.heights.length) window.heights.push(Math.round(height));
    requestAnimationFrame(sample);
  };
  sample();
}"""


def saved(page, path):
    """Save the notebook; return it as it is in the file."""
    page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    for _ in range(100):
        book = nbformat.read(path, 4)
        if book.cells[-1].get("outputs"):
            return book
        time.sleep(0.1)
    raise AssertionError("not saved")


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_it_is_shown_while_training_and_does_not_flicker(lab, write_notebook, tmp_path, app):
    path = write_notebook(tmp_path / "live.ipynb", SETUP, TRAIN)
    page = lab(path, app)
    page.evaluate(WATCH)
    page.run_all()
    page.wait_for_function(
        "() => document.querySelector('.jp-OutputArea-output img')?.src"
        ".startsWith('data:image/png')"
    )
    heights = page.evaluate("window.heights")
    assert len(page.evaluate("[...window.sources]")) >= 4  # frames, and the figure
    assert min(heights) > 300  # it never collapses
    assert page.noise == []
    assert Run.open(tmp_path / "run").status == "ok"
    (output,) = saved(page, path).cells[-1].outputs  # one, however many frames there were
    assert set(output.data) == {"image/png", "text/html", "text/plain"}  # HTML knows the theme

    from rbkit.report.html import notebook_to_html

    html = notebook_to_html(path, tmp_path / "live.html").read_text("utf-8")
    assert "Run RnB: finished at step 80" in html
    assert "data:image/png;base64," in html


def test_an_untrusted_notebook_shows_the_last_frame(lab, write_notebook, write_run, tmp_path):
    html = frame_html(snapshot(write_run(tmp_path / "run")))
    path = write_notebook(tmp_path / "cloned.ipynb", "rb.train()")
    book = nbformat.read(path, 4)
    data = {"text/html": html, "text/plain": "RnB"}
    book.cells[0].outputs = [nbformat.v4.new_output("display_data", data=data)]
    book.cells[0].execution_count = 1  # as if it had run on another machine
    nbformat.write(book, path)
    page = lab(path)
    image = page.locator(".jp-OutputArea-output img")
    image.wait_for()
    assert page.evaluate(
        "() => jupyterapp.shell.currentWidget.content.widgets[0].model.trusted"
    ) is (False)
    page.wait_for_function(
        "() => document.querySelector('.jp-OutputArea-output img').naturalWidth > 900"
    )
    assert image.bounding_box()["width"] > 600
    assert "Gram" in image.get_attribute("alt") or "cosines" in image.get_attribute("alt")


def test_attached_from_another_process_with_buttons_that_work(lab, write_notebook, tmp_path):
    path = write_notebook(tmp_path / "attached.ipynb", 'import rbkit as rb\nrb.attach("run")')
    options = {"q": pretend.Q, "mixer": "RnB", "steps": 10_000, "display": False}
    done = threading.Event()

    def train():
        with rb.live(tmp_path / "run", pretend.NAMES, **options) as live:
            for step in live:
                time.sleep(0.02)
                pretend.one_step(live, step % 200)
                if done.is_set():
                    break

    training = threading.Thread(target=train)
    training.start()
    try:
        page = lab(path)
        page.run_all()
        image = page.locator(".jp-OutputArea-output img").first
        image.wait_for()
        page.wait_for_function(
            "() => document.querySelector('.jp-OutputArea-output img').alt.includes('cosines')"
        )
        page.get_by_role("button", name="inner products").or_(
            page.locator("button", has_text="inner products")
        ).first.click()
        page.wait_for_function(
            "() => document.querySelector('.jp-OutputArea-output img').alt"
            ".includes('inner products of')"
        )
        done.set()  # the run ends: so does the view
        training.join()
        page.wait_for_function(
            "() => [...document.querySelectorAll('.jp-OutputArea-output img')]"
            ".some(img => img.src.startsWith('data:image/png'))",
            timeout=100_000,
        )
        assert page.locator(".widget-toggle-buttons").count() == 0
        assert page.noise == []
    finally:
        done.set()
        training.join()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"
