"""Gram matrices and proportions of several variants as small multiples, on one scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from rbkit.show.facts import (
    Array,
    RunLike,
    domain_names,
    loss_series,
    losses,
    pairs_by_seed,
    proportions_in_force,
    same_corpus,
    smooth,
    spent,
    target,
)
from rbkit.show.figures.mixture import proportions
from rbkit.show.gram_layout import (
    common_scale,
    extremes,
    finite_mean,
    seriate,
    short_ids,
    to_cosine,
)
from rbkit.show.style import (
    INK,
    MUTED,
    PAPER,
    RULE,
    alt_text,
    label_line_ends,
    mixer_colour,
    mixer_marker,
    new_axes,
    plain_ticks,
    rbkit_style,
    say_nothing,
    set_alt,
    shorten,
    tidy,
)
from rbkit.text import number

_LINES: list[Any] = ["-", (0, (5, 1.8)), (0, (1.3, 1.3)), (0, (6, 1.8, 1.3, 1.8))]
GREY = "#c3cad2"


class VariantLike(Protocol):
    """A group of runs that differ only in their seed."""

    @property
    def label(self) -> str:
        """What it is called."""

    @property
    def mixer(self) -> str:
        """Name of its mixer."""

    @property
    def key(self) -> tuple[tuple[str, Hashable], ...]:
        """What varies, by name, and its value here."""

    @property
    def runs(self) -> Sequence[RunLike]:
        """Finished runs, one per seed."""


@dataclass(frozen=True)
class Look:
    """Colour, marker and line style of a variant, and the colour of its name."""

    colour: str
    ink: str  # as dark as text must be: a shade of a mixer's colour may be too faint
    marker: str
    line: Any


def looks(variants: Sequence[VariantLike]) -> list[Look]:
    """Return the look of each variant.

    Where mixers differ, a mixer keeps its colour and marker; what else varies is told by shade
    and line style, from dark and solid in the order of the variants. Where only one mixer is
    there, values have colours of their own, in order.
    """
    rest_of = _rests(variants)
    rests = list(dict.fromkeys(rest_of))
    one_mixer = len({variant.mixer for variant in variants}) == 1 and len(rests) > 1
    found = []
    for variant, rest in zip(variants, rest_of, strict=True):
        i = rests.index(rest)
        share = i / max(len(rests) - 1, 1)
        if one_mixer:
            # Without the yellow end, which is too faint on white.
            colour = ink = to_hex(matplotlib.colormaps["viridis"](0.75 * share))
        else:
            ink = mixer_colour(variant.mixer)
            r, g, b = (c + 0.4 * share * (1 - c) for c in to_rgb(ink))
            colour = to_hex((r, g, b))
        found.append(Look(colour, ink, mixer_marker(variant.mixer), _LINES[i % len(_LINES)]))
    return found


def mean_loss(variant: VariantLike) -> float:
    """Mean final eval loss per token over the runs of a variant; infinite if there is none."""
    known = [value for run in variant.runs if (value := losses(run).token) is not None]
    return float(np.mean(known)) if known else float("inf")


def outstanding(
    variants: Sequence[VariantLike],
    baselines: Collection[str],
    most: int = 12,
    values: Sequence[float] | None = None,
) -> list[bool]:
    """Whether each variant is shown by name: all if few, else the best, the worst, a baseline.

    Parameters
    ----------
    variants : sequence of variants
    baselines : collection of str
        Labels of baselines, of which the best is named.
    most : int
        Up to so many are all named.
    values : sequence of float, optional
        What to rank them by, lowest first; their mean final loss if not given, which is fair
        only if they have the same seeds.
    """
    if len(variants) <= most:
        return [True] * len(variants)
    ranks = [mean_loss(variant) for variant in variants] if values is None else values
    order = sorted(range(len(variants)), key=lambda i: ranks[i])
    base = [i for i in order if variants[i].label in baselines][:1]
    named = {*order[:3], order[-1], *base}
    return [i in named for i in range(len(variants))]


def how_many(n: int) -> str:
    """Say how many seeds a mean is over.

    Examples
    --------
    >>> how_many(1), how_many(5)
    ('one seed', '5 seeds')
    """
    return "one seed" if n == 1 else f"{n} seeds"


def seeds_of(variants: Sequence[VariantLike]) -> str:
    """Say how many seeds the variants have: ``5 seeds``, or ``2 to 5 seeds``."""
    counts = {len(variant.runs) for variant in variants} or {0}
    low, high = min(counts), max(counts)
    return how_many(high) if low == high else f"{low} to {high} seeds"


def _rests(variants: Sequence[VariantLike]) -> list[tuple[Hashable, int]]:
    """Return what varies beside the mixer; of its own options only which set it is."""
    sets: dict[str, list[Hashable]] = {}
    found: list[tuple[Hashable, int]] = []
    for variant in variants:
        values = dict(variant.key)
        own = sets.setdefault(variant.mixer, [])
        if (options := values.pop("mixer_options", None)) not in own:
            own.append(options)
        values.pop("mixer", None)
        found.append((tuple(values.items()), own.index(options)))
    return found


_LAYERS = 24  # domains that can be told apart in a small panel
Names = tuple[str, ...]


@dataclass(frozen=True)
class Panel:
    """Mean over the seeds of a variant that have the same domains."""

    variant: VariantLike
    names: Names
    runs: list[RunLike]
    mean: Array
    edges: Array = field(default_factory=lambda: np.empty(0))

    @property
    def seeds(self) -> str:
        """How many seeds the mean is over, and why not over all."""
        n, of = len(self.runs), len(self.variant.runs)
        return how_many(n) if n == of else f"{n} of {of} seeds"


class MeanMixture:
    """Stands for a run whose proportions are the mean over seeds."""

    def __init__(self, panel: Panel, layers: Sequence[Sequence[int]]) -> None:
        def together(shares: Array) -> Array:
            return np.stack([shares[..., list(ids)].sum(axis=-1) for ids in layers], axis=-1)

        self.path = Path(panel.variant.label)
        self.status, self.domains = "ok", None
        known = [q for run in panel.runs if (q := target(run)) is not None]
        known = [q for q in known if len(q) == len(panel.names)]
        self.info: dict[str, Any] = {
            "parameters": {"mixer": panel.variant.label},
            "domains": {
                "names": [
                    panel.names[ids[0]] if len(ids) == 1 else f"{len(ids)} smaller ones"
                    for ids in layers
                ],
                "q": together(np.mean(known, axis=0)) if known else None,
            },
        }
        self.history: dict[str, Any] = {"p": together(panel.mean), "step": panel.edges[1:]}

    def metrics(self, kind: str) -> list[dict[str, Any]]:
        """Nothing was recorded."""
        return []


def gram_panel(variant: VariantLike) -> Panel | None:
    """Mean over seeds of the last round's cosines; None if no seed tracked gradients.

    Only seeds with the domains of the first such seed are part of it.
    """
    found = []
    for run in variant.runs:
        grams = np.asarray(run.history.get("gram", []), dtype=np.float64)
        if grams.ndim == 3 and grams.size:
            found.append((run, to_cosine(grams[-1])))
    if not found:
        return None
    names = _names(found[0][0], len(found[0][1]))
    same = [(run, G) for run, G in found if len(G) == len(names) and _names(run, len(G)) == names]
    return Panel(
        variant, names, [run for run, _ in same], finite_mean(np.array([G for _, G in same]))
    )


def mixture_panel(variant: VariantLike) -> Panel | None:
    """Mean over seeds of the proportions in force; None if no seed recorded a round.

    Only seeds with the domains and rounds of the first such seed are part of it.
    """
    found = [(run, *proportions_in_force(run)) for run in variant.runs]
    found = [(run, p, edges) for run, p, edges in found if len(p)]
    if not found:
        return None
    first, shape, edges = found[0][0], found[0][1].shape, found[0][2]
    names = _names(first, shape[1])
    same = [
        (run, p)
        for run, p, where in found
        if p.shape == shape and np.array_equal(where, edges) and _names(run, shape[1]) == names
    ]
    return Panel(
        variant, names, [run for run, _ in same], np.mean([p for _, p in same], axis=0), edges
    )


def _names(run: RunLike, m: int) -> Names:
    names = domain_names(run)
    return tuple(names) if len(names) == m else tuple(f"domain {i}" for i in range(m))


def by_names(panels: Sequence[Panel]) -> Mapping[Names, list[Panel]]:
    """Put panels with the same domains together, in the order given."""
    groups: dict[Names, list[Panel]] = {}
    for panel in panels:
        groups.setdefault(panel.names, []).append(panel)
    return groups


def layers_of(panels: Sequence[Panel], m: int) -> list[list[int]]:
    """Domains from bottom to top; if there are very many, the smaller ones are one layer."""
    order = _order(panels, m).tolist()
    if m <= _LAYERS:
        return [[i] for i in order]
    weight = np.max([panel.mean.mean(axis=0) for panel in panels], axis=0)
    large = set(np.argsort(-weight, kind="stable")[: _LAYERS - 1].tolist())
    return [[i] for i in order if i in large] + [[i for i in order if i not in large]]


def _order(panels: Sequence[Panel], m: int) -> NDArray[np.int64]:
    """Domains by similarity of gradients, if a variant with these domains tracked them."""
    grams = [
        found.mean
        for panel in panels
        if (found := gram_panel(panel.variant)) is not None and found.names == panel.names
    ]
    return seriate(finite_mean(np.array(grams))) if grams else np.arange(m)


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
) -> Axes:
    """Loss per token against the step: a line for the mean over seeds, a band from min to max.

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
        paired by seed and on one corpus: curves that lie on top of each other are told apart.
    baseline : str
        Name of what is subtracted.
    baselines : collection of str
        Labels of the baselines among the variants.

    Returns
    -------
    matplotlib Axes
    """
    with rbkit_style():
        ax = new_axes(ax, 7.2, 4.0)
        shown = [v for v in variants if minus is None or v.label not in baselines]
        read = _reader(split)
        found = [_curves(v, read) if minus is None else _gaps(v, minus(v), read) for v in shown]
        # Paired differences rank variants that do not all have the same seeds, too.
        last = [
            float(np.mean([values[-1] for _, values in curves])) if curves else np.inf
            for curves in found
        ]
        named = outstanding(shown, baselines, values=None if minus is None else last)
        ends: list[tuple[float, float, str, str]] = []
        said, highest = [], []
        for variant, curves, look, full in zip(shown, found, looks(shown), named, strict=True):
            steps, values = _together(curves)
            if not len(steps):
                continue
            mean = values.mean(axis=0)
            colour = look.colour if full else GREY
            if full and len(values) > 1:
                low, high = values.min(axis=0), values.max(axis=0)
                ax.fill_between(
                    steps,
                    low,
                    high,
                    color=colour,
                    linewidth=0,
                    alpha=0.14 if len(shown) <= 4 else 0.07,
                )
                ax.plot(steps, np.array([low, high]).T, color=colour, linewidth=0.6, alpha=0.5)
            marks = full and (split == "eval" or len(steps) == 1)  # a point has no line
            ax.plot(
                steps,
                mean,
                color=colour,
                linestyle=look.line if full else "-",
                linewidth=1.9 if full else 0.9,
                marker=look.marker if marks else "",
                markersize=4.5,
                markeredgecolor="white",
                zorder=3 if full else 1.5,
                markevery=max(1, len(steps) // 10),
            )
            highest.append(float(np.interp(_from(steps), steps, values.max(axis=0))))
            if full:
                ends.append((float(steps[-1]), float(mean[-1]), _end(variant.label), look.ink))
                reach = f"{number(values[:, -1].min())} to {number(values[:, -1].max())}"
                spread = f" (seeds {reach})" if len(values) > 1 else ""
                said.append(f"{variant.label} ends at {number(mean[-1])}{spread}")
        _finish(ax, split, minus is not None, baseline, highest, shown, len(ends))
        label_line_ends(ax, ends, 9 if len(ends) > 6 else 9.5)
        grey = len(shown) - sum(named)
        rest = f" {grey} other variants are grey." if grey else ""
        what = f"{split.capitalize()} loss by step"
        what += f" minus that of {baseline}, below 0 is better" if minus is not None else ""
        over = seeds_of(shown)
        over = over if over == "one seed" else f"mean and range over {over}"
        set_alt(ax, f"{what}, {over}: {'; '.join(said) or 'none recorded'}.{rest}")
    return ax


def _finish(
    ax: Axes,
    split: str,
    relative: bool,
    baseline: str,
    highest: list[float],
    shown: Sequence[VariantLike],
    labels: int,
) -> None:
    tidy(ax)
    ax.set_xlabel("optimizer step")
    ax.margins(x=0.02)
    several = any(len(variant.runs) > 1 for variant in shown)
    over = ": mean and range over seeds" if several else ""
    if relative:
        ax.set_ylabel(f"minus {shorten(baseline, 24)} (nats per token)")
        ax.set_title(f"{split.capitalize()} loss minus {shorten(baseline, 24)}{over}")
    else:
        ax.set_ylabel(f"{split} loss (nats per token)")
        ax.set_title(f"{split.capitalize()} loss{over}")
    if not highest:
        text = "nothing to compare" if relative else f"no {split} loss recorded"
        say_nothing(ax, text)
    elif relative:
        ax.axhline(0, color=MUTED, linewidth=1.1, linestyle=(0, (4, 2)), zorder=2)
    else:
        # The first steps fall from far above: with them all curves would look the same.
        ax.autoscale_view()
        low, top = ax.dataLim.y0, max(highest)
        if top > low and ax.dataLim.y1 > top:
            # Curves end low, where their names need room above the axis.
            room = 0.05 + 0.025 * labels
            ax.set_ylim(low - room * (top - low), top + 0.05 * (top - low))
            ax.annotate(
                "the first steps lie above",
                (0.99, 0.985),
                xycoords="axes fraction",
                ha="right",
                va="top",
                fontsize=8,
                color=MUTED,
            )


def _from(steps: Array) -> float:
    """Step from which on all is shown: after the first eighth."""
    return float(steps[0] + (steps[-1] - steps[0]) / 8)


def _end(label: str) -> str:
    return shorten(label, 30)


def _reader(split: Literal["eval", "train"]) -> Callable[[RunLike], _Curve]:
    """Read the curve of a run, each once: a baseline is asked for by many."""
    known: dict[int, _Curve] = {}

    def read(run: RunLike) -> _Curve:
        if id(run) not in known:
            steps, values = loss_series(run, split)
            smoothed = split == "train" and len(values) > 0
            known[id(run)] = steps, smooth(values) if smoothed else values
        return known[id(run)]

    return read


def _curves(variant: VariantLike, read: Callable[[RunLike], _Curve]) -> list[_Curve]:
    return [curve for run in variant.runs if len((curve := read(run))[0])]


def _gaps(
    variant: VariantLike, other: VariantLike | None, read: Callable[[RunLike], _Curve]
) -> list[_Curve]:
    """Curve of each run minus that of the other variant's run of its seed."""
    if other is None or other is variant:
        return []
    found = []
    for run, base in pairs_by_seed(variant.runs, other.runs):
        if not same_corpus(run, base):
            continue  # losses of other texts
        (steps, values), (where, reference) = read(run), read(base)
        both = np.intersect1d(steps, where)
        if len(both):
            gap = np.interp(both, steps, values) - np.interp(both, where, reference)
            found.append((both, gap))
    return found


def _together(curves: Sequence[_Curve]) -> tuple[Array, Array]:
    """Return the steps that all curves span (n,), and the curves there (runs, n)."""
    if not curves:
        return np.empty(0), np.empty((0, 0))
    steps = np.unique(np.concatenate([where for where, _ in curves]))
    first, last = max(w[0] for w, _ in curves), min(w[-1] for w, _ in curves)
    steps = steps[(steps >= first) & (steps <= last)]
    return steps, np.array([np.interp(steps, where, values) for where, values in curves])


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
        ax.annotate(
            note,
            (1, 0),
            (0, -31),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8,
            color=MUTED,
        )
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
        ax.plot(
            gap.values,
            y + np.linspace(-0.16, 0.16, n),
            marker,
            color=colour,
            alpha=0.3,
            ms=4,
            mec="none",
            zorder=2,
        )
    if gap.half_width is not None:
        ax.plot(
            [gap.mean - gap.half_width, gap.mean + gap.half_width],
            [y, y],
            color=colour,
            linewidth=2.2,
            zorder=3,
        )
    ax.plot(
        [gap.mean],
        [y],
        marker,
        color=colour if _told_apart(gap) else "white",
        mec=colour,
        mew=1.6,
        ms=7.5,
        zorder=4,
    )


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
        Of the plain steps and all that the rule added, see :func:`rbkit.show.facts.spent`.
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
        ax.plot(
            [p.cost[0] for p in front],
            [p.loss[0] for p in front],
            color=MUTED,
            linewidth=1.0,
            linestyle=(0, (4, 2)),
            zorder=1.5,
        )
        for point, full in zip(points, named, strict=True):
            _pareto_figure_draw(ax, point, full)
        _axis(ax, points, cost)
        _label(ax, [p for p, full in zip(points, named, strict=True) if full])
        best = ", ".join(
            f"{p.variant.label} ({_cost(p.cost[0], cost)}, {number(p.loss[0])})" for p in front
        )
        over = seeds_of([p.variant for p in points])
        set_alt(
            ax,
            f"Mean final eval loss against {_XLABEL[cost]}, {len(points)} variants, "
            f"{over}. Not beaten in both: {best}.",
        )
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
            (price.total, loss)
            for run in variant.runs
            if (price := spent(run, unit)) is not None and (loss := losses(run).token) is not None
        ]
        if both:
            prices, finals = np.array(both).T
            found.append(_Point(variant, look, _span(prices), _span(finals)))
    return [
        _Point(p.variant, p.look, p.cost, p.loss, not any(_beats(o, p) for o in found))
        for p in found
    ]


def _span(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float, float]:
    return float(values.mean()), float(values.min()), float(values.max())


def _beats(one: _Point, other: _Point) -> bool:
    ours, theirs = (one.cost[0], one.loss[0]), (other.cost[0], other.loss[0])
    return ours != theirs and ours[0] <= theirs[0] and ours[1] <= theirs[1]


def _pareto_figure_draw(ax: Axes, point: _Point, full: bool) -> None:
    (x, *xs), (y, *ys) = point.cost, point.loss
    colour = point.look.colour if full else GREY
    if full:
        ax.plot(xs, [y, y], color=colour, linewidth=1.1, alpha=0.55, zorder=2)
        ax.plot([x, x], ys, color=colour, linewidth=1.1, alpha=0.55, zorder=2)
    ax.plot(
        [x],
        [y],
        point.look.marker,
        color=colour,
        ms=8 if full else 5.5,
        mec="white",
        zorder=4 if full else 1.8,
    )


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
            inside = (
                frame.x0 <= box[0]
                and box[2] <= frame.x1
                and frame.y0 <= box[1]
                and box[3] <= frame.y1
            )
            if inside and not any(_overlap(box, other) for other in taken):
                places.append(
                    (sum(_overlap(box, bar) for bar in bars), len(places), box, dx, dy, side)
                )
        if places:
            *_, box, dx, dy, side = min(places, key=lambda place: place[:2])
            taken.append(box)
            ax.annotate(
                text,
                (points[i].cost[0], points[i].loss[0]),
                (dx, dy),
                ha=side,
                va="center",
                textcoords="offset points",
                fontsize=_SIZE,
                fontweight="bold",
                parse_math=False,
                color=points[i].look.ink,
                zorder=6,
                path_effects=[withStroke(linewidth=2.4, foreground=PAPER, alpha=0.85)],
            )


_Side = Literal["left", "center", "right"]
_LEFT_OF: dict[_Side, float] = {"left": 0.0, "center": 0.5, "right": 1.0}
# Points to the side and above of a mark, and which end of the text lies there; nearest first.
_PLACES: list[tuple[float, float, _Side]] = [
    (9, 0, "left"),
    (7, 9, "left"),
    (7, -9, "left"),
    (-7, 9, "right"),
    (-7, -9, "right"),
    (-9, 0, "right"),
    (0, 12, "center"),
    (0, -12, "center"),
    (7, 20, "left"),
    (7, -20, "left"),
    (-7, 20, "right"),
    (-7, -20, "right"),
    (0, 24, "center"),
    (0, -24, "center"),
]


def _bars(point: _Point, to_pixels: Callable[[tuple[float, float]], Any]) -> list[_Box]:
    """Boxes of the two bars of a point, in pixels."""
    (x, x0, x1), (y, y0, y1) = point.cost, point.loss
    (left, middle), (right, _) = to_pixels((x0, y)), to_pixels((x1, y))
    (centre, bottom), (_, top) = to_pixels((x, y0)), to_pixels((x, y1))
    return [(left, middle - 1, right, middle + 1), (centre - 1, bottom, centre + 1, top)]


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


_MOST_VARIANTS = 12  # panels of one figure


def gram_by_variant(variants: Sequence[VariantLike], *, most: int = _MOST_VARIANTS) -> Figure:
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
    panels = [panel for variant in variants if (panel := gram_panel(variant)) is not None]
    shown = panels[:most]
    with rbkit_style():
        if not shown:
            return _nothing("no Gram matrix recorded")
        groups = by_names(shown)
        order = {
            names: seriate(finite_mean(np.array([p.mean for p in found])))
            for names, found in groups.items()
        }
        vmax = max(common_scale(panel.mean) for panel in shown)
        columns = _columns(shown)
        m = max(len(names) for names in groups)
        side = float(np.clip(0.13 * m, 2.1, 3.2))
        figure, axes = _grid(len(shown), columns, side, side + 0.45, 1.7)
        for i, (panel, ax) in enumerate(zip(shown, axes, strict=True)):
            ids = order[panel.names]
            image = _heat(ax, panel.mean[np.ix_(ids, ids)], vmax)
            _write_domains(
                ax, [panel.names[j] for j in ids], side, i % columns == 0, len(groups) > 1
            )
            ax.set_title(f"{shorten(panel.variant.label, 30)}", fontsize=10)
            ax.set_xlabel(panel.seeds, fontsize=8, color=MUTED)
            set_alt(ax, f"{panel.variant.label}: {extremes(panel.mean, panel.names)}.")
        bar = figure.colorbar(
            image, ax=list(axes), shrink=0.75, aspect=26, pad=0.02, extend="both", label="cosine"
        )
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0, labelsize=8)
        _tell(figure, "Gradient cosines, last round", len(panels), shown, groups)
    return figure


def proportions_by_variant(
    variants: Sequence[VariantLike], *, most: int = _MOST_VARIANTS
) -> Figure:
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
    panels = [panel for variant in variants if (panel := mixture_panel(variant)) is not None]
    shown = _most_moving(panels, most)
    with rbkit_style():
        if not shown:
            return _nothing("no proportions recorded")
        groups = by_names(shown)
        layers = {names: layers_of(found, len(names)) for names, found in groups.items()}
        columns = _columns(shown)
        m = max(len(found) for found in layers.values())
        named = len(groups) == 1
        height = max(2.5, 0.135 * m + 0.8) if named else 2.6
        figure, axes = _grid(len(shown), columns, 2.6, height, 2.3 if named else 0.3)
        for i, (panel, ax) in enumerate(zip(shown, axes, strict=True)):
            last = i % columns == columns - 1 or i == len(shown) - 1
            mean = MeanMixture(panel, layers[panel.names])
            proportions(
                mean,
                ax,
                order=range(len(layers[panel.names])),
                names=named and last,
                title=shorten(panel.variant.label, 30),
            )
            ax.title.set_fontsize(10)
            below = i + columns >= len(shown)
            ax.set_xlabel(f"optimizer step ({panel.seeds})" if below else panel.seeds, fontsize=8.5)
            if i % columns:
                ax.tick_params(labelleft=False)
        _tell(figure, "Proportions over time", len(panels), shown, groups)
    return figure


def _heat(ax: Axes, G: Array, vmax: float) -> Any:
    colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad="#e3e7eb")
    image = ax.imshow(
        np.ma.masked_invalid(G), cmap=colours, vmin=-vmax, vmax=vmax, interpolation="nearest"
    )
    # The diagonal is 1 by definition and says nothing: a line through it.
    ax.plot([-0.5, len(G) - 0.5], [-0.5, len(G) - 0.5], color="#3b4652", linewidth=0.7)
    ax.grid(False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return image


def _write_domains(ax: Axes, names: list[str], side: float, first: bool, own: bool) -> None:
    """Names at the left: once per row, or as numbers at each panel that has its own domains."""
    size = min(7.5, 72 * side / len(names) * 0.9)
    texts = short_ids(names) if own else [shorten(name, 22) for name in names]
    legible = size > 3.5 and (own or first)
    ax.set(xticks=[], yticks=[])
    if legible:
        plain_ticks(ax.yaxis, texts, fontsize=size)


def _most_moving(panels: list[Panel], most: int) -> list[Panel]:
    """At most so many, in their order: fixed proportions only where there is room."""
    still = [bool(np.ptp(panel.mean, axis=0).max(initial=0) < 1e-9) for panel in panels]
    kept = sorted(sorted(range(len(panels)), key=lambda i: (still[i], i))[:most])
    return [panels[i] for i in kept]


def _columns(panels: Sequence[Panel]) -> int:
    """Panels in a row: a mixer's, where each has as many, so that columns compare; else 3 or 4."""
    n, counts = len(panels), Counter(panel.variant.mixer for panel in panels)
    each = set(counts.values())
    if len(each) == 1 and len(counts) > 1 and 1 < (columns := each.pop()) <= 4:
        return columns
    return n if n <= 4 else 3 if n in (5, 6, 9) else 4


def _grid(
    n: int, columns: int, width: float, height: float, beside: float
) -> tuple[Figure, list[Axes]]:
    """Figure with `n` axes in rows of `columns`, and `beside` inches for what stands at a side."""
    rows = -(-n // columns)
    figure = Figure(figsize=(width * columns + beside, height * rows + 0.35), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for ax in axes[n:]:
        ax.remove()
    return figure, list(axes[:n])


def _tell(
    figure: Figure, title: str, there: int, shown: Sequence[Panel], groups: Mapping[Names, Any]
) -> None:
    """Title, and an alternative text from those of the panels."""
    said = [] if there == len(shown) else [f"{len(shown)} of {there} variants"]
    if len(groups) > 1:
        said.append("variants differ in their domains: each kind has its own order")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    if said:
        figure.supxlabel("; ".join(said), x=0.01, ha="left", fontsize=8.5, color=MUTED)
    each = " ".join(alt_text(ax) for ax in figure.axes if ax.get_label() != "<colorbar>")
    seeds = ", ".join(dict.fromkeys(panel.seeds for panel in shown))
    set_alt(figure, f"{title}, mean over {seeds}. {'; '.join(said)}{'. ' if said else ''}{each}")


def _nothing(text: str) -> Figure:
    figure = Figure(figsize=(6.4, 1.2))
    figure.text(0.5, 0.5, text, ha="center", va="center", color=MUTED)
    set_alt(figure, f"Nothing to show: {text}.")
    return figure
