"""Read a notebook, or say in one line what is wrong with the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rbkit.errors import InputError


def read_notebook(path: str | Path) -> Any:
    """Read a notebook in version 4 of the format.

    Raises
    ------
    InputError
        There is no such file, or it is not a notebook.
    """
    import nbformat

    try:
        return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    except FileNotFoundError:
        raise InputError(str(path), "no such notebook", "check the path") from None
    except (OSError, ValueError, KeyError, AttributeError, nbformat.ValidationError) as error:
        what = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InputError(
            str(path), f"not a notebook ({what})", "give a Jupyter notebook (.ipynb)"
        ) from error
