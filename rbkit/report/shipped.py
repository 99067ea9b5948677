"""The notebooks that come with rbkit: in the repository, or beside the installed package."""

from __future__ import annotations

import sys
from pathlib import Path

from rbkit.errors import InputError


def find_notebook(name: str) -> Path:
    """Return the notebook `name` of the repository, or of the installed package.

    Examples
    --------
    >>> find_notebook("90_run").name
    '90_run.ipynb'
    """
    repository = Path(__file__).resolve().parents[2]
    for folder in (repository / "notebooks", Path(sys.prefix) / "share" / "rbkit" / "notebooks"):
        if (folder / f"{name}.ipynb").is_file():
            return folder / f"{name}.ipynb"
    raise InputError(name, "no such notebook", "build them with: rbkit nb build")
