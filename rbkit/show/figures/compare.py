"""Figures of several variants: losses with bands over seeds, differences, costs, panels of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator

from rbkit.show.facts import (
    Array,
    Measure,
    Unit,
    domain_names,
    loss_series,
    loss_unit,
    measure_of,
    pairs_by_seed,
    proportions_in_force,
    same_corpus,
    smooth,
    spent,
    target,
)
from rbkit.show.figures.costs import short_cost
from rbkit.show.figures.mixture import proportions
from rbkit.show.gram_layout import (
    Order,
    common_scale,
    extremes,
    finite_mean,
    seriate,
    short_ids,
    to_cosine,
)
from rbkit.show.style import (
    DASHED,
    INK,
    MUTED,
    OTHERS,
    PAPER,
    RULE,
    Box,
    alt_text,
    colour_bar,
    domain_colours,
    fit_title,
    has_room,
    label_line_ends,
    label_rows,
    mixer_colour,
    mixer_marker,
    new_axes,
    note,
    overlap,
    plain_ticks,
    rbkit_style,
    readable,
    say_nothing,
    set_alt,
    shorten,
    tidy,
)
from rbkit.text import number
from rbkit.train.run import PER_TOKEN, Run

GREY = "#c3cad2"  # of variants that are not named
_MOST_NAMED = 12
_LOSS = Measure()


class VariantLike(Protocol):
    """Runs that differ only in their seed, as :class:`rbkit.report.compare.Variant` has them."""

    @property
    def label(self) -> str: ...
    @property
    def mixer(self) -> str: ...
    @property
    def key(self) -> tuple[tuple[str, Hashable], ...]: ...  # the values that vary, by name
    @property
    def runs(self) -> Sequence[Run]: ...  # finished ones, one per seed


# ------------------------------------------------------------------- what all figures share


@dataclass(frozen=True)
class VariantStyle:
    """Colour, marker and line style of a variant, and the colour of its name."""

    colour: str
    ink: str  # as dark as text must be: a shade of a mixer's colour may be too faint
    marker: str
    line: Any


_LINES: list[Any] = ["-", (0, (5, 1.8)), (0, (1.3, 1.3)), (0, (6, 1.8, 1.3, 1.8))]


def variant_styles(variants: Sequence[VariantLike]) -> list[VariantStyle]:
    """Return the style of each variant.

    Where mixers differ, a mixer keeps its colour and marker; what else varies shows in shade
    and line style, from dark and solid in the order of the variants. Where there is only one
    mixer, values have colours of their own, in order.
    """
    settings = _other_settings(variants)
    kinds = list(dict.fromkeys(settings))
    one_mixer = len({variant.mixer for variant in variants}) == 1 and len(kinds) > 1
    styles = []
    for variant, setting in zip(variants, settings, strict=True):
        i = kinds.index(setting)
        share = i / max(len(kinds) - 1, 1)
        if one_mixer:
            # Without the yellow end, which is too faint on white.
            colour = to_hex(matplotlib.colormaps["viridis"](0.75 * share))
            ink = readable(colour)
        else:
            own = mixer_colour(variant.mixer)
            ink = readable(own)
            r, g, b = (c + 0.4 * share * (1 - c) for c in to_rgb(own))
            colour = to_hex((r, g, b))
        line = _LINES[i % len(_LINES)]
        styles.append(VariantStyle(colour, ink, mixer_marker(variant.mixer), line))
    return styles


def _other_settings(variants: Sequence[VariantLike]) -> list[Hashable]:
    """Return what varies apart from the mixer; of its own options only which set it is."""
    sets: dict[str, list[Hashable]] = {}
    settings: list[Hashable] = []
    for variant in variants:
        values = dict(variant.key)
        own = sets.setdefault(variant.mixer, [])
        if (options := values.pop("mixer_options", None)) not in own:
            own.append(options)
        values.pop("mixer", None)
        settings.append((tuple(values.items()), own.index(options)))
    return settings


def named_variants(
    variants: Sequence[VariantLike],
    baselines: Collection[str],
    values: Sequence[float] | None = None,
    measure: Measure = _LOSS,
) -> list[bool]:
    """Whether each variant is named: all if few, else the three best, the worst, a baseline.

    Parameters
    ----------
    variants : sequence of variants
    baselines : collection of str
        Labels of baselines, of which the best is named.
    values : sequence of float, optional
        What to rank them by, lowest first; their mean final `measure` if not given, which is
        fair only if they have the same seeds.
    measure : Measure
    """
    if len(variants) <= _MOST_NAMED:
        return [True] * len(variants)
    if values is None:
        values = []
        for variant in variants:
            known = [value for run in variant.runs if (value := measure.final(run)) is not None]
            values.append(measure.cost(float(np.mean(known)) if known else None))
    order = sorted(range(len(variants)), key=values.__getitem__)
    base = [i for i in order if variants[i].label in baselines][:1]
    named = {*order[:3], order[-1], *base}
    return [i in named for i in range(len(variants))]


def _seeds(counts: Sequence[int]) -> str:
    """Say how many seeds variants have: ``one seed``, ``5 seeds``, or ``2 to 5 seeds``."""
    low, high = min(counts, default=0), max(counts, default=0)
    if low == high:
        return "one seed" if high == 1 else f"{high} seeds"
    return f"{low} to {high} seeds"


# ------------------------------------------------------------------------------ loss over time

_Curve = tuple[Array, Array]  # steps and values
_V = TypeVar("_V", bound=VariantLike)


def loss_bands(
    variants: Sequence[_V],
    split: Literal["eval", "train"] = "eval",
    ax: Axes | None = None,
    *,
    minus: Callable[[_V], _V | None] | None = None,
    baseline: str = "the baseline",
    baselines: Collection[str] = (),
    metric: str | None = None,
    higher_is_better: bool | None = None,
) -> Axes:
    """Loss, or a metric, by step: a line for the mean over seeds, a band for the range.

    Parameters
    ----------
    variants : sequence of variants
        Each with a label, a mixer, a key and its runs; above twelve, the best, the worst and
        the best baseline are named and the others are grey.
    split : {"eval", "train"}
        Training losses are smoothed before the mean is taken.
    ax : matplotlib Axes, optional
    minus : callable, optional
        Gives the variant that each is compared with, or None. Then the differences are drawn,
        paired by seed and on one corpus: curves that lie on top of each other are separated.
    baseline : str
        Name of what is subtracted.
    baselines : collection of str
        Labels of the baselines among the variants.
    metric : str, optional
        A metric that the runs recorded, in place of the eval loss.
    higher_is_better : bool, optional
        Of the metric; as recorded if not given.

    Returns
    -------
    matplotlib Axes
    """
    measure = _measure_of(variants, metric, higher_is_better)
    split = "eval" if metric else split
    what = metric or f"{split} loss"
    title = metric or what.capitalize()

    @cache  # a baseline is asked for by many
    def read(run: Run) -> _Curve:
        steps, values = loss_series(run, "train") if split == "train" else measure.series(run)
        return steps, smooth(values) if split == "train" and len(values) else values

    with rbkit_style():
        ax = new_axes(ax, 7.2, 4.0)
        if minus is None:
            shown = list(variants)
            curves = [[read(run) for run in v.runs if len(read(run)[0])] for v in shown]
        else:
            shown = [v for v in variants if v.label not in baselines]
            curves = [_gaps(v, minus(v), read) for v in shown]
        # Paired differences rank variants that do not all have the same seeds, too.
        last = [float(np.mean([v[-1] for _, v in of])) if of else None for of in curves]
        costs = None if minus is None else list(map(measure.cost, last))
        named = named_variants(shown, baselines, costs, measure)
        ends: list[tuple[float, float, str, str]] = []
        words, highest = [], []
        for variant, of, style, full in zip(
            shown, curves, variant_styles(shown), named, strict=True
        ):
            steps, values = _on_common_steps(of)
            if not len(steps):
                continue
            few, name = len(shown) <= 4, shorten(variant.label, 40)
            _draw_band(ax, steps, values, style, full, split == "eval", few, name)
            start = steps[0] + (steps[-1] - steps[0]) / 8  # the highest after the first eighth
            highest.append(float(np.interp(start, steps, values.max(axis=0))))
            if full:
                end = float(values[:, -1].mean())
                ends.append((float(steps[-1]), end, shorten(variant.label, 30), style.ink))
                seeds = f"{number(values[:, -1].min())} to {number(values[:, -1].max())}"
                words.append(
                    f"{variant.label} ends at {number(end)}"
                    + (f" (seeds {seeds})" if len(values) > 1 else "")
                )
        tidy(ax)
        ax.set_xlabel("optimizer step")
        ax.margins(x=0.02)
        several = any(len(variant.runs) > 1 for variant in shown)
        above = title
        unit = loss_unit(run for variant in shown for run in variant.runs)
        if minus is None:
            ax.set_ylabel(metric or f"{split} loss ({unit})")
            _leave_out_the_start(ax, [] if metric else highest, len(ends))
        else:
            above += f" minus {shorten(baseline, 24)}"
            ax.set_ylabel(f"minus {shorten(baseline, 24)} ({metric or unit})")
            if highest:
                ax.axhline(0, color=MUTED, linewidth=1.1, linestyle=DASHED, zorder=2)
        ax.set_title(above + (": mean and range over seeds" if several else ""))
        if not highest:
            say_nothing(ax, f"no {what} recorded" if minus is None else "nothing to compare")
        label_line_ends(ax, ends, 9 if len(ends) > 6 else 9.5)
        what = f"{title} by step"
        side = "above" if measure.higher_is_better else "below"
        what += f" minus that of {baseline}, {side} 0 is better" if minus is not None else ""
        over = _seeds([len(variant.runs) for variant in shown])
        over = over if over == "one seed" else f"mean and range over {over}"
        grey = len(shown) - sum(named)
        rest = f" {grey} other variants are grey." if grey else ""
        set_alt(ax, f"{what}, {over}: {'; '.join(words) or 'none recorded'}.{rest}")
    return ax


def _measure_of(
    variants: Sequence[VariantLike], metric: str | None, higher_is_better: bool | None
) -> Measure:
    runs = [run for variant in variants for run in variant.runs]
    return measure_of(runs, metric, higher_is_better)


def _gaps(
    variant: VariantLike, other: VariantLike | None, read: Callable[[Run], _Curve]
) -> list[_Curve]:
    """Curve of each run minus that of the other variant's run with its seed."""
    if other is None or other is variant:
        return []
    gaps = []
    for run, base in pairs_by_seed(variant.runs, other.runs):
        if not same_corpus(run, base):
            continue  # losses of other texts
        (steps, values), (base_steps, base_values) = read(run), read(base)
        both = np.intersect1d(steps, base_steps)
        if len(both):
            gap = np.interp(both, steps, values) - np.interp(both, base_steps, base_values)
            gaps.append((both, gap))
    return gaps


def _on_common_steps(curves: Sequence[_Curve]) -> tuple[Array, Array]:
    """Return the steps that all curves span (n,), and the curves there (runs, n)."""
    if not curves:
        return np.empty(0), np.empty((0, 0))
    steps = np.unique(np.concatenate([where for where, _ in curves]))
    first, last = max(w[0] for w, _ in curves), min(w[-1] for w, _ in curves)
    steps = steps[(steps >= first) & (steps <= last)]
    return steps, np.array([np.interp(steps, where, values) for where, values in curves])


def _draw_band(
    ax: Axes,
    steps: Array,
    values: Array,
    style: VariantStyle,
    full: bool,
    marks: bool,
    few: bool,
    label: str,
) -> None:
    """Draw the mean of `values` (runs, n), and if `full` the range, marks and line style."""
    mean = values.mean(axis=0)
    if not full:
        ax.plot(steps, mean, color=GREY, linewidth=0.9, zorder=1.5)
        return
    if len(values) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        ax.fill_between(
            steps, low, high, color=style.colour, linewidth=0, alpha=0.14 if few else 0.07
        )
        ax.plot(steps, np.array([low, high]).T, color=style.colour, linewidth=0.6, alpha=0.5)
    ax.plot(
        steps,
        mean,
        color=style.colour,
        linestyle=style.line,
        marker=style.marker if marks or len(steps) == 1 else "",  # a point has no line
        label=label,
        markersize=4.5,
        markeredgecolor="white",
        markevery=max(1, len(steps) // 10),
        zorder=3,
    )


def _leave_out_the_start(ax: Axes, highest: Sequence[float], names: int) -> None:
    """End the axis below the first steps: with them all curves would look the same."""
    if not highest:
        return
    ax.autoscale_view()
    low, top = ax.dataLim.y0, max(highest)
    if top > low and ax.dataLim.y1 > top:
        # Curves end low, where their names need room above the axis.
        room = 0.05 + 0.025 * names
        ax.set_ylim(low - room * (top - low), top + 0.05 * (top - low))
        note(ax, "the first steps lie above", (0.99, 0.985), (0, 0), ha="right", va="top")


# ------------------------------------------------------------------------- paired differences

_MOST_ROWS = 40  # that can be read on one page


class DifferenceLike(Protocol):
    """Paired difference of a variant from its baseline, as of :mod:`rbkit.report.compare`."""

    @property
    def label(self) -> str: ...
    @property
    def mixer(self) -> str: ...
    @property
    def values(self) -> Sequence[float]: ...  # of each pair
    @property
    def mean(self) -> float: ...
    @property
    def half_width(self) -> float | None: ...  # of the interval; None with one pair


def difference_forest(
    gaps: Sequence[DifferenceLike],
    ax: Axes | None = None,
    *,
    baseline: str = "the baseline",
    what: str | None = None,
    metric: str | None = None,
    higher_is_better: bool = False,
    unit: str = PER_TOKEN,
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
    unit : str
        What the losses are measured in.
    what : str
        What was subtracted.
    metric : str, optional
        Where it was a metric, its name.
    higher_is_better : bool
        On which side of the line it is better, and which mixer comes first.

    Returns
    -------
    matplotlib Axes
        The interval of a filled mark does not include 0, that of a hollow one does.
    """
    measure = Measure(metric, higher_is_better, unit)
    if metric:
        what = f"final {metric}"
    elif what is None:
        _, per, one = unit.partition(" per ")
        what = f"final eval loss{per}{one}"
    with rbkit_style():
        rows = _forest_rows(gaps, measure)
        n = len(rows)
        ax = new_axes(ax, 7.2, 1.35 + (0.36 if n <= 16 else 0.25) * max(n, 3))
        if rows:
            ax.axvline(0, color=INK, linewidth=1.1, linestyle=DASHED, zorder=1)
        words = []
        for y, gap in enumerate(rows):
            words.append(_draw_difference(ax, y, gap))
            if y and gap.mixer != rows[y - 1].mixer:
                ax.axhline(y - 0.5, color=RULE, linewidth=0.9, zorder=0)
        label_rows(ax, [shorten(gap.label, 38) for gap in rows])
        ax.set_ylim(max(n, 1) - 0.4, -0.6)
        ax.margins(x=0.06)
        ax.set_title(f"{what[:1].upper()}{what[1:]} minus {shorten(baseline, 30)}")
        ax.set_xlabel(f"{measure.unit}; {measure.better_side} of the line is better")
        text = "one pair each: no interval, no verdict" if rows else ""
        if any(gap.half_width is not None for gap in rows):
            text = "mean of the pairs (faint) and its 95 % interval; hollow: not told apart from 0"
        note(ax, text, (1, 0), (0, -31), ha="right", va="top")
        if not rows:
            say_nothing(ax, "nothing to compare")
        hidden = len(gaps) - n
        more = f" {hidden} rows in the middle are left out." if hidden else ""
        summary = "; ".join(words) or "nothing to compare"
        side = "above" if higher_is_better else "below"
        set_alt(ax, f"{what} minus {baseline}, {side} 0 is better: {summary}.{more}")
    return ax


def _forest_rows(gaps: Sequence[DifferenceLike], measure: Measure) -> list[DifferenceLike]:
    cost = [measure.cost(gap.mean) for gap in gaps]
    shown = set(range(len(gaps)))
    if len(gaps) > _MOST_ROWS:
        order = sorted(shown, key=cost.__getitem__)
        shown = {*order[: _MOST_ROWS // 2], *order[-_MOST_ROWS // 2 :]}
    best: dict[str, float] = {}
    for gap, mean in zip(gaps, cost, strict=True):
        best[gap.mixer] = min(mean, best.get(gap.mixer, np.inf))
    return [gaps[i] for i in sorted(shown, key=lambda i: (best[gaps[i].mixer], gaps[i].mixer, i))]


def _draw_difference(ax: Axes, y: int, gap: DifferenceLike) -> str:
    """Draw a row; return it in words."""
    colour, marker = mixer_colour(gap.mixer), mixer_marker(gap.mixer)
    n, mean, half = len(gap.values), gap.mean, gap.half_width
    if n > 1:  # each pair a little above or below: equal ones stay visible
        rows = y + np.linspace(-0.16, 0.16, n)
        ax.plot(gap.values, rows, marker, color=colour, alpha=0.3, ms=4, mec="none", zorder=2)
    clear = half is not None and abs(mean) > half
    text = f"{gap.label} {number(mean)} (one pair)"
    if half is not None:
        ax.plot([mean - half, mean + half], [y, y], color=colour, linewidth=2.2, zorder=3)
        verdict = "" if clear else ", not told apart"
        text = (
            f"{gap.label} {number(mean)} ({number(mean - half)} to {number(mean + half)}{verdict})"
        )
    fill = colour if clear else "white"
    ax.plot([mean], [y], marker, color=fill, mec=colour, mew=1.6, ms=7.5, zorder=4)
    return text


# ------------------------------------------------------------------------------ loss and cost

_Span = tuple[float, float, float]  # mean, least, most


@dataclass(frozen=True)
class _Point:
    variant: VariantLike
    style: VariantStyle
    cost: _Span
    value: _Span
    front: bool = False  # nothing beats it in both


def pareto(
    variants: Sequence[VariantLike],
    cost: Unit = "seconds",
    ax: Axes | None = None,
    *,
    baselines: Collection[str] = (),
    metric: str | None = None,
    higher_is_better: bool | None = None,
) -> Axes:
    """Mean final eval loss, or metric, of each variant against the measured cost of its training.

    Parameters
    ----------
    variants : sequence of variants
        Those whose runs have a final loss and a ledger.
    cost : {"seconds", "flops"}
        Of the plain steps and all that the rule added, see :func:`rbkit.show.facts.spent`.
    ax : matplotlib Axes, optional
    baselines : collection of str
        Labels of the baselines. Above twelve variants the best of them is named, with the
        best, the worst and those that are not beaten; the others are grey.
    metric : str, optional
        A metric that the runs recorded, in place of the loss.
    higher_is_better : bool, optional
        Of the metric; as recorded if not given.

    Returns
    -------
    matplotlib Axes
        Bars span all seeds, both ways. The line joins the variants that no other beats in
        both mean loss and mean cost.
    """
    measure = _measure_of(variants, metric, higher_is_better)
    title = f"Final {metric or 'loss'} against measured cost"
    with rbkit_style():
        ax = new_axes(ax, 7.2, 4.4)
        points = _points(variants, cost, measure)
        axis = {
            "seconds": "seconds of training, with the rule's own (measured)",
            "flops": "FLOPs of training, with the rule's own",
        }[cost]
        tidy(ax, "both")
        ax.set_title(title)
        ax.set_xlabel(axis)
        ax.set_ylabel(f"final {measure.axis}")
        if not points:
            say_nothing(ax, "no finished run with a measured cost")
            set_alt(ax, f"{title}: nothing to show.")
            return ax
        shown = [p.variant for p in points]
        picked = named_variants(shown, baselines, measure=measure)
        named = [p for p, name in zip(points, picked, strict=True) if p.front or name]
        front = sorted((p for p in points if p.front), key=lambda p: p.cost[0])
        line: dict[str, Any] = {"color": MUTED, "linewidth": 1.0, "linestyle": DASHED}
        ax.plot([p.cost[0] for p in front], [p.value[0] for p in front], zorder=1.5, **line)
        for point in points:
            (x, *xs), (y, *ys) = point.cost, point.value
            full, colour = point in named, point.style.colour
            if full:
                for bar in ((xs, [y, y]), ([x, x], ys)):
                    ax.plot(*bar, color=colour, linewidth=1.1, alpha=0.55, zorder=2)
            mark: dict[str, Any] = {"color": colour, "ms": 8, "zorder": 4}
            if not full:
                mark = {"color": GREY, "ms": 5.5, "zorder": 1.8}
            name = shorten(point.variant.label, 40)
            ax.plot([x], [y], point.style.marker, mec="white", label=name, **mark)
        _cost_axis(ax, points, cost)
        _name_points(ax, named)
        best = ", ".join(
            f"{p.variant.label} ({short_cost(p.cost[0], cost)}, {number(p.value[0])})"
            for p in front
        )
        over = _seeds([len(variant.runs) for variant in shown])
        set_alt(
            ax,
            f"Mean final {measure.title} against {axis}, {len(points)} variants, {over}. "
            f"Not beaten in both: {best}.",
        )
    return ax


def _span(values: Array) -> _Span:
    return float(values.mean()), float(values.min()), float(values.max())


def _points(variants: Sequence[VariantLike], unit: Unit, measure: Measure) -> list[_Point]:
    points = []
    for variant, style in zip(variants, variant_styles(variants), strict=True):
        both = [
            (price.total, value)
            for run in variant.runs
            if (price := spent(run, unit)) is not None and (value := measure.final(run)) is not None
        ]
        if both:
            prices, finals = np.array(both).T
            points.append(_Point(variant, style, _span(prices), _span(finals)))

    def beats(one: _Point, other: _Point) -> bool:
        ours, theirs = ((p.cost[0], measure.cost(p.value[0])) for p in (one, other))
        return ours != theirs and ours[0] <= theirs[0] and ours[1] <= theirs[1]

    return [
        _Point(p.variant, p.style, p.cost, p.value, not any(beats(o, p) for o in points))
        for p in points
    ]


def _cost_axis(ax: Axes, points: Sequence[_Point], unit: Unit) -> None:
    costs = [p.cost[0] for p in points]
    if min(costs) > 0 and max(costs) / min(costs) > 8:
        ax.set_xscale("log")
        ax.minorticks_off()
    else:
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    low, high = ax.get_xlim() if ax.get_xscale() == "linear" else (min(costs), max(costs))
    # Digits for ticks that lie close together: 41.0 and 41.2 s are not both 41.
    digits = 3 if high <= 0 else int(np.clip(2 - np.log10(max((high - low) / high, 1e-6)), 3, 7))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short_cost(x, unit, digits)))
    ax.margins(x=0.12, y=0.12)


_Side = Literal["left", "center", "right"]
_LEFT_OF: dict[_Side, float] = {"left": 0.0, "center": 0.5, "right": 1.0}
# Points to the side and above of a mark, and which end of the text lies there; nearest first.
_PLACES: list[tuple[float, float, _Side]] = [
    *((9, 0, "left"), (7, 9, "left"), (7, -9, "left")),
    *((-7, 9, "right"), (-7, -9, "right"), (-9, 0, "right")),
    *((0, 12, "center"), (0, -12, "center"), (7, 20, "left"), (7, -20, "left")),
    *((-7, 20, "right"), (-7, -20, "right"), (0, 24, "center"), (0, -24, "center")),
]


def _name_points(ax: Axes, points: Sequence[_Point], size: float = 9.0) -> None:
    """Write names next to the marks, where there is room, on as few bars as possible."""
    ax.autoscale_view()
    figure = ax.get_figure(root=True)
    if figure is None:
        return
    figure.draw_without_rendering()  # lays the axes out: without it pixels are not yet true
    scale, to_pixels = figure.dpi / 72, ax.transData.transform
    marks = [to_pixels((p.cost[0], p.value[0])) for p in points]
    taken = [(x - 6 * scale, y - 6 * scale, x + 6 * scale, y + 6 * scale) for x, y in marks]
    bars: list[Box] = []
    for p in points:
        (left, bottom), (right, top) = (
            to_pixels((p.cost[1], p.value[1])),
            to_pixels((p.cost[2], p.value[2])),
        )
        x, y = to_pixels((p.cost[0], p.value[0]))
        bars += [(left, y - 1, right, y + 1), (x - 1, bottom, x + 1, top)]
    for i in sorted(range(len(points)), key=lambda i: (not points[i].front, points[i].value[0])):
        point, (x, y) = points[i], marks[i]
        text = shorten(point.variant.label, 26)
        width, height = 0.56 * size * scale * len(text), 1.25 * size * scale
        places: list[tuple[int, int, Box]] = []
        for k, (dx, dy, side) in enumerate(_PLACES):
            left, bottom = x + dx * scale - _LEFT_OF[side] * width, y + dy * scale - height / 2
            box = (left, bottom, left + width, bottom + height)
            if has_room(box, ax, taken):
                places.append((sum(overlap(box, bar) for bar in bars), k, box))
        if not places:
            continue
        _, k, box = min(places)
        taken.append(box)
        dx, dy, side = _PLACES[k]
        note(
            ax,
            text,
            (point.cost[0], point.value[0]),
            (dx, dy),
            xycoords="data",
            ha=side,
            va="center",
            fontsize=size,
            fontweight="bold",
            color=point.style.ink,
            zorder=6,
            path_effects=[withStroke(linewidth=2.4, foreground=PAPER, alpha=0.85)],
        )


# --------------------------------------------------------------------- a panel for each variant

_MOST_PANELS = 12  # of one figure
_MOST_LAYERS = 24  # domains that can be distinguished in a small panel


@dataclass(frozen=True)
class _Panel:
    """Mean over the seeds of a variant that have the same domains."""

    variant: VariantLike
    names: tuple[str, ...]
    runs: list[Run]
    mean: Array
    edges: Array  # of rounds, if they are those of all runs

    @property
    def seeds(self) -> str:
        """How many seeds the mean is over, and whether these are all."""
        n, of = len(self.runs), len(self.variant.runs)
        return _seeds([n]) if n == of else f"{n} of {of} seeds"


def _panels(
    variants: Sequence[VariantLike], read: Callable[[Run], tuple[Array, Array]]
) -> list[_Panel]:
    """Mean over seeds of what `read` returns for each variant with domains and rounds of the first.

    A variant is left out if `read` returns nothing for any of its runs.
    """
    panels = []
    for variant in variants:
        arrays = [(run, *read(run)) for run in variant.runs]
        arrays = [(run, values, edges) for run, values, edges in arrays if len(values)]
        if not arrays:
            continue
        first, values, edges = arrays[0]
        names = domain_names(first, values.shape[1])
        same = [
            (run, v)
            for run, v, e in arrays
            if v.shape == values.shape
            and np.array_equal(e, edges)
            and domain_names(run, v.shape[1]) == names
        ]
        mean = finite_mean(np.array([v for _, v in same]))
        panels.append(_Panel(variant, tuple(names), [run for run, _ in same], mean, edges))
    return panels


def _last_cosines(run: Run) -> tuple[Array, Array]:
    grams = np.asarray(run.history.get("gram", []), dtype=np.float64)
    tracked = grams.ndim == 3 and grams.size
    return to_cosine(grams[-1]) if tracked else np.empty((0, 0)), np.empty(0)


def _by_names(panels: Sequence[_Panel]) -> Mapping[tuple[str, ...], list[_Panel]]:
    """Put panels with the same domains together, in the order given."""
    groups: dict[tuple[str, ...], list[_Panel]] = {}
    for panel in panels:
        groups.setdefault(panel.names, []).append(panel)
    return groups


def gram_by_variant(variants: Sequence[VariantLike], *, most: int = _MOST_PANELS) -> Figure:
    """Mean cosine Gram matrix of the last round of each variant, on one colour scale.

    Parameters
    ----------
    variants : sequence of variants
        Those whose runs tracked gradients; at most `most` are drawn, in the order given. The
        mean is over the seeds with the same domains as the first.
    most : int

    Returns
    -------
    matplotlib Figure
        Panels with the same domains have them in the same order; others have their own.
    """
    panels = _panels(variants, _last_cosines)
    shown = panels[:most]
    with rbkit_style():
        if not shown:
            return _empty_figure("no Gram matrix recorded")
        groups = _by_names(shown)
        order = {names: _order(same) for names, same in groups.items()}
        vmax = max(common_scale(panel.mean) for panel in shown)
        columns = _columns(shown)
        side = float(np.clip(0.13 * max(len(names) for names in groups), 2.1, 3.2))
        figure, axes = _grid(len(shown), columns, side, side + 0.45, 2.0)
        colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad="#e3e7eb")
        for i, (panel, ax) in enumerate(zip(shown, axes, strict=True)):
            ids, m = order[panel.names], len(panel.names)
            cells = np.ma.masked_invalid(panel.mean[np.ix_(ids, ids)])
            image = ax.imshow(cells, cmap=colours, vmin=-vmax, vmax=vmax, interpolation="nearest")
            # The diagonal is 1 by definition and says nothing: a line through it.
            ax.plot([-0.5, m - 0.5], [-0.5, m - 0.5], color="#3b4652", linewidth=0.7)
            ax.grid(False)
            ax.tick_params(length=0)
            ax.spines[:].set_visible(False)
            ax.set(xticks=[], yticks=[])
            # Names once per row, or numbers at each panel that has its own domains.
            size = min(7.5, 72 * side / m * 0.9)
            names = [panel.names[j] for j in ids]
            if size > 3.5 and len(groups) > 1:
                plain_ticks(ax.yaxis, short_ids(names), fontsize=size)
            elif size > 3.5 and i % columns == 0:
                plain_ticks(ax.yaxis, [shorten(name, 22) for name in names], fontsize=size)
            ax.set_title(shorten(panel.variant.label, 60), fontsize=10)
            fit_title(ax)
            ax.set_xlabel(panel.seeds, fontsize=8, color=MUTED)
            set_alt(ax, f"{panel.variant.label}: {extremes(panel.mean, panel.names)}.")
        colour_bar(image, list(axes), "cosine", aspect=26, extend="both")
        _describe(figure, "Gradient cosines, last round", len(panels), shown, len(groups))
    return figure


def _mean_cosines(run: Run) -> tuple[Array, Array]:
    grams = np.asarray(run.history.get("gram", []), dtype=np.float64)
    tracked = grams.ndim == 3 and grams.size
    return finite_mean(to_cosine(grams)) if tracked else np.empty((0, 0)), np.empty(0)


def _order(panels: Sequence[_Panel]) -> Order:
    """Order of the domains by similarity of gradients, over panels with the same domains.

    Of all rounds: of one run it is that of :func:`~rbkit.show.domain_order`.
    """
    tracked = _panels([panel.variant for panel in panels], _mean_cosines)
    means = [panel.mean for panel in tracked if panel.names == panels[0].names]
    return seriate(finite_mean(np.array(means))) if means else np.arange(len(panels[0].names))


def proportions_by_variant(variants: Sequence[VariantLike], *, most: int = _MOST_PANELS) -> Figure:
    """Proportions over time of each variant, mean over its seeds, with q at the right edge.

    Parameters
    ----------
    variants : sequence of variants
        Those whose runs recorded rounds; at most `most` are drawn, those whose proportions
        moved first. The mean is over the seeds with the same domains and rounds as the first.
    most : int

    Returns
    -------
    matplotlib Figure
        Domains have the same order and colour in all panels that have the same domains; of
        very many, the smaller ones are one layer.
    """
    panels = _panels(variants, proportions_in_force)
    # In their order, but fixed proportions only where there is room.
    fixed = [bool(np.ptp(panel.mean, axis=0).max(initial=0) < 1e-9) for panel in panels]
    first = sorted(range(len(panels)), key=lambda i: (fixed[i], i))[:most]
    shown = [panels[i] for i in sorted(first)]
    with rbkit_style():
        if not shown:
            return _empty_figure("no proportions recorded")
        groups = _by_names(shown)
        layers = {names: _layers(same) for names, same in groups.items()}
        columns = _columns(shown)
        named = len(groups) == 1
        height = max(2.5, 0.135 * len(layers[shown[0].names]) + 0.8) if named else 2.6
        figure, axes = _grid(len(shown), columns, 2.6, height, 2.3 if named else 0.3)
        for i, (panel, ax) in enumerate(zip(shown, axes, strict=True)):
            last = i % columns == columns - 1 or i == len(shown) - 1
            ids, palette = layers[panel.names], domain_colours(len(panel.names))
            proportions(
                _mean_run(panel, ids),
                ax,
                order=range(len(ids)),
                colours=[palette[layer[0]] if len(layer) == 1 else OTHERS for layer in ids],
                names=named and last,
                title=shorten(panel.variant.label, 60),
            )
            below = i + columns >= len(shown)
            ax.set_xlabel(f"optimizer step ({panel.seeds})" if below else panel.seeds, fontsize=8.5)
            if i % columns:
                ax.tick_params(labelleft=False)
        _describe(figure, "Proportions over time", len(panels), shown, len(groups))
    return figure


def _layers(panels: Sequence[_Panel]) -> list[list[int]]:
    """Domains from bottom to top; if there are very many, the smaller ones are one layer."""
    m = len(panels[0].names)
    order = _order(panels)[::-1].tolist()  # from the top down
    if m <= _MOST_LAYERS:
        return [[i] for i in order]
    weight = np.max([panel.mean.mean(axis=0) for panel in panels], axis=0)
    large = set(np.argsort(-weight, kind="stable")[: _MOST_LAYERS - 1].tolist())
    return [[i for i in order if i not in large], *([i] for i in order if i in large)]


def _mean_run(panel: _Panel, layers: Sequence[Sequence[int]]) -> Run:
    """View of a run whose proportions are the mean over seeds, layer by layer."""

    def together(shares: Array) -> Array:
        return np.stack([shares[..., list(ids)].sum(axis=-1) for ids in layers], axis=-1)

    targets = [q for run in panel.runs if (q := target(run)) is not None]
    targets = [q for q in targets if len(q) == len(panel.names)]
    names = [panel.names[ids[0]] if len(ids) == 1 else f"{len(ids)} smaller ones" for ids in layers]
    q = together(np.mean(targets, axis=0)) if targets else None
    return panel.runs[0].with_(
        info={"parameters": {"mixer": panel.variant.label}, "domains": {"names": names, "q": q}},
        history={"p": together(panel.mean), "step": panel.edges[1:]},
    )


def _columns(panels: Sequence[_Panel]) -> int:
    """Panels in a row: a mixer's, where each has as many, so that columns compare; else 3 or 4."""
    n, counts = len(panels), Counter(panel.variant.mixer for panel in panels)
    each = set(counts.values())
    if len(each) == 1 and len(counts) > 1 and 1 < (columns := each.pop()) <= 4:
        return columns
    return n if n <= 4 else 3 if n in (5, 6, 9) else 4


def _grid(
    n: int, columns: int, width: float, height: float, margin: float
) -> tuple[Figure, list[Axes]]:
    """Figure with `n` axes in rows of `columns`, and `margin` inches for what stands at a side."""
    rows = -(-n // columns)
    figure = Figure(figsize=(width * columns + margin, height * rows + 0.35), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for ax in axes[n:]:
        ax.remove()
    return figure, list(axes[:n])


def _describe(figure: Figure, title: str, total: int, shown: Sequence[_Panel], kinds: int) -> None:
    """Write title and remarks, and make an alternative text of those of the panels."""
    remarks = [] if total == len(shown) else [f"{len(shown)} of {total} variants"]
    if kinds > 1:
        remarks.append("variants differ in their domains: each kind has its own order")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    if remarks:
        figure.supxlabel("; ".join(remarks), x=0.01, ha="left", fontsize=8.5, color=MUTED)
    each = [alt_text(ax) for ax in figure.axes if ax.get_label() != "<colorbar>"]
    seeds = ", ".join(dict.fromkeys(panel.seeds for panel in shown))
    middle = ["; ".join(remarks) + "."] if remarks else []
    set_alt(figure, " ".join([f"{title}, mean over {seeds}.", *middle, *each]))


def _empty_figure(text: str) -> Figure:
    figure = Figure(figsize=(6.4, 1.2))
    figure.text(0.5, 0.5, text, ha="center", va="center", color=MUTED)
    set_alt(figure, f"Nothing to show: {text}.")
    return figure
