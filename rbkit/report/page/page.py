"""A report of runs: one offline page, all its numbers in a folder next to it, a PDF on request.

Everything is read from the run folders, so the page can be made again at any time, also for runs
that failed or have not ended. Its one script and its one style sheet are allowed by their hashes,
and nothing else is; figures are pictures inside the page.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
from markupsafe import Markup

import rbkit
from rbkit import text
from rbkit.errors import InputError, RbkitWarning
from rbkit.files import write_text
from rbkit.report.collect import collect_runs, damaged
from rbkit.report.compare.numbers import write_numbers
from rbkit.report.compare.paired import differences, reach_baseline
from rbkit.report.compare.variants import Comparison, compare
from rbkit.report.compare.words import findings
from rbkit.report.html import find_browser, html_to_pdf, mathml
from rbkit.report.page import tables
from rbkit.report.page.pictures import drawings, frames, names_of, picture
from rbkit.report.sweep.folder import SWEEP_FILE, read_sweep
from rbkit.show.facts import loss_unit, metric_names, mixer_of
from rbkit.text import progress_bar
from rbkit.train.run import MAPPINGS, Run, fits_together, orderly_info

NUMBERS = "numbers"  # the folder next to the page index.html
RULE = (
    r"p^{(t+1)} = \mathrm{softmax}\left(\lambda\,\frac{G^{(t)} q}{\lVert G^{(t)} q\rVert_2}\right)"
)


def write_report(
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    title: str | None = None,
    intro: str = "",
    baseline: str | Mapping[str, Any] | None = None,
    metric: str | None = None,
    higher_is_better: bool | None = None,
    pdf: bool = False,
    progress: bool = True,
) -> Path:
    """Compare runs on one offline page, with CSV and Parquet of all numbers next to it.

    Parameters
    ----------
    paths : path, or sequence of paths
        Sweeps, run folders, or folders that hold run folders, in any mixture. A run that
        cannot be read is shown as damaged, with an :class:`~rbkit.errors.RbkitWarning`.
    out : path
        The HTML file. The numbers go to the folder ``numbers`` next to it, those of a page that
        is not called ``index.html`` to a folder of its own: of ``a.html`` to ``a-numbers``.
    title : str, optional
        Of the page; the template of the sweep or the folder if not given.
    intro : str
        A paragraph of plain text under the title.
    baseline : str or mapping, optional
        What variants are compared with: ``"mixer=Target"``. If not given: Stratified, else
        Target, else Proportional, else the first variant.
    metric : str, optional
        Metric that variants are compared by, in place of the eval loss.
    higher_is_better : bool, optional
        Of the metric; as the runs recorded it if not given.
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
        If there is no run, none has the baseline's values or the metric, `out` cannot be
        written, or there is no browser for ``pdf=True``. Then nothing was written.
    """
    out = Path(out)
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    browser = find_browser() if pdf else None  # asked first: it is what may be missing
    runs = collect_runs(given)
    if not runs:
        where = ", ".join(map(str, given)) or "paths"
        raise InputError(where, "no run folder in there", "give the folder that holds runs")
    comparison = compare(
        [_orderly_or_damaged(run) for run in runs],
        baseline,
        metric=metric,
        higher_is_better=higher_is_better,
    )
    sweeps = _sweeps(given, runs)
    title = title or _title(given, sweeps)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = numbers_folder(out)
        # Numbers and page are both made whole before one of them is shown.
        with tempfile.TemporaryDirectory(prefix=".tmp-numbers-", dir=out.parent) as aside:
            files = write_numbers(comparison, aside)
            links: dict[str, list[tuple[str, str]]] = {}
            for path in files:
                address = quote(f"{folder.name}/{path.name}")
                links.setdefault(path.stem, []).append((path.suffix.lstrip("."), address))
            content = _content(comparison, out.parent.resolve(), sweeps, progress)
            page = (
                environment()
                .get_template("index.html.j2")
                .render(title=title, intro=intro, numbers=links, **content)
            )
            folder.mkdir(exist_ok=True)
            for path in files:
                os.replace(path, folder / path.name)
            write_text(out, page)
    except OSError as error:
        raise InputError(
            str(out), f"cannot be written ({error.strerror or error})", "give another place for it"
        ) from error
    if browser is not None:
        html_to_pdf(out, out.with_suffix(".pdf"), browser=browser)
    return out


def _sweeps(given: Sequence[str | Path], runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return ``sweep.json`` of the sweeps that the runs are of, each once."""
    near = [Path(path) for path in given]
    near += [folder for run in runs for folder in list(run.path.resolve().parents)[:2]]
    folders = dict.fromkeys(path.resolve() for path in near if (path / SWEEP_FILE).is_file())
    sweeps = []
    for folder in folders:
        try:
            sweeps.append(read_sweep(folder))
        except InputError:
            continue  # collect_runs has warned of it, and its runs are readable all the same
    return sweeps


def _title(given: Sequence[str | Path], sweeps: Sequence[Mapping[str, Any]]) -> str:
    if len(sweeps) == 1:
        return f"Sweep of {Path(str(sweeps[0]['template'])).stem}"
    name = Path(given[0]).resolve().name if len(given) == 1 else ""
    return f"Runs in {name}" if name else "Runs"


def numbers_folder(page: Path) -> Path:
    """Return the folder of a page's numbers: two pages in one folder do not share theirs.

    >>> numbers_folder(Path("out/index.html")).name, numbers_folder(Path("out/mixers.html")).name
    ('numbers', 'mixers-numbers')
    """
    return page.parent / (NUMBERS if page.name == "index.html" else f"{page.stem}-{NUMBERS}")


def _content(
    comparison: Comparison, folder: Path, sweeps: Sequence[Mapping[str, Any]], progress: bool
) -> dict[str, Any]:
    """Return what the template shows of a comparison; links are relative to `folder`."""
    runs = comparison.runs
    names = tables.run_names(comparison)
    whole = [run for run in runs if run.status == "ok"] or runs
    tracked = next((run for run in whole if np.asarray(run.history.get("gram", [])).size), None)
    subject = tracked or whole[0]
    domains = _domains(subject)
    gaps = differences(comparison)
    table = tables.run_rows(comparison, folder)
    ledger, means = tables.ledger_rows(comparison)
    varied = tables.varied_values(comparison)
    drawn = drawings(comparison, gaps, tracked, domains)
    bar = progress_bar(
        drawn.items(), desc="figures", disable=not progress, mininterval=1, leave=False
    )
    return {
        "css": asset("page.css"),
        "script": asset("scrubber.js") + "\n" + asset("tables.js"),
        "findings": findings(comparison),
        "not_final": tables.unfinished(runs),
        "facts": tables.facts(comparison, subject),
        "varied": varied,
        "incidental": tables.incidental_values(comparison),
        "variants": tables.variant_rows(comparison, gaps, reach_baseline(comparison)),
        "measure": comparison.measure,
        "metrics": metric_names(runs),
        "unit": loss_unit(runs),
        "baseline": comparison.baseline_label if len(comparison.variants) > 1 else "",
        "table": table,
        "columns": tables.columns(comparison),
        "seeds": len({row["seed"]["text"] for row in table}) > 1,
        "grams": any(row["gram"] for row in table),
        "linked": any(row["links"] for row in table),
        "failures": tables.failures(runs, names),
        "failed": sum(run.status in tables.FAILED for run in runs),
        "figures": {name: picture(draw()) for name, draw in bar},
        "many": any(len(variant.runs) > 1 for variant in comparison.variants),
        "by_domain_note": tables.by_domain_note(comparison),
        "left_out": tables.left_out_note(comparison),
        "tall": len(names_of(subject)) > 20,
        "rule": RULE,
        "frames": frames(tracked) if tracked is not None else None,
        "tracked": mixer_of(tracked) if tracked is not None else "",
        "cards": tables.card_rows(domains),
        "method": domains.method if domains is not None else {},
        "ledger": ledger,
        "ledger_means": means,
        "ledger_note": subject.info["ledger"].get("note", ""),
        "shared": comparison.shared,
        "differ": [*(name for name, _ in varied), *comparison.incidental],
        "environment": tables.environment_rows(runs, sweeps),
        "sweep_commands": tables.sweep_commands(sweeps),
        "commands": [(name, tables.command_of(run)) for run, name in zip(runs, names, strict=True)],
        "licences": tables.licences(subject.info["corpus"].get("licences")),
        "version": rbkit.__version__,
    }


def _domains(run: Run) -> Any:
    """Return the domains of the run, or None; of a damaged file there is a warning."""
    try:
        domains = run.domains
    except Exception as error:  # they break in many ways, and cost no report
        warnings.warn(f"domains left out of the report: {error}", RbkitWarning, stacklevel=2)
        return None
    if domains is not None:  # half a character in a name is more than a figure can draw
        domains.names = [name.encode("utf-8", "replace").decode() for name in domains.names]
    return domains


# ------------------------------------------------------------------------------ templates

_TEMPLATES = Path(__file__).parents[1] / "templates"


def environment() -> jinja2.Environment:
    """Return the jinja environment of all pages.

    Whatever a template writes is escaped, after :func:`rbkit.text.visible` has
    taken out what cannot be seen. Only what we made ourselves is marked ``safe``.
    """
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: (
            text.visible(value)
            if isinstance(value, str) and not hasattr(value, "__html__")
            else value
        ),
    )
    made.filters |= {
        "number": text.number,
        "signed": text.signed,
        "percent": text.percent,
        "seconds": text.seconds,
        "amount": text.amount,
        "thousands": text.thousands,
        "value": text.value_text,
        "hash_of": hash_of,
        "mathml": _mathml,
        "data": lambda value: "" if value is None else value,
    }
    return made


def _mathml(latex: str, display: bool = False) -> Markup:
    return Markup(mathml(latex, display))


@cache
def asset(name: str) -> str:
    """Return a file of the templates."""
    return (_TEMPLATES / name).read_text(encoding="utf-8").strip()


def hash_of(content: str) -> str:
    """Return the source expression by which a page's policy allows this style or script.

    >>> hash_of("")
    'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='
    """
    digest = hashlib.sha256(content.encode()).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


# ---------------------------------------------------------------------- runs put in order


def _orderly_or_damaged(run: Run) -> Run:
    try:
        return orderly(run)
    except Exception as error:  # of a file in which nothing is as it should be
        return orderly(damaged(run.path, error))


def orderly(run: Run) -> Run:
    """Return a run as the page sees it: read once, so that all parts of the page agree.

    Run folders may be damaged, or written by a stranger: what does not make sense is left out
    (:func:`~rbkit.train.run.orderly_info`), and what is missing is there and empty, so that
    nothing after this has to ask. Rows of training are many, and asked for once: they are read
    when they are.
    """
    status = run.status  # before the numbers: they may only be newer
    rows, history = run.metrics(), dict(run.history)
    kept = {kind: [row for row in rows if row.get("kind") == kind] for kind in ("eval", "metric")}
    if history and not fits_together(history):
        what = f"{run.path / 'history.npz'}: arrays that do not fit each other"
        warnings.warn(f"{what}, left out of the report", RbkitWarning, stacklevel=2)
        history = {}
    info = orderly_info(text.clean(dict(run.info or {})))
    info |= {name: info.get(name) or {} for name in MAPPINGS}
    info["ledger"].setdefault("entries", [])
    domains = info["domains"]
    domains.setdefault("names", [])
    losses = info["final"].get("by_domain_token") or []
    if losses and len(losses) != len(domains["names"]):  # nobody knows whose they are
        domains["names"] = [f"domain {i}" for i in range(len(losses))]
    if isinstance(info["parameters"].get("mixer"), str):  # it names lines in every figure
        info["parameters"]["mixer"] = info["parameters"]["mixer"][:40]
    return run.with_(
        status=status,
        info=info,
        history=history,
        metrics=lambda kind: kept[kind] if kind in kept else run.metrics(kind),
    )
