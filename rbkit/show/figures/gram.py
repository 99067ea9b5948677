"""The Gram matrix of domain gradients, as a heat map: who helps whom, who is in conflict.

Colours are diverging and centred at 0: red pairs of domains push the tracked layer in
the same direction, blue pairs in opposite ones. The scale does not change over time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from rbkit.show import gram_layout
from rbkit.show.facts import Array
from rbkit.show.gram_layout import (
    Kind,
    common_scale,
    domain_order,
    extremes,
    seriate,
    short_ids,
    to_cosine,
)
from rbkit.show.style import colour_bar, new_axes, plain_ticks, rbkit_style, set_alt, shorten

_MOST_LINES = 60  # domains between which lines are drawn
_LETTER = 0.07  # inches of a letter of a name
_WIDE = 10.4  # inches: of wider figures a page shows the names too small to read
_LEAST_SIZE = 6.5  # points of a name


def gram(
    G: ArrayLike,
    names: Sequence[str],
    ax: Axes | None = None,
    vmax: float | None = None,
    *,
    order: Sequence[int] | NDArray[np.int64] | None = None,
    colorbar: bool = True,
    title: str = "Gram matrix of domain gradients",
) -> Axes:
    """Heat map of a Gram matrix (or of its cosines), diverging and centred at 0.

    Parameters
    ----------
    G : array_like of shape (m, m)
        Rows of NaN (domains without an example in the round) are hatched in grey.
    names : sequence of m str
    ax : matplotlib Axes, optional
    vmax : float, optional
        The scale goes from -vmax to vmax; from the data if not given.
    order : sequence of m int, optional
        Order of rows and columns; by similarity if not given.
    colorbar : bool
    title : str

    Returns
    -------
    matplotlib Axes
    """
    G = np.asarray(G, dtype=np.float64)
    m = len(G)
    with rbkit_style():
        # As wide as names, matrix (or the title above it) and scale are together.
        width = _LETTER * max((len(shorten(name, 30)) for name in names), default=0)
        side = max(0.24 * m, 2.6)
        ax = new_axes(ax, width + side + 1.2, 1.3 + side, square=True)
        order = seriate(to_cosine(G)) if order is None else np.asarray(order)
        image = _cells(ax, G[np.ix_(order, order)], common_scale(G) if vmax is None else vmax)
        if m <= _MOST_LINES:
            ids = short_ids([names[i] for i in order])
            upright = m <= 16 and max(map(len, ids)) < 4
            plain_ticks(ax.xaxis, ids, rotation=0 if upright else 90)
            plain_ticks(ax.yaxis, [shorten(names[i], 30) for i in order])
        else:
            ax.set(xticks=[], yticks=[], xlabel=f"{m:,} domains, similar ones side by side")
        ax.set_title(title)
        if colorbar:
            gram_colour_bar(image, [ax])
        set_alt(ax, f"{title}: {m} domains; {extremes(G, names)}.")
    return ax


def gram_over_time(
    history: Mapping[str, Any], names: Sequence[str], n_frames: int = 5, *, kind: Kind = "cosine"
) -> NDArray[Any]:
    """Gram matrices of rounds spread over the run, on one colour scale.

    Parameters
    ----------
    history : mapping with ``gram`` (T, m, m) and ``step`` (T,)
    names : sequence of m str
    n_frames : int
        Number of rounds to show.
    kind : {"cosine", "raw"}
        Cosines of the gradients, or inner products as the mixer saw them.

    Returns
    -------
    ndarray of matplotlib Axes, shape (number of frames,)
    """
    grams = gram_layout.values(history["gram"], kind)
    steps = np.asarray(history["step"])[-len(grams) :]
    rounds, m = len(grams), grams.shape[-1]
    frames = np.unique(np.linspace(0, rounds - 1, min(n_frames, rounds)).round().astype(int))
    with rbkit_style():
        labels = _LETTER * max(len(shorten(name, 26)) for name in names) + 0.9
        side = min(max(2.3, 0.115 * m), (_WIDE - labels) / len(frames))
        size = (side * len(frames) + labels, side + 0.75)
        figure = Figure(figsize=size, layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(frames)))
        order, scale = domain_order(history), common_scale(grams)
        gram_frames(axes, grams[frames], steps[frames], names, order, scale, kind=kind, side=side)
    return axes


def gram_frames(
    axes: NDArray[Any],
    grams: Array,
    steps: Sequence[float] | NDArray[Any],
    names: Sequence[str],
    order: Sequence[int] | NDArray[np.int64],
    vmax: float,
    *,
    kind: Kind = "cosine",
    side: float = 2.3,
) -> None:
    """Draw matrices (n, m, m) on a row of n axes, `side` inches high; names next to the first.

    Where they would be too small to read, every second, third, ... row is named.
    """
    m, order = len(names), np.asarray(order, dtype=np.int64)
    every = int(np.ceil(_LEAST_SIZE / (72 * side / m * 0.95)))
    size = min(8.5, 72 * side / m * 0.95 * every)
    named = np.arange(m) % every == every // 2
    shown = [shorten(names[i], 26) if name else "" for i, name in zip(order, named, strict=True)]
    if every > 1:
        remark = f"{named.sum()} of {m:,} domains named"
        axes[0].set_xlabel(remark, fontsize=8, loc="left")
    for k, (G, step, ax) in enumerate(zip(grams, steps, axes, strict=True)):
        image = _cells(ax, G[np.ix_(order, order)], vmax)
        ax.set_title(f"step {int(step):,}", fontsize=10)
        plain_ticks(ax.yaxis, shown if k == 0 else [""] * len(shown), fontsize=size)
        plain_ticks(ax.xaxis, [""] * len(shown))
        set_alt(ax, f"Step {int(step)}: {extremes(G, names)}.")
    gram_colour_bar(image, list(axes), "cosine" if kind == "cosine" else "inner product")


def gram_colour_bar(image: Any, axes: list[Axes], label: str = "") -> None:
    """Explain the colours of a Gram matrix, or of several on one scale."""
    colour_bar(image, axes, label, ticks=MaxNLocator(5, symmetric=True), extend="both")


def _cells(ax: Axes, G: Array, vmax: float) -> Any:
    m = len(G)
    ax.add_patch(
        Rectangle((-0.5, -0.5), m, m, fc="#eceff2", ec="#b4bcc5", hatch="////", lw=0, zorder=0)
    )
    colours = matplotlib.colormaps["RdBu_r"]
    image = ax.imshow(np.ma.masked_invalid(G), cmap=colours, vmin=-vmax, vmax=vmax, zorder=1)
    ax.grid(False)
    if m <= _MOST_LINES:  # of more, the lines would hide the cells
        ax.set_xticks(np.arange(-0.5, m), minor=True)
        ax.set_yticks(np.arange(-0.5, m), minor=True)
        ax.grid(True, which="minor", color="white", linewidth=0.8 if m <= 20 else 0.4)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    if m > _MOST_LINES:  # one line for all of the diagonal: a thousand squares take seconds
        ax.plot([-0.5, m - 0.5], [-0.5, m - 0.5], color="#3b4652", lw=0.7, zorder=2)
        return image
    for i in range(m):  # the diagonal is a squared norm: another quantity than its neighbours
        if np.isfinite(G[i, i]):
            ax.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, ec="#3b4652", lw=0.7))
    return image
