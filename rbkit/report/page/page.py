"""A report of runs: the page, all its numbers beside it, and on request a PDF."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from rbkit.errors import InputError
from rbkit.files import write_text
from rbkit.report.compare.paired import differences, reach_baseline
from rbkit.report.compare.variants import Comparison, compare
from rbkit.report.html import find_browser, html_to_pdf, mathml
from rbkit.report.page.environment import asset, environment
from rbkit.report.page.kept import Kept
from rbkit.report.page.pictures import drawings, frames, names_of, picture
from rbkit.report.page.tables import (
    FAILED,
    beside,
    by_domain_note,
    card_rows,
    columns,
    command_of,
    environment_rows,
    facts,
    failures,
    intro,
    ledger_rows,
    left_out_note,
    licences,
    run_names,
    run_rows,
    sentences,
    sweep_commands,
    unfinished,
    variant_rows,
    varied,
)
from rbkit.show.facts import RunLike, mixer_of

RULE = (
    r"p^{(t+1)} = \mathrm{softmax}\left(\lambda\,\frac{G^{(t)} q}{\lVert G^{(t)} q\rVert_2}\right)"
)


def write_index(
    runs: Sequence[RunLike],
    out: str | Path,
    *,
    title: str = "rbkit report",
    intro_html: str | None = None,
    baseline: str | Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Path:
    """Write one self-contained page that compares `runs`.

    Parameters
    ----------
    runs : sequence of Run
        Runs in any state; what became of those that failed is told in a section of its own.
    out : path
        The HTML file, usually ``reports/<name>/index.html``. Links to ``run.html`` and
        ``run.ipynb`` of each run are relative to it and made only where the file exists.
    title : str
    intro_html : str, optional
        A paragraph of HTML of your own under the title; scripts, styles and pictures from
        elsewhere are taken out of it.
    baseline : str or mapping, optional
        What the variants are compared with, as of :func:`rbkit.report.compare.compare`.
    progress : bool
        Show a bar on stderr.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    InputError
        If no run has the baseline's values.
    """
    out = Path(out)
    comparison = compare([Kept(run) for run in runs], baseline)
    page = render(comparison, out.parent, title=title, intro_html=intro_html, progress=progress)
    write_text(out, page)
    return out


def render(
    comparison: Comparison,
    folder: str | Path,
    *,
    title: str,
    intro_html: str | None = None,
    sweeps: Sequence[Mapping[str, Any]] = (),
    numbers: Sequence[tuple[str, list[tuple[str, str]]]] = (),
    progress: bool = False,
) -> str:
    """Return the page as text.

    Parameters
    ----------
    comparison : Comparison
        Of :class:`~rbkit.report.page.kept.Kept` runs.
    folder : path
        Where the page will be: links are relative to it.
    title, intro_html, progress
        As of :func:`write_index`.
    sweeps : sequence of mapping
        Contents of ``sweep.json`` of the sweeps that the runs are of.
    numbers : sequence of (name, [(kind, address), ...])
        Files to link to.
    """
    made: str = (
        environment()
        .get_template("index.html.j2")
        .render(
            title=title,
            intro=intro(intro_html),
            css=asset("index.css", "page/page.css", "page/print.css"),
            script=asset("page/scrubber.js", "page/tables.js"),
            rule=mathml(RULE, display=True),
            symbols={name: mathml(name) for name in ("p", "q", "G", "G q", r"\lambda", "k")},
            numbers=numbers,
            **_content(comparison, Path(folder).resolve(), sweeps, progress),
        )
    )
    return made


def _content(
    comparison: Comparison, folder: Path, sweeps: Sequence[Mapping[str, Any]], progress: bool
) -> dict[str, Any]:
    runs: list[Any] = list(comparison.runs)
    whole = [run for run in runs if run.status == "ok"] or runs
    tracked = next((run for run in whole if np.asarray(run.history.get("gram", [])).size), None)
    subject = tracked or next(iter(whole), None)
    domains = subject.domains if subject is not None else None
    info = subject.info if subject is not None else {}
    gaps = differences(comparison)
    headline, cautions = sentences(comparison, gaps)
    table, names = run_rows(comparison, folder), run_names(comparison)
    ledger, means = ledger_rows(comparison)
    corpus = info.get("corpus") or {}
    return {
        "headline": headline,
        "cautions": cautions,
        "not_final": unfinished(runs),
        "facts": facts(comparison, info),
        "varied": varied(comparison),
        "variants": variant_rows(comparison, gaps, reach_baseline(comparison)),
        "variants_note": _VARIANTS,
        "baseline": comparison.baseline_label if len(comparison.variants) > 1 else "",
        "table": table,
        "columns": columns(comparison),
        "seeds": len({row["seed"]["text"] for row in table}) > 1,
        "grams": any(row["gram"] for row in table),
        "linked": any(row["links"] for row in table),
        "failures": failures(runs, names),
        "failed": sum(run.status in FAILED for run in runs),
        "figures": _drawn(drawings(comparison, gaps, tracked, domains), progress),
        "many": any(len(variant.runs) > 1 for variant in comparison.variants),
        "by_domain_note": by_domain_note(comparison),
        "left_out": left_out_note(comparison),
        "tall": subject is not None and len(names_of(subject)) > 20,
        "frames": frames(tracked) if tracked is not None else None,
        "tracked": mixer_of(tracked) if tracked is not None else "",
        "cards": card_rows(domains),
        "method": domains.method if domains is not None else {},
        "ledger": ledger,
        "ledger_means": means,
        "ledger_of": "each variant" if means else "each run",
        "ledger_caption": "Means over the finished runs of a variant." if means else "",
        "ledger_note": (info.get("ledger") or {}).get("note", ""),
        "shared": comparison.shared,
        "beside": beside(comparison),
        "differ": [*(name for name, _ in varied(comparison)), *comparison.beside],
        "environment": environment_rows(runs, sweeps),
        "sweep_commands": sweep_commands(sweeps),
        "commands": [
            {"name": name, "command": command_of(run)}
            for run, name in zip(runs, names, strict=True)
        ],
        "licences": licences(corpus.get("licences")),
        "made_with": _version(),
    }


_VARIANTS = (
    "Means over seeds, lowest loss first; losses in nats per token. Differences are paired by "
    "seed. Steps and FLOPs to the baseline's final loss, over what the baseline took: less than 1 "
    "is sooner. Training, FLOPs and overhead hold all that the rule added: tracking, Gram matrix, "
    "the rule itself, probe and reference runs. Overhead: over the plain training steps."
)


def _drawn(wanted: Mapping[str, Any], progress: bool) -> dict[str, dict[str, Any]]:
    from tqdm import tqdm

    bar = tqdm(wanted.items(), desc="figures", disable=not progress, mininterval=1, leave=False)
    return {name: picture(draw()) for name, draw in bar}


def _version() -> str:
    from rbkit import __version__

    return str(__version__)


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
    comparison: Comparison,
    out: Path,
    sweeps: Sequence[Mapping[str, Any]],
    title: str,
    intro: str,
    progress: bool,
) -> None:
    """Write numbers and page: both are made whole before one of them is shown."""
    from rbkit.report.compare import write_numbers

    out.parent.mkdir(parents=True, exist_ok=True)
    folder = numbers_of(out)
    with tempfile.TemporaryDirectory(prefix=".tmp-numbers-", dir=out.parent) as aside:
        files = write_numbers(comparison, Path(aside))
        page = render(
            comparison,
            out.parent,
            title=title,
            intro_html=f"<p>{escape(intro)}</p>" if intro else None,
            sweeps=sweeps,
            numbers=_listed(files, folder.name),
            progress=progress,
        )
        folder.mkdir(exist_ok=True)
        for path in files:
            os.replace(path, folder / path.name)
        write_text(out, page)


def _sweeps(given: Sequence[str | Path], runs: Sequence[Any]) -> list[dict[str, Any]]:
    """Return ``sweep.json`` of the sweeps that the runs are of, each once."""
    from rbkit.report.sweep.folder import SWEEP_FILE, read_sweep

    near = [Path(path) for path in given]
    near += [folder for run in runs for folder in list(Path(run.path).resolve().parents)[:2]]
    folders = dict.fromkeys(path.resolve() for path in near if (path / SWEEP_FILE).is_file())
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
