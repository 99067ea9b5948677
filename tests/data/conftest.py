from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from rbkit.data import assets
from rbkit.errors import AssetError

# No deadline: a machine that is busy with something else is no failure.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("RBKIT_CACHE", str(folder))
    return folder


@pytest.fixture
def real_asset() -> Callable[[str], Path]:
    """Gets an asset into the user's own cache, or skips the test if no index can be reached."""

    def get(name: str) -> Path:
        try:
            return assets.get(name, progress=False)
        except AssetError as error:
            if "pip could not download" in error.what:
                pytest.skip(f"no package index: {error}")
            raise

    return get
