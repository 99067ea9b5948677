"""Notebooks in git: percent-format masters make output-free notebooks, always the same bytes.

``notebooks/src/NN_name.py`` is what is edited and reviewed; ``notebooks/NN_name.ipynb``
is made from it. Cell ids come from the cells' own text, so that a change of one cell
changes one cell. :func:`pull` brings edits made in JupyterLab back to the master.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from rbkit.errors import InputError
from rbkit.files import regular, write_text


def read_notebook(path: str | Path) -> Any:
    """Read a notebook in version 4 of the format.

    Raises
    ------
    InputError
        There is no such file, or it is not a notebook.
    """
    import nbformat

    try:
        node = nbformat.read(regular(path), as_version=4)  # type: ignore[no-untyped-call]
        name = node.metadata.get("kernelspec", {}).get("name", "")
        if not isinstance(name, str):
            raise TypeError("its kernel has no name")
        return node
    except FileNotFoundError:
        raise InputError(str(path), "no such notebook", "check the path") from None
    except InputError:
        raise
    except (
        *(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError),
        nbformat.ValidationError,
    ) as error:
        what = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InputError(
            str(path), f"not a notebook ({what})", "give a Jupyter notebook (.ipynb)"
        ) from error


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


def notebooks_folder(folder: str | Path | None = None) -> Path:
    """Return a folder of the user's that holds rbkit's notebooks.

    In a checkout it is the checkout's own. Those of an installed package are part of the
    environment: they are copied to `folder`, ``rbkit-notebooks`` if none is given. A notebook
    that is there already stays as it is.
    """
    source = find_notebook("00_tour").parent
    if folder is None and source.parent == Path(__file__).resolve().parents[2]:
        return source
    folder = Path(folder or "rbkit-notebooks").resolve()
    if folder.is_relative_to(source):
        raise InputError(
            str(folder), "belongs to the environment", "give a folder of yours: rbkit lab FOLDER"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for notebook in sorted(source.glob("*.ipynb")):
            if not (folder / notebook.name).exists():
                write_text(folder / notebook.name, notebook.read_text(encoding="utf-8"))
    except OSError as error:
        why = f"cannot be written ({error.strerror or error})"
        raise InputError(str(folder), why, "give another folder: rbkit lab FOLDER") from error
    return folder


def find_template(template: str | Path) -> Path:
    """Return the path of a notebook: of a file, or of one of rbkit's by its name."""
    path = Path(template)
    named = not path.is_file() and not path.suffix and len(path.parts) <= 1
    return find_notebook(path.name) if named else path


_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}

# The metadata of a cell that belong into git; the rest (execution times, folding) does not.
_CELL_METADATA = ("tags", "slideshow")


def build(src_dir: str | Path, out_dir: str | Path) -> list[Path]:
    """Make ``out_dir/NN_name.ipynb`` from every master ``src_dir/NN_name.py``.

    Returns
    -------
    list of Path
        The notebooks that were written; one that would not change is not touched.
    """
    written = []
    for source in _masters(src_dir):
        out = Path(out_dir) / f"{source.stem}.ipynb"
        text = render(source)
        if not out.exists() or out.read_text(encoding="utf-8") != text:
            write_text(out, text)
            written.append(out)
    return written


def check(src_dir: str | Path, out_dir: str | Path) -> list[str]:
    """Compare notebooks with their masters.

    Returns
    -------
    list of str
        One line per notebook that is missing, differs, holds outputs or has no master;
        empty if all is well.
    """
    problems = []
    masters = _masters(src_dir)
    for source in masters:
        out = Path(out_dir) / f"{source.stem}.ipynb"
        if not out.exists():
            problems.append(f"{out.name}: missing; build it from {source.name}")
        elif out.read_text(encoding="utf-8") != render(source):
            why = "holds outputs" if _has_outputs(out) else "differs"
            problems.append(f"{out.name}: {why}; build it from {source.name}, or pull it back")
    stems = {source.stem for source in masters}
    for out in sorted(Path(out_dir).glob("*.ipynb")):
        if out.stem not in stems:
            problems.append(f"{out.name}: has no master; pull it into {Path(src_dir).name}/")
    return problems


def pull(ipynb: str | Path, src: str | Path) -> Path:
    """Write the cells of a notebook, e.g. edited in JupyterLab, to its master `src`."""
    src = Path(src)
    notebook = _clean(read_notebook(ipynb))
    # No header: it would hold versions, and change with them.
    notebook.metadata = {"jupytext": {"notebook_metadata_filter": "-all"}}
    write_text(src, _jupytext().writes(notebook, fmt="py:percent"))
    return src


def render(source: str | Path) -> str:
    """Return the text of the notebook that a master makes."""
    jupytext = _jupytext()
    try:
        notebook = jupytext.read(source, fmt="py:percent")
    except (ValueError, TypeError, AttributeError) as error:  # nbformat's, too
        what = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(str(source), f"makes no notebook ({what[0]})", "repair it") from error
    return json.dumps(_clean(notebook), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _clean(notebook: Any) -> Any:
    import nbformat

    new: Any = nbformat.v4  # its makers of cells are untyped
    made, seen = [], dict[str, int]()
    for cell in notebook.cells:
        source = cell.source.rstrip()
        digest = hashlib.sha256(source.encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, 0) + 1
        metadata = {k: cell.metadata[k] for k in _CELL_METADATA if cell.metadata.get(k)}
        make = getattr(new, f"new_{cell.cell_type}_cell")
        # The same text may occur twice: count the occurrences from 0.
        made.append(make(source, id=f"{digest}-{seen[digest] - 1}", metadata=metadata))
    clean = new.new_notebook(
        cells=made, metadata={"kernelspec": _KERNEL, "language_info": {"name": "python"}}
    )
    clean.nbformat_minor = 5
    nbformat.validate(clean)
    return clean


def _masters(src_dir: str | Path) -> list[Path]:
    if not Path(src_dir).is_dir():
        raise InputError(str(src_dir), "no such folder", "give the folder with the masters")
    return sorted(Path(src_dir).glob("[0-9]*.py"))


def _has_outputs(path: Path) -> bool:
    try:
        cells = json.loads(path.read_text(encoding="utf-8")).get("cells", [])
    except json.JSONDecodeError:
        return False
    return any(cell.get("outputs") for cell in cells)


def _jupytext() -> Any:
    try:
        import jupytext
    except ImportError as error:
        raise InputError(
            "jupytext", "not installed, and needed to build notebooks", "pip install 'rbkit[dev]'"
        ) from error
    return jupytext
