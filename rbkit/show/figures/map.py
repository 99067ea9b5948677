"""Maps of a corpus: by domain, by a number per example, or by how a run's gradients agree."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray

from rbkit.errors import InputError
from rbkit.show.facts import Array, domain_names, target
from rbkit.show.gram_layout import to_cosine
from rbkit.show.style import (
    INK,
    MUTED,
    PAPER,
    Box,
    colour_bar,
    domain_colours,
    has_room,
    new_axes,
    rbkit_style,
    set_alt,
    shorten,
    without_glyph_warnings,
)
from rbkit.text import number
from rbkit.train.run import Run

Colour = tuple[float, float, float]

# ----------------------------------------------------------------------------- names and colours

_HUES, _LIGHTNESS = 10, (0.68, 0.48, 0.80, 0.58)


def medians(coordinates: ArrayLike, labels: ArrayLike, m: int) -> Array:
    """Return where to write each domain's name: its median point, (m, 2), NaN where it is empty.

    A domain in several pieces is named on the densest of them, not between them.

    Examples
    --------
    >>> medians([[0, 0], [1, 1], [2, 5], [7, 7]], [0, 0, 0, -1], 2).tolist()
    [[1.0, 1.0], [nan, nan]]
    """
    xy, labels = np.asarray(coordinates, dtype=np.float64), np.asarray(labels)
    places = np.full((m, 2), np.nan)
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
        places[i] = middle
    return places


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
    contrast = np.minimum(turn, 1 - turn) * 2 + np.abs(light[:, None] - light[None, :]) / 0.32
    scale = np.maximum(np.ptp(xy, axis=0).max(initial=0.0), 1e-12)
    gaps = np.linalg.norm(xy[:, None] - xy[None, :], axis=2) / scale
    chosen: list[int] = []
    used = np.zeros(len(hue))
    for i in range(m):
        weight = 1 / (gaps[i, : len(chosen)] + 0.03)  # near domains must differ most
        clash = (weight[:, None] / (contrast[chosen] + 0.08)).sum(axis=0)
        pick = int(np.argmin(clash + 40.0 * used))
        chosen.append(pick)
        used[pick] += 1
    return [swatches[pick] for pick in chosen]


_FEW = 15  # domains up to which a name may stand far off, on a line: of many, another is named
_SIDES = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))


def write_names(
    ax: Axes, places: Array, names: Sequence[str], weight: NDArray[Any], most: int
) -> list[int]:
    """Write names at `places`, the heaviest first, moved aside where they would collide.

    The limits of `ax` must be set, and points not be drawn yet: it lays out the figure to
    measure. A name that finds no room near its place is left out; the others are returned.
    """
    figure = ax.get_figure(root=True)
    if figure is None:
        return []
    with without_glyph_warnings():
        figure.draw_without_rendering()
    scale = figure.dpi / 72
    taken: list[Box] = []
    named: list[int] = []
    type_: dict[str, Any] = {
        "fontsize": 8.5,
        "fontweight": "bold",
        "color": INK,
        "linespacing": 1.0,
    }
    halo = [withStroke(linewidth=2.6, foreground=PAPER, alpha=0.9)]
    for i in np.argsort(-weight.astype(np.float64), kind="stable").tolist():
        if len(named) >= most:
            break
        if not np.isfinite(places[i]).all() or not names[i].strip():
            continue
        place: dict[str, Any] = {"textcoords": "offset points", "annotation_clip": False}
        middle: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 6}
        text = ax.annotate(
            wrapped(names[i]),
            tuple(places[i]),
            (0, 0),
            path_effects=halo,
            **middle,
            **type_,
            **place,
        )
        with without_glyph_warnings():
            box = text.get_window_extent()
        x, y = ax.transData.transform(places[i])
        width, height = box.width + 6 * scale, box.height + 4 * scale
        for dx, dy in _offsets(width, height, far=len(names) <= _FEW):
            left, bottom = x + dx - width / 2, y + dy - height / 2
            spot = (left, bottom, left + width, bottom + height)
            if not has_room(spot, ax, taken):
                continue
            by = (dx / scale, dy / scale)
            text.set_position(by)
            taken.append(spot)
            named.append(i)
            if np.hypot(dx, dy) > 0.9 * height:
                line = {"arrowstyle": "-", "color": MUTED, "lw": 0.7, "shrinkA": 0, "shrinkB": 0}
                ax.annotate("", tuple(places[i]), by, arrowprops=line, zorder=5, **place)
            break
        else:
            text.remove()
    return named


def _offsets(width: float, height: float, far: bool) -> Iterator[tuple[float, float]]:
    """Pixels by which a name may be moved from its place, nearest first."""
    for ring in (1.0, 2.0) if far else (1.0,):
        for dx, dy in _SIDES[0 if ring == 1 else 1 :]:
            yield dx * width * 0.55 * ring, dy * height * ring


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


# -------------------------------------------------------------------------------------- the map

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

    A map shows which examples are neighbours. Distances between far groups, the sizes of groups
    and the empty space between them mean little: see ``notebooks/02_regroup``.

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
        Those of :func:`~rbkit.show.domain_colours`, as in all pictures of these domains, if not
        given; :func:`map_colours` makes some that differ most where domains are near.
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
    xy, domain, numbers = _checked(coordinates, labels, names, values)
    m = len(names)
    sizes = np.bincount(domain[domain >= 0], minlength=m)
    fresh = np.empty((0, 2))
    if eval_coordinates is not None:
        fresh = np.asarray(eval_coordinates, dtype=np.float64)
    ringed = np.asarray([] if selected is None else selected, dtype=np.int64)
    with rbkit_style():
        # Wider than high by the colour bar, so that the map itself is nearly square.
        ax = new_axes(ax, 6.8 if numbers is None else 7.6, 6.2)
        places = medians(xy, domain, m)
        _frame(ax, np.concatenate([xy, fresh]))
        examples = f"{len(domain):,} examples in {m} domains"
        by = value_label or "value"
        usual = f"Map of {examples}" if numbers is None else f"Map by {by}"
        ax.set_title(title or usual, parse_math=False)
        if numbers is not None:
            point_colours = _continuous(ax, numbers, value_label, centre, vmax)
        else:
            palette = list(colours) if colours is not None else domain_colours(m)
            rgba = np.array([matplotlib.colors.to_rgba(c) for c in palette]).reshape(-1, 4)
            point_colours = rgba[domain.clip(0)] if m else np.zeros((len(domain), 4))
        named = write_names(ax, places, names, sizes, most_names)
        _points(ax, xy, domain, point_colours)
        _rings(ax, fresh, "D", 16 if len(fresh) < 2000 else 6)
        _rings(ax, xy[ringed], "o", 14)
        outside, remarks = int((domain < 0).sum()), []
        if outside:
            share = f"{outside / len(domain):.1%}"
            remarks.append(f"grey crosses: {outside:,} in no domain ({share})")
        if eval_coordinates is not None:
            remarks.append(f"diamonds: {len(fresh):,} eval examples")
        if len(ringed):
            remarks.append(f"rings: {len(ringed):,} selected")
        if len(named) < m:
            remarks.append(f"{len(named)} of {m} domains named")
        if remarks:
            foot: dict[str, Any] = {"transform": ax.transAxes, "fontsize": 8.5, "color": MUTED}
            ax.text(0, -0.01, " · ".join(remarks), ha="left", va="top", **foot)
        big = [shorten(names[i], 40) for i in np.argsort(-sizes, kind="stable")[:3] if sizes[i]]
        coloured = "" if numbers is None else f", coloured by {by}"
        if outside:
            coloured += f"; {share} in no domain"
        set_alt(ax, f"Map of {examples}{coloured}; largest: {', '.join(big) or 'none'}.")
    return ax


def _checked(
    coordinates: ArrayLike, labels: ArrayLike, names: Sequence[str], values: ArrayLike | None
) -> tuple[Array, NDArray[np.int64], Array | None]:
    xy, domain = np.asarray(coordinates, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise InputError("coordinates", f"shape {xy.shape}", "give two numbers per example")
    numbers = None if values is None else np.asarray(values, dtype=np.float64)
    for name, column in (("labels", domain), ("values", numbers)):
        if column is not None and column.shape != (len(xy),):
            what = f"shape {column.shape} for {len(xy)} points"
            raise InputError(name, what, "give one per example")
    if len(domain) and not -1 <= domain.min() <= domain.max() < len(names):
        what = f"from {domain.min()} to {domain.max()} for {len(names)} names"
        raise InputError("labels", what, f"use -1 to {len(names) - 1}")
    return xy, domain, numbers


def _frame(ax: Axes, points: Array) -> None:
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
    # In an order that is the same each time, in which no domain covers all others.
    order = np.random.default_rng(0).permutation(len(xy))
    inside, outside = order[labels[order] >= 0], order[labels[order] < 0]
    if len(outside):
        cross: dict[str, Any] = {"c": _NOISE, "marker": "x", "linewidths": 0.5, "alpha": 0.55}
        ax.scatter(
            xy[outside, 0], xy[outside, 1], s=max(size, 2.0), zorder=1, rasterized=True, **cross
        )
    dot: dict[str, Any] = {"marker": "o", "linewidths": 0, "rasterized": True}
    dot["alpha"] = 0.85 if n < 20_000 else 0.6
    ax.scatter(xy[inside, 0], xy[inside, 1], s=size, c=colours[inside], zorder=2, **dot)


def _rings(ax: Axes, xy: Array, marker: str, size: float) -> None:
    if len(xy):
        ring: dict[str, Any] = {"facecolors": "none", "edgecolors": INK, "linewidths": 0.6}
        ax.scatter(xy[:, 0], xy[:, 1], s=size, marker=marker, zorder=4, rasterized=True, **ring)


def _continuous(
    ax: Axes, values: Array, label: str, centre: float | None, vmax: float | None
) -> Array:
    """Colours of `values`, and the colour bar that explains them."""
    known = values[np.isfinite(values)]
    low, high = np.percentile(known, [2, 98]) if len(known) else (0.0, 1.0)
    if centre is not None:
        half = vmax if vmax is not None else float(np.abs(known - centre).max(initial=1e-9))
        low, high = centre - half, centre + half
    elif vmax is not None:
        high = vmax
    high = high if high > low else low + 1.0
    scale = Normalize(float(low), float(high), clip=True)
    colours = matplotlib.colormaps["RdBu_r" if centre is not None else "viridis"]
    painted: Array = np.asarray(colours(scale(np.nan_to_num(values))), dtype=np.float64)
    painted[~np.isfinite(values)] = matplotlib.colors.to_rgba(_UNKNOWN)
    beyond = bool(len(known) and known.min() < low), bool(len(known) and known.max() > high)
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}
    bar: dict[str, Any] = {"shrink": 0.6, "aspect": 24, "extend": extend.get(beyond, "neither")}
    colour_bar(ScalarMappable(scale, colours), ax, label, **bar)
    return painted


# ------------------------------------------------------------------------------ Gram on the map


def gram_on_map(
    run: Run,
    coordinates: ArrayLike,
    labels: ArrayLike,
    ax: Axes | None = None,
    *,
    round: int = -1,
    focus: int | str | None = None,
    title: str | None = None,
) -> Axes:
    """Colour the map by the gradients of a run: which domains pull towards the target.

    Every example has the colour of its domain: the cosine between the domain's gradient and
    the target direction (the q-weighted sum of domain gradients; R&B's scores Gq are these
    inner products), or between it and the gradient of one domain.

    Parameters
    ----------
    run : Run
        With a recorded Gram matrix.
    coordinates, labels
        As in :func:`domain_map`, of the domains of the run.
    ax : matplotlib Axes, optional
    round : int
        Which round, from 0, or from the end if negative.
    focus : int or str, optional
        The domain, or its name, to compare with instead of the target.
    title : str, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    InputError
        A run without Gram matrices, no such round, or no such domain.
    """
    cosine, names, step = alignment(run, round, focus)
    labels = np.asarray(labels)
    values = np.append(cosine, np.nan)[np.where(labels < 0, len(cosine), labels)]
    others, against = cosine, "the target"
    if focus is not None:
        i = _index(names, focus)
        others, against = np.delete(cosine, i), shorten(names[i], 24)
    others = others[np.isfinite(others)]
    shown = [
        f"{shorten(name, 24)} {'+' if c > 0 else ''}{number(c, 2)}"
        for name, c in zip(names, cosine, strict=True)
    ]
    ax = domain_map(
        coordinates,
        labels,
        shown,
        ax,
        values=values,
        centre=0.0,
        value_label=f"cosine with {against}",
        # A scale that ends at the strongest of them would paint noise in full colour.
        vmax=max(0.1, float(np.abs(others).max(initial=0.0))),
        title=title or f"Gradients against {against}, step {step}",
    )
    if len(others):
        low, high = int(np.nanargmin(cosine)), int(np.nanargmax(cosine))
        set_alt(
            ax,
            f"Map coloured by the cosine of each domain's gradient with {against} at step "
            f"{step}: from {names[low]} {number(cosine[low], 2)} to {names[high]} "
            f"{number(cosine[high], 2)}.",
        )
    return ax


def alignment(
    run: Run, round: int = -1, focus: int | str | None = None
) -> tuple[Array, list[str], int]:
    """Return the cosine of each domain's gradient with the target direction or another domain.

    The cosines (m,) are NaN for domains that the round did not see; with them come the names of
    the domains and the step at which the round ended.
    """
    grams = np.asarray(run.history.get("gram", np.empty((0, 0, 0))), dtype=np.float64)
    if not len(grams):
        what = "holds no Gram matrix"
        raise InputError(str(run.path), what, "train with a mixer that tracks gradients, as RnB")
    if not -len(grams) <= round < len(grams):
        raise InputError("round", f"{round} of {len(grams)} rounds", f"use 0 to {len(grams) - 1}")
    G = grams[round]
    m = len(G)
    names = domain_names(run, m)
    steps = run.history.get("step")
    step = int(steps[round]) if steps is not None else round % len(grams)
    if focus is not None:
        return to_cosine(G)[_index(names, focus)], names, step
    seen = np.isfinite(np.diagonal(G)) & (np.diagonal(G) > 0)
    q = target(run)
    q = np.full(m, 1 / m) if q is None or len(q) != m else q
    q = np.where(seen, q, 0.0)
    known = np.nan_to_num(G)
    length = np.sqrt(max(float(q @ known @ q), 0.0)) * np.sqrt(np.clip(np.diagonal(known), 0, None))
    cosine: Array = np.divide(known @ q, length, out=np.full(m, np.nan), where=seen & (length > 0))
    return np.clip(cosine, -1, 1), names, step


def _index(names: Sequence[str], focus: int | str) -> int:
    if isinstance(focus, str):
        if focus not in names:
            raise InputError("focus", f"no domain {focus!r}", f"use one of {', '.join(names[:5])}")
        return list(names).index(focus)
    if not 0 <= focus < len(names):
        raise InputError("focus", f"{focus} of {len(names)} domains", f"use 0 to {len(names) - 1}")
    return int(focus)
