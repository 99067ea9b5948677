import importlib.util
import sys
from pathlib import Path

import pytest


def _load():
    # The test folders are no packages (importlib mode), so load the neighbour by its path.
    name = "rbkit_fake_runs"
    if name not in sys.modules:
        path = Path(__file__).parent / "fake_runs.py"
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def fake_runs():
    return _load()


@pytest.fixture(scope="session")
def write_run(fake_runs):
    return fake_runs.write_run


@pytest.fixture(scope="session")
def runs(tmp_path_factory, write_run):
    folder = tmp_path_factory.mktemp("runs")
    return [write_run(folder / mixer, mixer) for mixer in ("Stratified", "Target", "RnB")]
