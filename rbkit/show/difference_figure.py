"""Differences from a baseline as a forest: pairs faint, their mean, and its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes

from rbkit.show.style import (
    INK,
    MUTED,
    RULE,
    mixer_colour,
    mixer_marker,
    new_axes,
    number,
    plain_ticks,
    rbkit_style,
    say_nothing,
    set_alt,
    shorten,
    tidy,
)

_MOST = 40  # rows that can be read on one page


class DifferenceLike(Protocol):
    """A paired difference of one variant from its baseline."""

    @property
    def label(self) -> str:
        """The variant."""

    @property
    def mixer(self) -> str:
        """Its mixer."""

    @property
    def values(self) -> Sequence[float]:
        """Difference of each pair."""

    @property
    def mean(self) -> float:
        """Their mean."""

    @property
    def half_width(self) -> float | None:
        """Half of the interval; None with one pair."""


def difference_forest(
    gaps: Sequence[DifferenceLike],
    ax: Axes | None = None,
    *,
    baseline: str = "the baseline",
    what: str = "final eval loss per token",
) -> Axes:
    """Mean paired difference of each variant from its baseline, with its 95 % interval.

    Parameters
    ----------
    gaps : sequence of differences
        Rows stand together by mixer, the mixer with the lowest mean first. Above forty, those
        with the lowest and the highest means are shown.
    ax : matplotlib Axes, optional
    baseline : str
        What the line at 0 is.
    what : str
        What was subtracted.

    Returns
    -------
    matplotlib Axes
        A filled mark is told apart from the baseline, a hollow one is not.
    """
    with rbkit_style():
        rows, left_out = _rows(gaps)
        n = len(rows)
        ax = new_axes(ax, 7.2, 1.35 + (0.36 if n <= 16 else 0.25) * max(n, 3))
        named = shorten(baseline, 30)
        if rows:
            ax.axvline(0, color=INK, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
        for y, gap in enumerate(rows):
            _draw(ax, y, gap)
            if y and gap.mixer != rows[y - 1].mixer:
                ax.axhline(y - 0.5, color=RULE, linewidth=0.9, zorder=0)
        tidy(ax, "x")
        plain_ticks(ax.yaxis, [shorten(gap.label, 38) for gap in rows])
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(max(n, 1) - 0.4, -0.6)
        ax.margins(x=0.06)
        ax.set_title(f"{what[:1].upper()}{what[1:]} minus {named}")
        ax.set_xlabel("nats; left of the line is better")
        if any(gap.half_width is not None for gap in rows):
            note = "mean of the pairs (faint) and its 95 % interval; hollow: not told apart from 0"
        else:
            note = "one pair each: no interval, no verdict" if rows else ""
        ax.annotate(note, (1, 0), (0, -31), xycoords="axes fraction", textcoords="offset points",
                    ha="right", va="top", fontsize=8, color=MUTED)  # fmt: skip
        if not rows:
            say_nothing(ax, "nothing to compare")
        more = f" {left_out} rows in the middle are left out." if left_out else ""
        said = "; ".join(_said(gap) for gap in rows) or "nothing to compare"
        set_alt(ax, f"{what} minus {baseline}, below 0 is better: {said}.{more}")
    return ax


def _draw(ax: Axes, y: int, gap: DifferenceLike) -> None:
    colour, marker = mixer_colour(gap.mixer), mixer_marker(gap.mixer)
    n = len(gap.values)
    if n > 1:  # each pair a little above or below: equal ones stay seen
        ax.plot(gap.values, y + np.linspace(-0.16, 0.16, n), marker, color=colour, alpha=0.3,
                ms=4, mec="none", zorder=2)  # fmt: skip
    if gap.half_width is not None:
        ax.plot([gap.mean - gap.half_width, gap.mean + gap.half_width], [y, y], color=colour,
                linewidth=2.2, zorder=3)  # fmt: skip
    ax.plot([gap.mean], [y], marker, color=colour if _told_apart(gap) else "white", mec=colour,
            mew=1.6, ms=7.5, zorder=4)  # fmt: skip


def _told_apart(gap: DifferenceLike) -> bool:
    return gap.half_width is not None and abs(gap.mean) > gap.half_width


def _rows(gaps: Sequence[DifferenceLike]) -> tuple[list[DifferenceLike], int]:
    """Return the rows from top to bottom, and how many were left out."""
    kept = set(range(len(gaps)))
    if len(gaps) > _MOST:
        order = sorted(kept, key=lambda i: gaps[i].mean)
        kept = {*order[: _MOST // 2], *order[-_MOST // 2 :]}
    best: dict[str, float] = {}
    for gap in gaps:
        best[gap.mixer] = min(gap.mean, best.get(gap.mixer, np.inf))
    rows = [gaps[i] for i in sorted(kept, key=lambda i: (best[gaps[i].mixer], gaps[i].mixer, i))]
    return rows, len(gaps) - len(rows)


def _said(gap: DifferenceLike) -> str:
    if gap.half_width is None:
        return f"{gap.label} {number(gap.mean)} (one pair)"
    low, high = number(gap.mean - gap.half_width), number(gap.mean + gap.half_width)
    verdict = "" if _told_apart(gap) else ", not told apart"
    return f"{gap.label} {number(gap.mean)} ({low} to {high}{verdict})"
