"""What all tests share: no hub, no deadlines, figures without a screen."""

import importlib.util
import os
from pathlib import Path

# Nothing here may reach for a model hub: without this a wrong name costs half a minute of retries.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest
from hypothesis import settings

# No deadline: a machine that is busy with something else is no failure.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def write_run():
    """Write a run folder with plausible numbers, and open it."""
    # The test folders are no packages (importlib mode), so load the module by its path.
    path = Path(__file__).parent / "show" / "fake_runs.py"
    spec = importlib.util.spec_from_file_location("rbkit_fake_runs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_run


@pytest.fixture(scope="session")
def runs(tmp_path_factory, write_run):
    """One run folder for each mixer of the demo."""
    folder = tmp_path_factory.mktemp("runs")
    return [write_run(folder / mixer, mixer) for mixer in ("Stratified", "Target", "RnB")]
