"""The widget in JupyterLab 4 and in Notebook 7, with a kernel behind it."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
SETUP = f"""
import sys, time
sys.path.insert(0, {str(HERE)!r})
from fake_session import FakeSession
from rbkit.show.explorer.widget import ExplorerWidget
session = FakeSession(n_train=%d, n_eval=%d, k=12)
widget = session.bind(ExplorerWidget())
arrived = []
widget.observe(lambda change: arrived.append((time.time(), len(widget.selected_rows))), "selection")
widget
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def opened(lab, write_notebook, tmp_path, request):
    def start(app, n_train=3000, n_eval=300, **options):
        path = write_notebook(tmp_path / "explorer.ipynb", SETUP % (n_train, n_eval))
        page = lab(path, app, **options)
        page.run_all()
        page.explorer()
        return page

    return start


def wait(page, code, wanted, seconds=20):
    for _ in range(10 * seconds):
        if page.ask(code) == wanted:
            return
        page.wait_for_timeout(100)
    assert page.ask(code) == wanted


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_lasso_slider_rename_and_undo_reach_the_kernel(opened, tools, app):
    page = opened(app)
    tools.lasso(page, [(60, 60), (320, 60), (320, 320), (60, 320)], pause=30)
    page.wait_for_selector("[data-test=selection-count]:has-text('selected')")
    page.wait_for_selector("[data-test=selection-list] [data-test=example]")
    shown = page.text_content("[data-test=selection-count]").split()[0].replace(",", "")
    assert int(shown) > 20
    wait(page, "len(widget.selected_rows)", shown)

    page.focus("[data-test=k]")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.wait_for_selector("[data-test=tab-domains]:has-text('15')")
    wait(page, "session.k", "15")

    page.click("[data-test=tab-domains]")
    page.focus("[data-test=card] >> nth=0")
    page.keyboard.press("F2")
    page.keyboard.type("dd aa bb xx")  # in command mode these would delete and insert cells
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-test=card-name]:has-text('dd aa bb xx')")
    page.keyboard.press("d")
    page.keyboard.press("d")
    wait(page, "'dd aa bb xx' in session.names.values()", "True")
    assert page.evaluate("jupyterapp.shell.currentWidget.content.widgets.length") == 1

    page.keyboard.press("Control+z")
    page.wait_for_selector("[data-test=card-name]:has-text('dd aa bb xx')", state="detached")
    assert page.noise == []


def test_two_views_of_one_widget_show_the_same(opened, lab, tools):
    page = opened("lab", height=1900)
    page.evaluate("""async () => {
      const book = jupyterapp.shell.currentWidget;
      await jupyterapp.commands.execute("notebook:insert-cell-below");
      book.content.activeCell.model.sharedModel.setSource("widget");
      await jupyterapp.commands.execute("notebook:run-cell");
    }""")
    page.wait_for_function("document.querySelectorAll('[data-test=explorer]').length === 2")
    page.wait_for_timeout(500)
    tools.lasso(page, [(60, 60), (320, 60), (320, 320), (60, 320)], pause=30)
    page.wait_for_function("""() => {
      const views = [...document.querySelectorAll("[data-test=explorer]")];
      const [a, b] = views.map((view) => view.explorer.store.selection.length);
      return a > 20 && a === b;
    }""")
    assert page.noise == []


def test_a_lasso_over_200_000_points_reaches_the_kernel_soon(opened, tools, capsys):
    page = opened("lab", n_train=198_000, n_eval=2_000)
    page.evaluate("""() => document.querySelector("[data-test=map]").addEventListener(
      "pointerup", () => { window.up = Date.now() / 1000; }, true)""")
    times = []
    for shift in (0, 20, 40):
        tools.lasso(page, [(60 + shift, 60), (420, 60), (420, 420), (60, 420)], pause=30)
        page.wait_for_timeout(1500)
        times.append(float(page.ask("arrived[-1][0]")) - page.evaluate("window.up"))
    assert int(page.ask("arrived[-1][1]")) > 20_000
    with capsys.disabled():
        print(f"\nlasso to kernel at 200,000 points: {min(times):.2f} s (of {len(times)} tries)")
    assert min(times) < 1.5
    assert page.noise == []
