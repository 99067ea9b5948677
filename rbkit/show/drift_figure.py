"""What has changed since the domains were made: shares and distances, then and now."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rbkit.show.style import (
    INK,
    MUTED,
    legend_above,
    mixer_colour,
    new_axes,
    plain_ticks,
    rbkit_style,
    set_alt,
    shorten,
    tidy,
)

_THEN, _NOW = "#8c959f", mixer_colour("Target")
_MOST = 30


def drift_shares(report: Any, ax: Axes | None = None) -> Axes:
    """Share of each domain then and now, with the band that chance alone would stay in.

    Parameters
    ----------
    report : Drift
        From :func:`rbkit.regroup.drift.drift_report`.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
        Domains by their change, growing ones first; a filled mark has left the band.
    """
    table = report.table
    change = table["change"].to_numpy()
    kept = np.argsort(-np.abs(change), kind="stable")[:_MOST]
    kept = kept[np.argsort(-change[kept], kind="stable")]
    then, now = 100 * table["then"].to_numpy()[kept], 100 * table["now"].to_numpy()[kept]
    noise = 100 * table["noise"].to_numpy()[kept]
    with rbkit_style():
        ax = new_axes(ax, 6.8, 1.5 + 0.25 * max(len(kept), 4))
        y = np.arange(len(kept))
        low = np.maximum(then - noise, 0)
        ax.barh(y, then + noise - low, 0.6, low, color="#e1e7ec", label="chance, 95 %")
        ax.plot(then, y, "|", color=INK, ms=9, mew=1.6, label="then", ls="none")
        moved = np.abs(now - then) > noise
        ax.plot(now[moved], y[moved], "D", color=_NOW, mec="white", ms=7, label="now", ls="none")
        ax.plot(now[~moved], y[~moved], "D", color="white", mec=_NOW, ms=5.5, ls="none")
        plain_ticks(ax.yaxis, [shorten(table.index[i], 36) for i in kept])
        tidy(ax, "x")
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(len(kept) - 0.4, -0.6)
        ax.set_xlim(left=0)
        hidden = len(table) - len(kept)
        more = f" ({hidden} domains that moved less are not shown)" if hidden else ""
        ax.set_xlabel(f"share of the examples (%){more}")
        ax.set_title("Shares of the domains")
        legend_above(ax)
        i = int(np.argmax(np.abs(change)))
        said = f"{table.index[i]} from {table['then'].iloc[i]:.1%} to {table['now'].iloc[i]:.1%}"
        far = f"total variation {report.tv:.3f}, chance below {report.tv_noise:.3f}"
        set_alt(ax, f"Shares of {len(table)} domains then and now: {far}; most: {said}.")
    return ax


def drift_distances(report: Any, ax: Axes | None = None) -> Axes:
    """Distances to the nearest prototype, of training and of new examples: cumulated shares.

    Parameters
    ----------
    report : Drift
        From :func:`rbkit.regroup.drift.drift_report`.
    ax : matplotlib Axes, optional
    """
    with rbkit_style():
        ax = new_axes(ax, 6.0, 3.4)
        levels = 100 * np.linspace(0, 1, len(report.nearest))
        band = 100 * report.ks_noise
        ax.fill_between(report.nearest, np.clip(levels - band, 0, 100),
                        np.clip(levels + band, 0, 100), color="#e1e7ec", lw=0,
                        label="chance, 99 %")  # fmt: skip
        ax.plot(report.nearest, levels, color=_THEN, label="train", linestyle=(0, (5, 2)))
        new = np.sort(report.distances)
        if len(new) > 2000:
            new = np.quantile(new, np.linspace(0, 1, 2001))
        ax.plot(new, 100 * np.arange(1, len(new) + 1) / len(new), color=_NOW, label="new")
        beyond = float(report.nearest[198])
        ax.axvline(beyond, color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
        ax.annotate("99 % of train", (beyond, 0), (-4, 3), xycoords=("data", "axes fraction"),
                    textcoords="offset points", rotation=90, fontsize=8, color=MUTED, ha="right",
                    va="bottom")  # fmt: skip
        tidy(ax)
        ax.set_ylim(0, 101)
        ax.set_xlim(left=min(float(new[0]), float(report.nearest[1])) * 0.98)
        ax.set_xlabel("distance to the nearest prototype")
        ax.set_ylabel("examples at most as far (%)")
        ax.set_title("Distances")
        legend_above(ax)
        set_alt(ax, f"Distances of {report.n:,} new examples and of training: largest gap "
                    f"{report.ks:.3f}, chance below {report.ks_noise:.3f}; {report.far_share:.1%} "
                    f"are far from every domain, {report.far_expected:.1%} expected.")  # fmt: skip
    return ax


def drift(report: Any) -> Figure:
    """Both sides of a drift report in one figure, under its verdict."""
    with rbkit_style():
        rows = min(len(report.names), _MOST)
        figure = Figure(figsize=(12.0, max(4.2, 1.9 + 0.25 * rows)), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        drift_shares(report, left)
        drift_distances(report, right)
        verdict = report.reasons[0] if report.due else "No refit is due"
        if not report.due and report.advice:
            verdict += f"; {report.advice[0]}"
        figure.suptitle(shorten(verdict, 150), x=0.01, ha="left", fontsize=10.5, parse_math=False)
    return figure
