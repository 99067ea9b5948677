"""One offline page that compares runs: what was done, what came out, what it cost.

Everything is read from the run folders, so the page can be made again at any time, also
for runs that failed or have not ended. Figures are pictures inside the page; its one
script, which sorts and filters the tables and draws the Gram matrix of any round, and its
one style sheet are allowed by their hashes, and nothing else is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rbkit.files import write_text
from rbkit.report.compare.paired import differences
from rbkit.report.compare.reach import reach_baseline
from rbkit.report.compare.variants import Comparison, compare
from rbkit.report.html import mathml
from rbkit.report.page.cards import card_rows
from rbkit.report.page.environment import asset, environment
from rbkit.report.page.failures import FAILED, failures, unfinished
from rbkit.report.page.frames import frames, names_of
from rbkit.report.page.header import (
    beside,
    by_domain_note,
    facts,
    intro,
    left_out_note,
    licences,
    varied,
)
from rbkit.report.page.kept import Kept
from rbkit.report.page.ledger_table import ledger_rows
from rbkit.report.page.pictures import drawings, picture
from rbkit.report.page.repeat import command_of, environment_rows, sweep_commands
from rbkit.report.page.result import sentences
from rbkit.report.page.runs_table import columns, run_names, run_rows
from rbkit.report.page.variants_table import variant_rows
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
        "commands": [{"name": name, "command": command_of(run)}
                     for run, name in zip(runs, names, strict=True)],
        "licences": licences(corpus.get("licences")),
        "made_with": _version(),
    }  # fmt: skip


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
