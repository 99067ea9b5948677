"""The page of ``rbkit costs``: a figure and a table that open offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from rbkit.files import write_text
from rbkit.report.page.environment import asset, environment
from rbkit.report.page.pictures import picture
from rbkit.report.page.tiny import swatch
from rbkit.report.units import percent, thousands
from rbkit.show.facts import RunLike, parameter
from rbkit.show.style import (
    MUTED,
    legend_above,
    mixer_colour,
    new_axes,
    plain_ticks,
    rbkit_style,
    set_alt,
    tidy,
)

if TYPE_CHECKING:
    from rbkit.report.costs import CostRow

# What is shown, in the order of the bars: its name, and a look that differs without colour.
_KINDS = {
    "modelled": ("modelled, published rule", "#c9d3dd", "///"),
    "counted": ("counted FLOPs", "#0072B2", ""),
    "measured": ("measured seconds", "#D55E00", ""),
}


def overhead_bars(rows: Sequence[CostRow], ax: Axes | None = None) -> Axes:
    """Modelled, counted and measured overhead of each mixer on a logarithmic axis.

    Parameters
    ----------
    rows : sequence of CostRow
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    with rbkit_style():
        ax = new_axes(ax, 8.2, 1.2 + 0.52 * max(len(rows), 3))
        values = {kind: np.array([getattr(row, kind) or 0.0 for row in rows]) for kind in _KINDS}
        positive = np.concatenate(list(values.values()))
        positive = positive[positive > 0]
        low = 10.0 ** np.floor(np.log10(0.6 * positive.min())) if positive.size else 0.1
        low = max(low, 1e-3)  # what costs less has a number and no bar
        for i, (kind, (label, colour, hatch)) in enumerate(_KINDS.items()):
            at = np.arange(len(rows)) + (i - 1) * 0.27
            shown = np.maximum(values[kind], low)
            ax.barh(at, shown - low, 0.24, left=low, color=colour,
                    hatch=hatch, edgecolor="white", lw=0, label=label)  # fmt: skip
            for y, end, row in zip(at, shown, rows, strict=True):
                ax.annotate(share(getattr(row, kind)), (end, y), (3, 0), va="center", fontsize=7,
                            textcoords="offset points", color=MUTED)  # fmt: skip
        ax.set_xscale("log")
        ax.set_xlim(low, max(float(positive.max(initial=1.0)) * 6, low * 10))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g} %"))
        ax.minorticks_off()
        tidy(ax, "x")
        plain_ticks(ax.yaxis, [row.mixer for row in rows])
        ax.tick_params(axis="y", length=0)
        ax.invert_yaxis()
        ax.set_xlabel("overhead over plain training (logarithmic)")
        ax.set_title("What each rule costs")
        legend_above(ax)
        said = "; ".join(
            f"{row.mixer} {share(row.counted)} counted, {share(row.measured)} measured"
            for row in rows
        )
        set_alt(ax, f"Overhead of each rule over plain training: {said}.")
    return ax


def write_page(rows: Sequence[CostRow], runs: Sequence[RunLike], out: str | Path) -> Path:
    """Write the offline page of a table of costs; `runs` tell the setting."""
    templates = environment()
    templates.filters["share"] = share
    page = templates.get_template("costs.html.j2").render(
        css=asset("index.css", "page/print.css"),
        rows=[{**vars(row), "swatch": swatch(mixer_colour(row.mixer))} for row in rows],
        figure=picture(overhead_bars(rows)),
        facts=_facts(runs[0]) if runs else [],
        headline=headline(rows),
        note=(runs[0].info.get("ledger") or {}).get("note", "") if runs else "",
    )
    write_text(out, page)
    return Path(out)


def headline(rows: Sequence[CostRow]) -> str:
    """Say in a sentence what the rules cost."""
    paying = [row for row in rows if row.counted]
    if not paying:
        return "No rule of these needs a pass beyond training."
    first, last = paying[0], paying[-1]
    said = f"{len(rows) - len(paying)} of {len(rows)} rules need no pass beyond training."
    said += f" Of the others, {first.mixer} adds least ({share(first.counted)} of the FLOPs)"
    return f"{said} and {last.mixer} most ({share(last.counted)})."


def share(value: float | None) -> str:
    """Write a percentage with three digits at most; one that nobody would notice as such.

    Examples
    --------
    >>> share(0.2241), share(800.0), share(1e-5), share(None)
    ('0.22 %', '800 %', '< 0.01 %', '–')
    """
    if value is not None and 0 < value < 0.01:
        return "< 0.01 %"
    return percent(value) if value is None or value < 100 else f"{value:,.0f} %"


def _facts(run: RunLike) -> list[tuple[str, str]]:
    corpus, model = run.info.get("corpus") or {}, run.info.get("model") or {}
    entries = {e["name"]: e for e in (run.info.get("ledger") or {}).get("entries", [])}
    regroup = sum(entries[name]["seconds"] for name in ("embed", "cluster") if name in entries)
    found: list[tuple[str, Any]] = [
        ("corpus", corpus.get("name")),
        ("domains", len((run.info.get("domains") or {}).get("names") or [])),
        ("model", f"{model.get('name')}, {thousands(model.get('parameters'))} parameters"),
        ("examples per step", parameter(run, "batch_size")),
        ("device", run.info.get("device")),
        ("Regroup, once", f"{regroup:.1f} s"),
    ]
    return [(name, str(value)) for name, value in found if value not in (None, "")]
