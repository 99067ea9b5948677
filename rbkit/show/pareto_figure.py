"""Final loss against what training cost: which variants no other beats in both."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator

from rbkit.show.facts import losses
from rbkit.show.spent import spent
from rbkit.show.style import (
    MUTED,
    PAPER,
    new_axes,
    number,
    rbkit_style,
    say_nothing,
    set_alt,
    shorten,
    tidy,
)
from rbkit.show.variant_looks import GREY, Look, VariantLike, looks, outstanding, seeds_of

_SIZE = 9.0  # points of a label
_Box = tuple[float, float, float, float]  # left, bottom, right, top


@dataclass(frozen=True)
class _Point:
    variant: VariantLike
    look: Look
    cost: tuple[float, float, float]  # mean, least, most
    loss: tuple[float, float, float]
    front: bool = False


def pareto(
    variants: Sequence[VariantLike],
    cost: Literal["seconds", "flops"] = "seconds",
    ax: Axes | None = None,
    *,
    baselines: Collection[str] = (),
) -> Axes:
    """Mean final eval loss of each variant against the measured cost of its training.

    Parameters
    ----------
    variants : sequence of variants
        Those whose runs have a final loss and a ledger.
    cost : {"seconds", "flops"}
        Of the plain steps and all that the rule added, see :func:`rbkit.show.spent.spent`.
    ax : matplotlib Axes, optional
    baselines : collection of str
        Labels of the baselines. Above twelve variants the best of them is named, with the
        best, the worst and those that are not beaten; the others are grey.

    Returns
    -------
    matplotlib Axes
        Bars span all seeds, both ways. The line joins the variants that no other beats in
        both mean loss and mean cost.
    """
    with rbkit_style():
        ax = new_axes(ax, 7.2, 4.4)
        points = _points(variants, cost)
        tidy(ax, "both")
        ax.set_title("Final loss against measured cost")
        ax.set_xlabel(_XLABEL[cost])
        ax.set_ylabel("final eval loss (nats per token)")
        if not points:
            say_nothing(ax, "no finished run with a measured cost")
            set_alt(ax, "Final loss against measured cost: nothing to show.")
            return ax
        picked = outstanding([p.variant for p in points], baselines)
        named = [p.front or chosen for p, chosen in zip(points, picked, strict=True)]
        front = sorted((p for p in points if p.front), key=lambda p: p.cost[0])
        ax.plot([p.cost[0] for p in front], [p.loss[0] for p in front], color=MUTED,
                linewidth=1.0, linestyle=(0, (4, 2)), zorder=1.5)  # fmt: skip
        for point, full in zip(points, named, strict=True):
            _draw(ax, point, full)
        _axis(ax, points, cost)
        _label(ax, [p for p, full in zip(points, named, strict=True) if full])
        best = ", ".join(f"{p.variant.label} ({_cost(p.cost[0], cost)}, {number(p.loss[0])})"
                         for p in front)  # fmt: skip
        over = seeds_of([p.variant for p in points])
        set_alt(ax, f"Mean final eval loss against {_XLABEL[cost]}, {len(points)} variants, "
                    f"{over}. Not beaten in both: {best}.")  # fmt: skip
    return ax


_PREFIXES = ("", "k", "M", "G", "T", "P", "E")
_XLABEL = {
    "seconds": "seconds of training, with the rule's own (measured)",
    "flops": "FLOPs of training, with the rule's own",
}


def _points(variants: Sequence[VariantLike], unit: Literal["seconds", "flops"]) -> list[_Point]:
    found = []
    for variant, look in zip(variants, looks(variants), strict=True):
        both = [
            (price.total, loss) for run in variant.runs
            if (price := spent(run, unit)) is not None and (loss := losses(run).token) is not None
        ]  # fmt: skip
        if both:
            prices, finals = np.array(both).T
            found.append(_Point(variant, look, _span(prices), _span(finals)))
    return [_Point(p.variant, p.look, p.cost, p.loss, not any(_beats(o, p) for o in found))
            for p in found]  # fmt: skip


def _span(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float, float]:
    return float(values.mean()), float(values.min()), float(values.max())


def _beats(one: _Point, other: _Point) -> bool:
    ours, theirs = (one.cost[0], one.loss[0]), (other.cost[0], other.loss[0])
    return ours != theirs and ours[0] <= theirs[0] and ours[1] <= theirs[1]


def _draw(ax: Axes, point: _Point, full: bool) -> None:
    (x, *xs), (y, *ys) = point.cost, point.loss
    colour = point.look.colour if full else GREY
    if full:
        ax.plot(xs, [y, y], color=colour, linewidth=1.1, alpha=0.55, zorder=2)
        ax.plot([x, x], ys, color=colour, linewidth=1.1, alpha=0.55, zorder=2)
    ax.plot([x], [y], point.look.marker, color=colour, ms=8 if full else 5.5, mec="white",
            zorder=4 if full else 1.8)  # fmt: skip


def _axis(ax: Axes, points: Sequence[_Point], unit: Literal["seconds", "flops"]) -> None:
    costs = [p.cost[0] for p in points]
    if min(costs) > 0 and max(costs) / min(costs) > 8:
        ax.set_xscale("log")
        ax.minorticks_off()
    else:
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    low, high = ax.get_xlim() if ax.get_xscale() == "linear" else (min(costs), max(costs))
    # Digits for ticks that lie close together: 41.0 and 41.2 s are not both 41.
    digits = 3 if high <= 0 else int(np.clip(2 - np.log10(max((high - low) / high, 1e-6)), 3, 7))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _cost(x, unit, digits)))
    ax.margins(x=0.12, y=0.12)


def _cost(value: float, unit: str, digits: int = 3) -> str:
    if unit == "seconds":
        if value >= 7200:
            return f"{value / 3600:.{digits}g} h"
        return f"{value / 60:.{digits}g} min" if value >= 300 else f"{value:.{digits}g} s"
    power = int(np.clip(np.log10(max(value, 1.0)) // 3, 0, len(_PREFIXES) - 1))
    return f"{value / 1000.0**power:.{digits}g} {_PREFIXES[power]}".rstrip()


def _label(ax: Axes, points: Sequence[_Point]) -> None:
    """Write names beside the marks, at the first of several places that is still free."""
    ax.autoscale_view()
    figure = ax.get_figure(root=True)
    if figure is None:
        return
    figure.draw_without_rendering()  # lays the axes out: without it pixels are not yet true
    scale, frame = figure.dpi / 72, ax.get_window_extent()
    to_pixels = ax.transData.transform
    marks = [to_pixels((p.cost[0], p.loss[0])) for p in points]
    taken = [(x - 6 * scale, y - 6 * scale, x + 6 * scale, y + 6 * scale) for x, y in marks]
    bars = [bar for p in points for bar in _bars(p, to_pixels)]
    order = sorted(range(len(points)), key=lambda i: (not points[i].front, points[i].loss[0]))
    for i in order:
        text, (x, y) = shorten(points[i].variant.label, 26), marks[i]
        width, height = 0.56 * _SIZE * scale * len(text), 1.25 * _SIZE * scale
        places: list[tuple[int, int, _Box, float, float, _Side]] = []
        for dx, dy, side in _PLACES:
            left = x + dx * scale - _LEFT_OF[side] * width
            bottom = y + dy * scale - height / 2
            box = (left, bottom, left + width, bottom + height)
            inside = (frame.x0 <= box[0] and box[2] <= frame.x1
                      and frame.y0 <= box[1] and box[3] <= frame.y1)  # fmt: skip
            if inside and not any(_overlap(box, other) for other in taken):
                places.append(
                    (sum(_overlap(box, bar) for bar in bars), len(places), box, dx, dy, side)
                )
        if places:
            *_, box, dx, dy, side = min(places, key=lambda place: place[:2])
            taken.append(box)
            ax.annotate(
                text, (points[i].cost[0], points[i].loss[0]), (dx, dy), ha=side, va="center",
                textcoords="offset points", fontsize=_SIZE, fontweight="bold", parse_math=False,
                color=points[i].look.ink, zorder=6,
                path_effects=[withStroke(linewidth=2.4, foreground=PAPER, alpha=0.85)],
            )  # fmt: skip


_Side = Literal["left", "center", "right"]
_LEFT_OF: dict[_Side, float] = {"left": 0.0, "center": 0.5, "right": 1.0}
# Points to the side and above of a mark, and which end of the text lies there; nearest first.
_PLACES: list[tuple[float, float, _Side]] = [
    (9, 0, "left"), (7, 9, "left"), (7, -9, "left"), (-7, 9, "right"), (-7, -9, "right"),
    (-9, 0, "right"), (0, 12, "center"), (0, -12, "center"), (7, 20, "left"), (7, -20, "left"),
    (-7, 20, "right"), (-7, -20, "right"), (0, 24, "center"), (0, -24, "center"),
]  # fmt: skip


def _bars(point: _Point, to_pixels: Callable[[tuple[float, float]], Any]) -> list[_Box]:
    """Boxes of the two bars of a point, in pixels."""
    (x, x0, x1), (y, y0, y1) = point.cost, point.loss
    (left, middle), (right, _) = to_pixels((x0, y)), to_pixels((x1, y))
    (centre, bottom), (_, top) = to_pixels((x, y0)), to_pixels((x, y1))
    return [(left, middle - 1, right, middle + 1), (centre - 1, bottom, centre + 1, top)]


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
