import base64
import subprocess
import sys

from matplotlib.figure import Figure

from rbkit.show.style import bundle, set_alt, show, size_of


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
