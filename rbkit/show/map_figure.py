"""A map of the corpus: every example a point, and what is known of it as its colour.

A map shows which examples are neighbours. Distances between far groups, their sizes and the
empty space between them mean little: see ``notebooks/02_regroup``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from numpy.typing import ArrayLike, NDArray

from rbkit.errors import InputError
from rbkit.show.facts import Array
from rbkit.show.map_labels import map_colours, medians, shuffled, write_names
from rbkit.show.style import (
    INK,
    MUTED,
    new_axes,
    rbkit_style,
    set_alt,
    shorten,
)

_NOISE, _UNKNOWN = "#9aa3ad", "#d3d8de"


def domain_map(
    coordinates: ArrayLike,
    labels: ArrayLike,
    names: Sequence[str],
    ax: Axes | None = None,
    *,
    values: ArrayLike | None = None,
    value_label: str = "",
    centre: float | None = None,
    vmax: float | None = None,
    colours: Sequence[Any] | None = None,
    eval_coordinates: ArrayLike | None = None,
    selected: ArrayLike | None = None,
    most_names: int = 25,
    title: str | None = None,
) -> Axes:
    """Draw the map of a corpus, by domain or by a number per example; names at the medians.

    Parameters
    ----------
    coordinates : array of shape (n, 2)
        Of the training examples, from UMAP or any other projection; NaN rows are not drawn.
    labels : int array of shape (n,)
        Domain of each; -1, in no domain, is drawn as a grey cross.
    names : sequence of m str
    ax : matplotlib Axes, optional
    values : array of shape (n,), optional
        Colour by a number instead (distance, length, loss); NaN, unknown, is light grey.
    value_label : str
        What `values` are, with the unit.
    centre : float, optional
        Of a diverging scale: red above, blue below it.
    vmax : float, optional
        End of the scale; the 98th percentile if not given.
    colours : sequence of m colours, optional
        Such that neighbours differ, if not given.
    eval_coordinates : array of shape (n_eval, 2), optional
        Drawn as hollow diamonds.
    selected : int array, optional
        Rows that are ringed.
    most_names : int
        Largest domains that are named, as far as there is room.
    title : str, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    InputError
        Lengths that do not fit, or labels without a name.
    """
    xy, labels, given = _checked(coordinates, labels, names, values)
    m = len(names)
    sizes = np.bincount(labels[labels >= 0], minlength=m)
    with rbkit_style():
        # Wider than high by the colour bar, so that the map itself is nearly square.
        ax = new_axes(ax, 7.6 if given is not None else 6.8, 6.2)
        places = medians(xy, labels, m)
        _frame(ax, xy, eval_coordinates)
        examples = f"{len(labels):,} examples in {m} domains"
        ax.set_title(title or (f"Map by {value_label or 'value'}" if given is not None
                               else f"Map of {examples}"), parse_math=False)  # fmt: skip
        if given is None:
            palette = list(colours) if colours is not None else map_colours(places)
            rgba = np.array([matplotlib.colors.to_rgba(c) for c in palette]).reshape(-1, 4)
            point_colours = rgba[labels.clip(0)] if m else np.zeros((len(labels), 4))
        else:
            point_colours = _continuous(ax, given, value_label, centre, vmax)
        named = write_names(ax, places, names, sizes, most=most_names)
        _points(ax, xy, labels, point_colours)
        if eval_coordinates is not None:
            shown = np.asarray(eval_coordinates, dtype=np.float64)
            _rings(ax, shown, "D", 16 if len(shown) < 2000 else 6)
        if selected is not None:
            _rings(ax, xy[np.asarray(selected, dtype=np.int64)], "o", 14)
        _foot(ax, labels, len(named), m, eval_coordinates, selected)
        big = [shorten(names[i], 40) for i in np.argsort(-sizes, kind="stable")[:3] if sizes[i]]
        outside = f"; {(labels < 0).mean():.1%} in no domain" if (labels < 0).any() else ""
        by = f", coloured by {value_label or 'value'}" if given is not None else ""
        set_alt(ax, f"Map of {examples}{by}{outside}; largest: {', '.join(big) or 'none'}.")
    return ax


def _checked(
    coordinates: ArrayLike, labels: ArrayLike, names: Sequence[str], values: ArrayLike | None
) -> tuple[Array, NDArray[np.int64], Array | None]:
    xy, found = np.asarray(coordinates, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise InputError("coordinates", f"shape {xy.shape}", "give two numbers per example")
    given = None if values is None else np.asarray(values, dtype=np.float64)
    for name, column in (("labels", found), ("values", given)):
        if column is not None and column.shape != (len(xy),):
            what = f"shape {column.shape} for {len(xy)} points"
            raise InputError(name, what, "give one per example")
    if len(found) and not -1 <= found.min() <= found.max() < len(names):
        what = f"from {found.min()} to {found.max()} for {len(names)} names"
        raise InputError("labels", what, f"use -1 to {len(names) - 1}")
    return xy, found, given


def _frame(ax: Axes, xy: Array, eval_coordinates: ArrayLike | None) -> None:
    everything = [xy] if eval_coordinates is None else [xy, np.asarray(eval_coordinates)]
    points = np.concatenate(everything)
    points = points[np.isfinite(points).all(axis=1)]
    if len(points):
        low, high = points.min(axis=0), points.max(axis=0)
        size = np.maximum(high - low, 1e-9)
        size = 1.08 * np.maximum(size, size[::-1] * 0.7)  # never a mere strip
        middle = (low + high) / 2
        ax.set_xlim(middle[0] - size[0] / 2, middle[0] + size[0] / 2)
        ax.set_ylim(middle[1] - size[1] / 2, middle[1] + size[1] / 2)
    ax.set_aspect("equal")
    # The axes of such a projection have no meaning and no unit.
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    ax.spines[:].set_visible(False)


def _points(ax: Axes, xy: Array, labels: NDArray[np.int64], colours: Array) -> None:
    n = max(len(xy), 1)
    size = float(np.clip(22.0 * (2_000 / n) ** 0.7, 0.8, 22.0))
    alpha = 0.85 if n < 20_000 else 0.6
    order = shuffled(len(xy))
    inside = order[labels[order] >= 0]
    outside = order[labels[order] < 0]
    if len(outside):
        ax.scatter(
            xy[outside, 0], xy[outside, 1], s=max(size, 2.0), c=_NOISE, marker="x", linewidths=0.5,
            alpha=0.55, zorder=1, rasterized=True,
        )  # fmt: skip
    ax.scatter(
        xy[inside, 0], xy[inside, 1], s=size, c=colours[inside], marker="o", linewidths=0,
        alpha=alpha, zorder=2, rasterized=True,
    )  # fmt: skip


def _rings(ax: Axes, xy: Array, marker: str, size: float) -> None:
    ax.scatter(
        xy[:, 0], xy[:, 1], s=size, marker=marker, facecolors="none", edgecolors=INK,
        linewidths=0.6, zorder=4, rasterized=True,
    )  # fmt: skip


def _continuous(
    ax: Axes, values: Array, label: str, centre: float | None, vmax: float | None
) -> Array:
    """Colours of `values`, and the colour bar that explains them."""
    known = values[np.isfinite(values)]
    low, high = np.percentile(known, [2, 98]) if len(known) else (0.0, 1.0)
    if centre is not None:
        reach = vmax if vmax is not None else float(np.abs(known - centre).max(initial=1e-9))
        low, high = centre - reach, centre + reach
    elif vmax is not None:
        high = vmax
    high = high if high > low else low + 1.0
    scale = Normalize(float(low), float(high), clip=True)
    look = matplotlib.colormaps["RdBu_r" if centre is not None else "viridis"]
    painted: Array = np.asarray(look(scale(np.nan_to_num(values))), dtype=np.float64)
    painted[~np.isfinite(values)] = matplotlib.colors.to_rgba(_UNKNOWN)
    mappable = matplotlib.cm.ScalarMappable(scale, look)
    beyond = (len(known) and known.min() < low, len(known) and known.max() > high)
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}
    bar = ax.figure.colorbar(
        mappable, ax=ax, shrink=0.6, aspect=24, pad=0.02,
        extend=extend.get((bool(beyond[0]), bool(beyond[1])), "neither"),
    )  # fmt: skip
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8)
    bar.set_label(label, fontsize=8.5, parse_math=False)
    return painted


def _foot(
    ax: Axes,
    labels: NDArray[np.int64],
    named: int,
    m: int,
    eval_coordinates: ArrayLike | None,
    selected: ArrayLike | None,
) -> None:
    said = []
    if outside := int((labels < 0).sum()):
        said.append(f"grey crosses: {outside:,} in no domain ({outside / len(labels):.1%})")
    if eval_coordinates is not None:
        said.append(f"diamonds: {len(np.asarray(eval_coordinates)):,} eval examples")
    if selected is not None and len(np.asarray(selected)):
        said.append(f"rings: {len(np.asarray(selected)):,} selected")
    if named < m:
        said.append(f"{named} of {m} domains named")
    if said:
        ax.text(0, -0.01, " · ".join(said), transform=ax.transAxes, ha="left", va="top",
                fontsize=8.5, color=MUTED)  # fmt: skip
