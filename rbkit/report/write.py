"""A report of runs: the page, all its numbers beside it, and on request a PDF."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rbkit.errors import InputError
from rbkit.files import write_text
from rbkit.report.compare.variants import Comparison, compare
from rbkit.report.index import render
from rbkit.report.page.kept import Kept
from rbkit.report.pdf import find_browser, html_to_pdf

NUMBERS = "numbers"  # the folder beside the page index.html


def write_report(
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    title: str | None = None,
    intro: str = "",
    baseline: str | Mapping[str, Any] | None = None,
    pdf: bool = False,
    progress: bool = True,
) -> Path:
    """Compare runs on one offline page, with CSV and Parquet of all numbers beside it.

    Parameters
    ----------
    paths : path, or sequence of paths
        Sweeps, run folders, or folders that hold run folders, in any mixture. A run that
        cannot be read is left out with an :class:`~rbkit.errors.RbkitWarning`.
    out : path
        The HTML file. The numbers go to the folder ``numbers`` beside it, those of a page that
        is not called ``index.html`` to a folder of its own: of ``a.html`` to ``a-numbers``.
    title : str, optional
        Of the page; the template of the sweep or the folder if not given.
    intro : str
        A paragraph of plain text under the title.
    baseline : str or mapping, optional
        What variants are compared with: ``"mixer=Target"``. If not given: Stratified, else
        Target, else Proportional, else the first variant.
    pdf : bool
        Print the page to ``out`` with the suffix ``.pdf``, by Chromium or Chrome.
    progress : bool
        Show a bar on stderr.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    InputError
        If there is no run, none has the baseline's values, `out` cannot be written, or there
        is no browser for ``pdf=True``. Then nothing was written.
    """
    from rbkit.report.collect import collect_runs

    out = Path(out)
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    browser = find_browser() if pdf else None  # asked first: it is what may be missing
    runs = collect_runs(given)
    if not runs:
        where = ", ".join(map(str, given)) or "paths"
        raise InputError(where, "no run folder in there", "give the folder that holds runs")
    comparison = compare([Kept(run) for run in runs], baseline)
    sweeps = _sweeps(given, runs)
    try:
        _write(comparison, out, sweeps, title or _title(given, sweeps), intro, progress)
    except OSError as error:
        raise InputError(
            str(out), f"cannot be written ({error.strerror or error})", "give another place for it"
        ) from error
    if browser is not None:
        html_to_pdf(out, out.with_suffix(".pdf"), browser=browser)
    return out


def _write(
    comparison: Comparison, out: Path, sweeps: Sequence[Mapping[str, Any]], title: str, intro: str,
    progress: bool,
) -> None:  # fmt: skip
    """Write numbers and page: both are made whole before one of them is shown."""
    from rbkit.report.compare import write_numbers

    out.parent.mkdir(parents=True, exist_ok=True)
    folder = numbers_of(out)
    with tempfile.TemporaryDirectory(prefix=".tmp-numbers-", dir=out.parent) as aside:
        files = write_numbers(comparison, Path(aside))
        page = render(
            comparison, out.parent, title=title,
            intro_html=f"<p>{escape(intro)}</p>" if intro else None,
            sweeps=sweeps, numbers=_listed(files, folder.name), progress=progress,
        )  # fmt: skip
        folder.mkdir(exist_ok=True)
        for path in files:
            os.replace(path, folder / path.name)
        write_text(out, page)


def _sweeps(given: Sequence[str | Path], runs: Sequence[Any]) -> list[dict[str, Any]]:
    """Return ``sweep.json`` of the sweeps that the runs are of, each once."""
    from rbkit.report.sweep.sweepfile import NAME, read_sweep

    near = [Path(path) for path in given]
    near += [folder for run in runs for folder in list(Path(run.path).resolve().parents)[:2]]
    folders = dict.fromkeys(path.resolve() for path in near if (path / NAME).is_file())
    found = []
    for folder in folders:
        try:
            found.append(read_sweep(folder))
        except InputError:
            continue  # collect_runs has said so, and its runs are readable all the same
    return found


def _title(given: Sequence[str | Path], sweeps: Sequence[Mapping[str, Any]]) -> str:
    if len(sweeps) == 1:
        return f"Sweep of {Path(str(sweeps[0]['template'])).stem}"
    name = Path(given[0]).resolve().name if len(given) == 1 else ""
    return f"Runs in {name}" if name else "Runs"


def numbers_of(page: Path) -> Path:
    """Return the folder of a page's numbers: two pages in one folder do not share theirs.

    Examples
    --------
    >>> numbers_of(Path("out/index.html")).name, numbers_of(Path("out/mixers.html")).name
    ('numbers', 'mixers-numbers')
    """
    return page.parent / (NUMBERS if page.name == "index.html" else f"{page.stem}-{NUMBERS}")


def _listed(files: Sequence[Path], folder: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the files by name: each with its formats and their addresses from the page."""
    found: dict[str, list[tuple[str, str]]] = {}
    for path in files:
        address = quote(f"{folder}/{path.name}")
        found.setdefault(path.stem, []).append((path.suffix.lstrip("."), address))
    return list(found.items())
