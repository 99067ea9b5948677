import gc
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def small_collections():
    """Freeze what the imports have made.

    The library collects garbage before each training: with torch and transformers in memory
    that takes as long as a run of a few steps.
    """
    import job  # noqa: F401

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
