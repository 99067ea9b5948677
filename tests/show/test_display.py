import base64
import subprocess
import sys

import pytest
from matplotlib.figure import Figure

from rbkit.show.style import bundle, set_alt, show, size_of
from rbkit.text import _widget_bar, progress_bar


def _figure():
    figure = Figure(figsize=(2, 1))
    set_alt(figure.subplots(), "A line.")
    return figure


def test_only_png_and_plain_text_leave_a_cell():
    data, metadata = bundle(_figure())
    assert set(data) == {"image/png", "text/plain"}
    assert data["text/plain"] == metadata["image/png"]["alt"] == "A line."
    width, _ = size_of(base64.b64decode(data["image/png"]))
    assert abs(metadata["image/png"]["width"] - width / 2) <= 1  # two pixels per CSS pixel


def test_where_someone_looks_on_the_picture_follows_the_theme(monkeypatch):
    monkeypatch.setenv("RBKIT_DISPLAY", "live")
    data, _ = bundle(_figure())
    assert set(data) == {"image/png", "text/html", "text/plain"}
    assert data["image/png"] in data["text/html"]
    assert '[data-jp-theme-light="false"]' in data["text/html"]


def test_show_returns_nothing_and_speaks_outside_of_a_notebook(capsys):
    assert show(_figure()) is None
    assert capsys.readouterr().out == "A line.\n"


def test_show_closes_figures_of_pyplot():
    import matplotlib

    before = matplotlib.get_backend()
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure = plt.figure()
    figure.subplots()
    show(figure)
    assert not plt.get_fignums()
    matplotlib.use(before)


def test_importing_show_imports_no_matplotlib():
    code = "import rbkit.show, sys; assert not {'matplotlib', 'IPython'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Kernel:
    kernel = True


@pytest.mark.parametrize("mode", ["", "live"])
def test_a_bar_in_a_notebook_is_a_widget_and_ends_as_one_line_of_text(monkeypatch, capsys, mode):
    shown = []
    monkeypatch.setenv("RBKIT_DISPLAY", mode)
    monkeypatch.setattr("IPython.get_ipython", Kernel)
    monkeypatch.setattr("IPython.display.DisplayHandle.display", lambda _, it: shown.append(it))
    monkeypatch.setattr(
        "IPython.display.DisplayHandle.update", lambda _, it, raw: shown.append(it["text/plain"])
    )
    _widget_bar.cache_clear()
    assert list(progress_bar("abc", desc="embed")) == ["a", "b", "c"]
    widget, line = shown
    assert type(widget).__name__ == "TqdmHBox"
    assert "embed: 100%" in line
    with progress_bar(total=3, delay=60) as bar:  # over before it would be shown
        bar.update(3)
    assert len(shown) == 2
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("mode", ["batch", "final", "off"])
def test_a_bar_in_a_notebook_that_nobody_looks_at_is_text(monkeypatch, capsys, mode):
    monkeypatch.setenv("RBKIT_DISPLAY", mode)
    monkeypatch.setattr("IPython.get_ipython", Kernel)
    list(progress_bar("abc", desc="embed"))
    assert "embed: 100%" in capsys.readouterr().err
