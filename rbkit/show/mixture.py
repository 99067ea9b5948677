"""Proportions over time: what each round was made of, and what it aims at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rbkit.show.facts import Array, RunLike, domain_names, labels, target
from rbkit.show.gram_figure import domain_order
from rbkit.show.style import (
    INK,
    MUTED,
    domain_colours,
    new_axes,
    rbkit_style,
    set_alt,
    shorten,
    spread,
    tidy,
)


def proportions(
    run: RunLike,
    ax: Axes | None = None,
    *,
    order: Sequence[int] | NDArray[np.int64] | None = None,
    names: bool = True,
    title: str | None = None,
    colours: Sequence[tuple[float, float, float]] | None = None,
) -> Axes:
    """Proportions p of each round as a stacked area, with q as a bar at the right edge.

    Parameters
    ----------
    run : Run
        A run with a history.
    ax : matplotlib Axes, optional
    order : sequence of int, optional
        Order of the domains from bottom to top; by similarity of gradients if not given.
    names : bool
        Whether to write the names of the domains (the biggest, if not all fit) beside q.
    title : str, optional
    colours : sequence of RGB, optional
        Colours of the domains from bottom to top.

    Returns
    -------
    matplotlib Axes
    """
    with rbkit_style():
        ax = new_axes(ax, 8.4, 4.2)
        p, edges = proportions_in_force(run)
        who = domain_names(run)
        ax.set_title(title or f"Proportions under {labels([run])[0]}")
        if not len(p):
            ax.text(0.5, 0.5, "no history recorded", transform=ax.transAxes, ha="center")
            set_alt(ax, "Proportions over time: no history recorded.")
            return ax
        m = p.shape[1]
        who = who if len(who) == m else [f"domain {i}" for i in range(m)]
        order = list(domain_order(run.history) if order is None else order)
        colours = domain_colours(m) if colours is None else colours
        stacked = np.vstack([np.zeros(len(p)), np.cumsum(p[:, order], axis=1).T])
        for row, colour in enumerate(colours):
            low, high = (np.append(s, s[-1]) for s in (stacked[row], stacked[row + 1]))
            ax.fill_between(edges, low, high, step="post", color=colour, lw=0)
            ax.step(edges, high, where="post", color="white", lw=0.7 if m <= 60 else 0)
        span = float(edges[-1] - edges[0]) or 1.0
        ends = _target_bar(ax, run, order, colours, float(edges[-1]) + 0.02 * span, 0.05 * span)
        if names:
            weight = np.maximum(p[-1], p.mean(axis=0))
            _names(ax, [who[i] for i in order], ends, weight[order], edges[-1] + 0.08 * span)
        tidy(ax, None)
        ax.set_xlim(edges[0], edges[-1] + 0.075 * span)
        ax.set_ylim(0, 1)
        ax.spines[["left", "bottom"]].set_visible(False)
        ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
        # No tick under the bar of q, which is not a step.
        ax.set_xticks([tick for tick in ax.get_xticks() if edges[0] <= tick <= edges[-1]])
        ax.set_xlabel("optimizer step")
        top = np.argsort(p[-1])[::-1][:3]
        said = ", ".join(f"{who[i]} {p[0, i]:.0%} to {p[-1, i]:.0%}" for i in top)
        set_alt(
            ax,
            f"Proportions of {m} domains over {len(p)} rounds under {labels([run])[0]}; "
            f"largest at the end: {said}. A bar at the right edge shows the target proportions q.",
        )
    return ax


def proportions_side_by_side(runs: Sequence[RunLike]) -> Figure:
    """Proportions of several runs in one row, domains in the same order and colour in all."""
    runs = [run for run in runs if len(proportions_in_force(run)[0])]
    with rbkit_style():
        n = max(len(runs), 1)
        m = max((proportions_in_force(run)[0].shape[1] for run in runs), default=0)
        # High enough for the names of all domains.
        figure = Figure(figsize=(3.1 * n + 2.6, max(4.3, 1.4 + 0.15 * m)), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, n, sharey=True))
        tracked = [run for run in runs if "gram" in run.history] or runs
        order = domain_order(tracked[0].history) if tracked else None
        for i, (run, ax) in enumerate(zip(runs, axes, strict=False)):
            same = order is not None and len(order) == proportions_in_force(run)[0].shape[1]
            title = labels(runs)[i]
            proportions(run, ax, order=order if same else None, names=i == n - 1, title=title)
            if i:
                ax.tick_params(labelleft=False)
    return figure


def proportions_in_force(run: RunLike) -> tuple[Array, Array]:
    """Return p in force in each round (T, m), and the steps where rounds begin and end (T+1,)."""
    history = run.history
    if "p" not in history or not len(history["p"]):
        return np.empty((0, 0)), np.empty(0)
    p = np.asarray(history["p"], dtype=np.float64)
    told: NDArray[np.bool_] = np.asarray(np.isfinite(p).all(axis=1))
    if not told.any():
        return np.empty((0, 0)), np.empty(0)
    p = np.where(told[:, None], p, 0.0)  # blank where nobody told them
    ends = np.asarray(history.get("step", []), dtype=np.float64)
    if not len(ends):  # a run whose first round has not ended
        return p[:1], np.array([0.0, 1.0])
    return p[: len(ends)], np.concatenate([[0.0], ends])


def _target_bar(
    ax: Axes,
    run: RunLike,
    order: Sequence[int],
    colours: Sequence[tuple[float, float, float]],
    left: float,
    width: float,
) -> Array:
    """Draw q as one stacked bar; return the middle of each of its pieces."""
    q = target(run)
    if q is None or len(q) != len(order):
        q = np.asarray(run.history["p"], dtype=np.float64)[-1]  # only to place the names
    else:
        ax.bar(left, q[list(order)], width, np.cumsum(q[list(order)]) - q[list(order)],
               align="edge", color=colours, edgecolor="white", linewidth=0.7)  # fmt: skip
        ax.text(left + width / 2, 1.015, "q", ha="center", va="bottom", color=INK,
                fontstyle="italic", fontweight="bold")  # fmt: skip
    ordered: Array = q[list(order)]
    return np.cumsum(ordered) - ordered / 2


def _names(ax: Axes, names: list[str], middles: Array, weight: Array, x: float) -> None:
    height = ax.get_window_extent().height * 72 / ax.figure.dpi  # points
    room = max(int(height / 10.2), 1)
    kept = sorted(np.argsort(weight, kind="stable")[::-1][:room])
    gap = 10.2 / height
    places = np.array(spread([float(middles[i]) for i in kept], gap))
    places += max(0.0, gap / 2 - places[0])  # stay above the lower edge
    places -= max(0.0, places[-1] - (1 - gap / 2))
    for i, y in zip(kept, places, strict=True):
        ax.annotate(
            shorten(names[i], 30), (x, middles[i]), xytext=(x * 1.025, y), va="center", ha="left",
            fontsize=8.5, color=INK, parse_math=False, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": MUTED, "lw": 0.5, "shrinkA": 1, "shrinkB": 0,
                        "relpos": (0, 0.5)},
        )  # fmt: skip
