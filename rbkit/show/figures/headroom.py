"""What a change of the mixture gains, by direction, and which cheap score would have shown it."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rbkit.show.style import (
    DASHED,
    INK,
    RULE,
    label_rows,
    rbkit_style,
    say_nothing,
    set_alt,
    shorten,
)

_MOST_ROWS = 30
_BLUE, _ORANGE = "#0072B2", "#D55E00"


def headroom(found: Any) -> Figure:
    """Gain of each direction on each stream, and the rank correlation of scores with it.

    Parameters
    ----------
    found : rbkit.train.Headroom

    Returns
    -------
    matplotlib Figure
        Left: mean gains with their 95 % interval, streams faint; in grey what would not be worth
        the trouble. Right: how each score at the checkpoint ranks the directions, as it is and
        given q.
    """
    with rbkit_style():
        n, streams = found.gains.shape
        order = np.argsort(-found.gain, kind="stable")
        if n > _MOST_ROWS:  # the two ends are what one looks for
            order = np.concatenate([order[: _MOST_ROWS // 2], order[-_MOST_ROWS // 2 :]])
        rows = [*[found.names[i] for i in order], "all gains together"]
        gains = np.vstack([found.gains[order], found.combined_gains])
        figure = Figure(figsize=(9.6, 1.9 + 0.27 * max(len(rows), 5)), layout="constrained")
        ax, scores = figure.subplots(1, 2, width_ratios=(3, 2))
        ax.axvspan(-found.worth, found.worth, color=RULE, alpha=0.6, lw=0)
        ax.axvline(0, color=INK, lw=1.1, ls=DASHED)
        half = found.half_width
        for y, values in enumerate(gains):
            mean = values.mean()
            colour = _ORANGE if y == len(gains) - 1 else _BLUE
            ax.plot([mean - half, mean + half], [y, y], color=colour, lw=2)
            ax.plot(values, np.full(streams, y), "o", color=colour, alpha=0.35, ms=4, mec="none")
            clear = abs(mean) > half
            ax.plot([mean], [y], "o", ms=7, mec=colour, color=colour if clear else "white")
        label_rows(ax, [shorten(name, 34) for name in rows])
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.set_xlabel("eval loss below that of p, in nats; right of the line is better")
        ax.set_title("Gain of each direction")
        _draw_scores(scores, found)
        figure.suptitle(textwrap.fill(found.verdict, 145), ha="left", x=0.01, fontsize=10)
        best = ", ".join(f"{row['name']} {row['gain']:+.4f}" for row in found.table[:3])
        set_alt(figure, f"{found.verdict}. Best directions: {best}. 95 % interval ± {half:.4f}.")
    return figure


def _draw_scores(ax: Any, found: Any) -> None:
    known = {k: v for k, v in found.correlations.items() if v["with_gain"] is not None}
    for y, values in enumerate(known.values()):
        ax.plot([values["with_gain"]], [y], "o", color=_BLUE, ms=7)
        if values["given_q"] is not None:
            ax.plot([values["given_q"]], [y], "o", color=_BLUE, mfc="white", ms=7)
    ax.axvline(0, color=INK, lw=1.1, ls=DASHED)
    label_rows(ax, list(known))
    ax.set_ylim(max(len(known), 1) - 0.4, -0.6)
    ax.set_xlim(-1.05, 1.05)
    ax.set_xlabel("rank correlation with the gain; hollow: given q")
    ax.set_title("Which cheap score shows it")
    if not known:
        say_nothing(ax, "too few directions")
