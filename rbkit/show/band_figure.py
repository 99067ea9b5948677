"""Losses of variants over time: the mean over seeds, and the range that the seeds span."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal, TypeVar

import numpy as np
from matplotlib.axes import Axes

from rbkit.show.curves import series, smooth
from rbkit.show.facts import Array, RunLike, pairs_by_seed, same_corpus
from rbkit.show.style import (
    MUTED,
    label_line_ends,
    new_axes,
    number,
    rbkit_style,
    say_nothing,
    set_alt,
    shorten,
    tidy,
)
from rbkit.show.variant_looks import GREY, VariantLike, looks, outstanding, seeds_of

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
        last = [float(np.mean([values[-1] for _, values in curves])) if curves else np.inf
                for curves in found]  # fmt: skip
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
                ax.fill_between(steps, low, high, color=colour, linewidth=0,
                                alpha=0.14 if len(shown) <= 4 else 0.07)  # fmt: skip
                ax.plot(steps, np.array([low, high]).T, color=colour, linewidth=0.6, alpha=0.5)
            marks = full and (split == "eval" or len(steps) == 1)  # a point has no line
            ax.plot(steps, mean, color=colour, linestyle=look.line if full else "-",
                    linewidth=1.9 if full else 0.9, marker=look.marker if marks else "",
                    markersize=4.5, markeredgecolor="white", zorder=3 if full else 1.5,
                    markevery=max(1, len(steps) // 10))  # fmt: skip
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
        set_alt(ax, f"{what}, {over}: "
                    f"{'; '.join(said) or 'none recorded'}.{rest}")  # fmt: skip
    return ax


def _finish(
    ax: Axes, split: str, relative: bool, baseline: str, highest: list[float],
    shown: Sequence[VariantLike], labels: int,
) -> None:  # fmt: skip
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
            ax.annotate("the first steps lie above", (0.99, 0.985), xycoords="axes fraction",
                        ha="right", va="top", fontsize=8, color=MUTED)  # fmt: skip


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
            steps, values = series(run, split)
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
