"""Domains one under the other: sizes around a noise policy, eval distances against train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter
from numpy.typing import NDArray

from rbkit.errors import InputError
from rbkit.show.facts import Array
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

_BEFORE, _AFTER, _FAR = "#8c959f", mixer_colour("RnB"), mixer_colour("Target")
_MOST = 40  # rows that still can be read


def size_effect(outcome: Any, names: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Sizes of the domains before and after a noise policy: the effect is shown, not silent.

    Parameters
    ----------
    outcome : NoiseOutcome
        With ``sizes_before`` (m,), ``sizes_after`` (m,) or (m + 1,) where noise became a domain
        of its own, ``policy``, ``noise_before`` and ``noise_after`` (:func:`settle_noise`).
    names : sequence of str, optional
        Of the domains after it.
    ax : matplotlib Axes, optional
    """
    before = np.asarray(outcome.sizes_before, dtype=np.float64)
    after = np.asarray(outcome.sizes_after, dtype=np.float64)
    known, m = len(before), max(len(before), len(after))
    before, after = (np.pad(sizes, (0, m - len(sizes))) for sizes in (before, after))
    # Under "own" the noise is a domain, and so in a domain.
    left_out = 0 if len(outcome.sizes_after) > known else outcome.noise_after
    noise = float(outcome.noise_before), float(left_out)
    labels = list(names) if names is not None else [f"domain {i}" for i in range(known)]
    labels += ["noise, a domain now"] * (m - len(labels))
    order = np.argsort(-after, kind="stable")
    hidden = max(0, m - _MOST)
    kept = np.sort(np.argsort(-np.abs(after - before)[order], kind="stable")[:_MOST])
    rows = order[kept]
    with rbkit_style():
        ax = new_axes(ax, 6.8, 1.5 + 0.24 * max(len(rows) + 1, 4))
        y = np.arange(len(rows) + 1)
        left = np.append(before[rows], noise[0])
        right = np.append(after[rows], noise[1])
        ax.hlines(y, left, right, color="#b9c6d3", linewidth=3, zorder=1)
        ax.plot(left, y, "o", color="white", mec=_BEFORE, mew=1.6, ms=6.5, label="before", zorder=2)
        ax.plot(right, y, "o", color=_AFTER, mec="white", ms=7.5, label="after", zorder=3)
        plain_ticks(ax.yaxis, [*(shorten(labels[i], 36) for i in rows), "in no domain"])
        ax.get_yticklabels()[-1].set_fontstyle("italic")
        tidy(ax, "x")
        ax.tick_params(axis="y", length=0)
        ax.invert_yaxis()
        ax.margins(y=0.02)
        ax.set_xlim(left=min(0.0, -0.015 * float(max(left.max(), right.max()))))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        ax.set_xlabel("training examples" + (f" ({hidden} domains that changed least are not shown)"
                                             if hidden else ""))  # fmt: skip
        ax.set_title(f"Noise policy “{outcome.policy}”", parse_math=False)
        legend_above(ax)
        total = max(float(before.sum()) + noise[0], 1.0)
        most = int(np.argmax(after - before))
        grown = f"{labels[most]} grows most, from {before[most]:,.0f} to {after[most]:,.0f}"
        grown = grown if after[most] > before[most] else "no domain grows"
        set_alt(ax, f"Sizes of {m} domains before and after the noise policy {outcome.policy}: "
                    f"in no domain {noise[0] / total:.1%} of the examples before, "
                    f"{noise[1] / total:.1%} after; {grown}.")  # fmt: skip
    return ax


def eval_distances(domains: Any, far: Any, ax: Axes | None = None) -> Axes:
    """Distances of eval examples to their domains, over the spread of the training examples.

    Parameters
    ----------
    domains : Domains
        With ``quality["distances"]``, see :func:`rbkit.regroup.distances.distance_profile`.
    far : FarEval
        From :func:`rbkit.regroup.outliers.far_eval`.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
        A row per domain, those with the largest share of far eval examples first; grey the
        5 % to 95 % and the middle half of training, a tick where far begins, eval as dots.
    """
    profile = domains.quality.get("distances")
    if profile is None:
        what = "no distances of the training examples are saved with them"
        raise InputError("domains", what, "store distance_profile(...) in quality['distances']")
    share = far.far_sizes / np.maximum(far.sizes, 1)
    order = np.lexsort((-far.sizes, -far.far_sizes, -share))[:_MOST]
    with rbkit_style():
        ax = new_axes(ax, 7.6, 1.6 + 0.25 * max(len(order), 4))
        _spread_of_train(ax, profile, order)
        _eval_dots(ax, far, order)
        plain_ticks(ax.yaxis, [f"{shorten(far.names[i], 32)}  {far.far_sizes[i]:,}/{far.sizes[i]:,}"
                               for i in order])  # fmt: skip
        tidy(ax, "x")
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(len(order) - 0.4, -0.6)
        ax.set_xlim(left=0)
        hidden = len(far.names) - len(order)
        ax.set_xlabel("distance to the nearest prototype; tick: far from here on"
                      + (f" ({hidden} more domains are not shown)" if hidden else ""))  # fmt: skip
        ax.set_title("Eval against train")
        legend_above(ax)
        set_alt(ax, f"Distances of eval examples to their domains. {far.message()}.")
    return ax


def _spread_of_train(ax: Axes, profile: Mapping[str, Any], order: NDArray[np.intp]) -> None:
    at = [float(level) for level in profile["quantiles"]["at"]]
    outer, inner = (at.index(0.05), at.index(0.95)), (at.index(0.25), at.index(0.75))
    for row, i in enumerate(order):
        quantiles = profile["quantiles"]["by_domain"][i]
        if quantiles is None:
            continue
        for (low, high), colour, label in (
            (outer, "#e1e7ec", "train 5–95 %"), (inner, "#b9c6d3", "25–75 %")
        ):  # fmt: skip
            ax.barh(row, quantiles[high] - quantiles[low], 0.56, quantiles[low], color=colour,
                    label=label if row == 0 else None)  # fmt: skip
    limits = np.asarray(profile["thresholds"], dtype=np.float64)[order]
    rows = np.arange(len(order))
    ax.vlines(limits, rows - 0.38, rows + 0.38, color=INK, linewidth=1.1, zorder=3)


def _eval_dots(ax: Axes, far: Any, order: NDArray[np.intp]) -> None:
    place = np.full(len(far.names), -1)
    place[order] = np.arange(len(order))
    rows: Array = np.where(far.labels >= 0, place[far.labels.clip(0)], -1).astype(np.float64)
    jitter = np.random.default_rng(0).uniform(-0.2, 0.2, len(rows))
    size = 3.2 if len(rows) < 3000 else 1.8
    for mask, marker, colour, label, grow in (
        (~far.far, "o", MUTED, "eval", 1.0), (far.far, "D", _FAR, "far", 1.3)
    ):  # fmt: skip
        shown = mask & (rows >= 0)
        ax.plot(far.distances[shown], (rows + jitter)[shown], marker, color=colour, mew=0,
                ms=size * grow, alpha=0.75, label=label, zorder=4, rasterized=True)  # fmt: skip
