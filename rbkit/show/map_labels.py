"""Colours and names of the domains on a map: neighbours differ, names do not collide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray

from rbkit.show.display import without_glyph_warnings
from rbkit.show.facts import Array
from rbkit.show.style import INK, MUTED, PAPER, shorten

Colour = tuple[float, float, float]

_HUES, _LIGHTNESS = 10, (0.68, 0.48, 0.80, 0.58)
_FEW = 15  # domains up to which a name may stand far off, on a line: of many, another is named
_SIDES = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))


def medians(coordinates: ArrayLike, labels: ArrayLike, m: int) -> Array:
    """Return where to write each domain's name: its median point, (m, 2), NaN where it is empty.

    A domain in several pieces is named on the densest of them, not between them.

    Examples
    --------
    >>> medians([[0, 0], [1, 1], [2, 5], [7, 7]], [0, 0, 0, -1], 2).tolist()
    [[1.0, 1.0], [nan, nan]]
    """
    xy, labels = np.asarray(coordinates, dtype=np.float64), np.asarray(labels)
    found = np.full((m, 2), np.nan)
    scale = np.maximum(np.ptp(xy, axis=0), 1e-12) if len(xy) else 1.0
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(m + 1))
    for i in range(m):
        points = xy[order[ends[i] : ends[i + 1]]]
        points = points[np.isfinite(points).all(axis=1)]
        if not len(points):
            continue
        middle = np.median(points, axis=0)
        near = np.abs((points - middle) / scale).max(axis=1) < 0.04
        if len(points) >= 20 and near.mean() < 0.05:
            cells = np.floor(points / scale / 0.08).astype(np.int64)
            _, which, sizes = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
            middle = np.median(points[which.ravel() == np.argmax(sizes)], axis=0)
        found[i] = middle
    return found


def map_colours(places: ArrayLike) -> list[Colour]:
    """Give domains at `places` (m, 2) colours such that those near each other differ most.

    Lightness counts as much as hue, for people who do not see hues. The same places get the
    same colours; far apart, a colour may come twice.

    Examples
    --------
    >>> colours = map_colours([[0, 0], [0, 1], [5, 5]])
    >>> len(set(colours))
    3
    """
    import seaborn

    xy = np.nan_to_num(np.asarray(places, dtype=np.float64))
    m = len(xy)
    hue = np.tile(np.arange(_HUES) / _HUES, len(_LIGHTNESS))
    light = np.repeat(_LIGHTNESS, _HUES)
    hue = (hue + np.repeat(np.arange(len(_LIGHTNESS)), _HUES) * 0.25 / _HUES) % 1
    swatches = [
        tuple(seaborn.husl_palette(1, h=h, s=0.72, l=lightness)[0])
        for h, lightness in zip(hue, light, strict=True)
    ]
    turn = np.abs(hue[:, None] - hue[None, :])
    apart = np.minimum(turn, 1 - turn) * 2 + np.abs(light[:, None] - light[None, :]) / 0.32
    scale = np.maximum(np.ptp(xy, axis=0).max(initial=0.0), 1e-12)
    gaps = np.linalg.norm(xy[:, None] - xy[None, :], axis=2) / scale
    chosen: list[int] = []
    used = np.zeros(len(hue))
    for i in range(m):
        if not chosen:
            pick = 0
        else:
            weight = 1 / (gaps[i, : len(chosen)] + 0.03)  # near domains must differ most
            clash = (weight[:, None] / (apart[chosen] + 0.08)).sum(axis=0)
            pick = int(np.argmin(clash + 40.0 * used))
        chosen.append(pick)
        used[pick] += 1
    return [swatches[pick] for pick in chosen]


def write_names(
    ax: Axes,
    places: ArrayLike,
    names: Sequence[str],
    weight: ArrayLike,
    *,
    most: int = 25,
    size: float = 8.5,
) -> list[int]:
    """Write names at `places`, the heaviest first, moved aside where they would collide.

    Call it when the limits of `ax` are set and before points are drawn: it lays out the figure
    to measure. A name that finds no room beside its place is left out.

    Returns
    -------
    list of int
        The domains that were named.
    """
    figure = ax.get_figure(root=True)
    if figure is None:
        return []
    with without_glyph_warnings():
        figure.draw_without_rendering()
    xy = np.asarray(places, dtype=np.float64)
    frame = ax.get_window_extent()
    scale = figure.dpi / 72
    taken: list[tuple[float, float, float, float]] = []
    named: list[int] = []
    for i in np.argsort(-np.asarray(weight, dtype=np.float64), kind="stable").tolist():
        if len(named) >= most:
            break
        if not np.isfinite(xy[i]).all() or not names[i].strip():
            continue
        text = ax.annotate(
            wrapped(names[i]), tuple(xy[i]), xytext=(0, 0), textcoords="offset points",
            ha="center", va="center", fontsize=size, fontweight="bold", color=INK, zorder=6,
            linespacing=1.0, parse_math=False, annotation_clip=False,
            path_effects=[withStroke(linewidth=2.6, foreground=PAPER, alpha=0.9)],
        )  # fmt: skip
        with without_glyph_warnings():
            box = text.get_window_extent()
        x, y = ax.transData.transform(xy[i])
        width, height = box.width + 6 * scale, box.height + 4 * scale
        for dx, dy in _offsets(width, height, far=len(names) <= _FEW):
            at = (x + dx, y + dy)
            spot = (at[0] - width / 2, at[1] - height / 2, at[0] + width / 2, at[1] + height / 2)
            inside = (frame.x0 <= spot[0] and spot[2] <= frame.x1
                      and frame.y0 <= spot[1] and spot[3] <= frame.y1)  # fmt: skip
            if inside and not any(_overlap(spot, other) for other in taken):
                text.set_position((dx / scale, dy / scale))
                taken.append(spot)
                named.append(i)
                if np.hypot(dx, dy) > 0.9 * height:
                    ax.annotate(
                        "", tuple(xy[i]), xytext=(dx / scale, dy / scale),
                        textcoords="offset points", annotation_clip=False, zorder=5,
                        arrowprops={"arrowstyle": "-", "color": MUTED, "lw": 0.7, "shrinkA": 0,
                                    "shrinkB": 0},
                    )  # fmt: skip
                break
        else:
            text.remove()
    return named


def wrapped(name: str, width: int = 18) -> str:
    """Break a name into at most two lines, between its terms where it has some.

    Examples
    --------
    >>> wrapped("species · genus · bird").splitlines()
    ['species · genus', 'bird']
    """
    name = " ".join(name.split())
    if len(name) <= width:
        return name
    terms = name.split(" · ")
    for at in range(len(terms) - 1, 0, -1):
        if len(first := " · ".join(terms[:at])) <= width:
            return first + "\n" + shorten(" · ".join(terms[at:]), width)
    lines = textwrap.wrap(name, width, break_long_words=True)
    return lines[0] + "\n" + shorten(" ".join(lines[1:]), width)


def _offsets(width: float, height: float, far: bool) -> Iterator[tuple[float, float]]:
    """Pixels by which a name may be moved from its place, nearest first."""
    for ring in (1.0, 2.0) if far else (1.0,):
        for dx, dy in _SIDES[0 if ring == 1 else 1 :]:
            yield dx * width * 0.55 * ring, dy * height * ring


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def shuffled(n: int) -> NDArray[np.int64]:
    """Return an order to draw points in, the same each time: no domain covers all others."""
    return np.random.default_rng(0).permutation(n)
