"""One frame of the live view: a picture of a run in training, and its alternative text.

The picture is hand-written SVG, drawn in some 5 ms, inside ``<img src="data:...">``: inline SVG
is stripped from notebooks that are not trusted, and widgets are blank there and in exported
pages.
"""

from __future__ import annotations

import base64
import functools
import struct
import zlib
from collections.abc import Iterable, Sequence
from html import escape

import matplotlib
import numpy as np
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from rbkit.show.facts import Array, smooth
from rbkit.show.gram_layout import Kind, Order, blocks, extremes, short_ids, values
from rbkit.show.live.snapshot import Scale, Series, Snapshot, noise_text, rate_name, rate_text
from rbkit.show.style import (
    INK,
    MUTED,
    PAPER,
    RULE,
    domain_colours,
    picture_html,
    readable,
    shorten,
    spread,
)
from rbkit.text import duration, number, one_line, percent

WIDTH, HEIGHT = 1040, 520
FONT = "system-ui,-apple-system,'Segoe UI','Helvetica Neue',Arial,'Liberation Sans',sans-serif"
_SMALL = 10.5  # size of the text at an axis
_EMPTY = "#f4f6f8"  # what is still to come
STATUS = {
    "running": "#0072B2",
    "ok": "#00835F",
    "failed": "#B3403A",
    "killed": "#B3403A",
    "interrupted": "#96562A",
    "waiting": MUTED,
}


def frame_html(
    snap: Snapshot, kind: Kind = "cosine", scale: float | None = None, hint: str = ""
) -> str:
    """Write a frame as the output of a cell: the picture, its alternative text, and a hint."""
    image = base64.b64encode(frame_svg(snap, kind, scale).encode("utf-8")).decode("ascii")
    # Width and height reserve the place of the picture while the next one is decoded: no flicker.
    return (
        f"{picture_html(f'data:image/svg+xml;base64,{image}', alt(snap, kind), WIDTH, HEIGHT)}"
        f'<div style="font-size:12px;min-height:18px">{escape(hint)}</div>'
    )


def frame_svg(snap: Snapshot, kind: Kind = "cosine", scale: float | None = None) -> str:
    """Draw a run as it is now, as an SVG document.

    Colours go from -`scale` to `scale`; without it, by this one matrix.
    """
    if scale is None:
        scale = Scale(kind).include([] if snap.gram is None else [snap.gram])
    body = [*_head(snap), *_numbers(snap)]
    if snap.tracks:
        body += _gram(snap, kind, scale, 182, 92, 316)
        body += [*_mixture(snap, 560, 78, 270, 142), *_curves(snap, 560, 276, 270, 146)]
    else:  # a rule without gradients: no empty square, the curves take its place
        body += [*_mixture(snap, 62, 92, 280, 322), *_curves(snap, 600, 92, 250, 322)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="{FONT}">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>{"".join(body)}</svg>'
    )


def alt(snap: Snapshot, kind: Kind = "cosine") -> str:
    """Describe in words what a frame shows."""
    parts = [f"{snap.name}, {snap.status}, step {snap.step:,} of {snap.steps or '?'}"]
    for what, series in (("training loss", snap.train), ("eval loss", snap.evaluation)):
        if len(series.values):
            parts.append(f"{what} {number(series.last)}")
    parts += [f"{name} {number(curve.last)}" for name, curve in snap.metrics_drawn.items()]
    if snap.worst_name is not None:
        parts.append(f"highest in {snap.worst_name} {number(snap.worst.last)}")
    if len(snap.p):
        top = np.argsort(snap.p[-1])[::-1][:3]
        shares = ", ".join(f"{snap.names[i]} {snap.p[-1][i]:.0%}" for i in top)
        parts.append(f"largest domains {shares}")
        parts.append(f"{number(snap.effective, 1)} effective domains")
    if snap.gram is not None:
        what = "cosines" if kind == "cosine" else "inner products"
        pairs = extremes(values(snap.gram, kind), snap.names)
        parts.append(f"{what} of domain gradients: {pairs}")
    if snap.error:
        parts.append(snap.error)
    return "; ".join(parts) + "."


# ------------------------------------------------------------------------------ pieces of SVG


def text(
    x: float,
    y: float,
    content: str,
    *,
    size: float = 12,
    anchor: str = "start",
    colour: str = INK,
    bold: bool = False,
    width: int | None = None,
    note: str = "",
) -> str:
    """Text at a point, escaped; `width` characters of it at most; `note` small behind it.

    Examples
    --------
    >>> text(1, 2, "<b> & co", width=5)
    '<text x="1" y="2" font-size="12" fill="#1f2933">&lt;b&gt;…</text>'
    """
    # A character that XML 1.0 cannot hold would make the whole picture vanish.
    content = one_line(content if width is None else shorten(content, width))
    attributes = "" if anchor == "start" else f' text-anchor="{anchor}"'
    attributes += ' font-weight="600"' if bold else ""
    small = f'<tspan font-size="11.5" font-weight="400" dx="5">{escape(note)}</tspan>'
    return (
        f'<text x="{_n(x)}" y="{_n(y)}" font-size="{size:g}" fill="{colour}"{attributes}>'
        f"{escape(content)}{small if note else ''}</text>"
    )


def rect(x: float, y: float, width: float, height: float, fill: str, **more: str | float) -> str:
    """Write a rectangle; ``_`` in the names of further attributes stands for ``-``."""
    rest = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
    return (
        f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" '
        f'fill="{fill}"{rest}/>'
    )


def path(d: str, stroke: str, width: float = 1.5, fill: str = "none", more: str = "") -> str:
    """Write a path; it has no stroke if its width is 0."""
    line = f' stroke="{stroke}" stroke-width="{width:g}"' if width else ""
    return f'<path d="{d}" fill="{fill}"{line}{more}/>'


def polyline(x: Array, y: Array) -> str:
    """Path data through points; points that are not finite interrupt it.

    Examples
    --------
    >>> polyline(np.array([0.0, 1, 2, 3]), np.array([5.0, 6, np.nan, 7]))
    'M0 5L1 6M3 7'
    """
    parts, command = [], "M"
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        finite = np.isfinite(b)
        if finite:
            parts.append(f"{command}{_n(a)} {_n(b)}")
        command = "L" if finite else "M"
    return "".join(parts)


def image(
    box: tuple[float, float, float, float],
    indices: NDArray[np.uint8],
    palette: Sequence[str],
    more: str = 'preserveAspectRatio="none"',
) -> str:
    """Place a PNG in a box (x, y, width, height): colours by number, 255 is transparent."""
    height, width = indices.shape
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = np.frombuffer(
        bytes.fromhex("".join(palette).replace("#", "")), np.uint8
    ).reshape(-1, 3)
    alpha = np.full(256, 255, np.uint8)
    alpha[255] = 0
    raw = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter: none
    raw[:, 1:] = indices
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", colours.tobytes()),
        (b"tRNS", alpha.tobytes()),
        (b"IDAT", zlib.compress(raw.tobytes(), 6)),
        (b"IEND", b""),
    ]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    href = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
    x, y, wide, high = (f"{length:g}" for length in box)
    return f'<image x="{x}" y="{y}" width="{wide}" height="{high}" href="{href}" {more}/>'


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers from `low` to `high`.

    Examples
    --------
    >>> ticks(0, 310)
    [0.0, 100.0, 200.0, 300.0]
    """
    if not high > low:
        return [low]
    raw = (high - low) / count
    step = 10 ** np.floor(np.log10(raw))
    step *= min((f for f in (1, 2, 5, 10) if f * step >= raw * 0.999), default=10)
    first = np.ceil(low / step - 1e-9)
    return [float(step * i) + 0.0 for i in np.arange(first, np.floor(high / step + 1e-9) + 1)]


def short_number(value: float) -> str:
    """Write a number of a tick.

    Examples
    --------
    >>> short_number(0.30000000000000004), short_number(25000), short_number(1.5e6)
    ('0.3', '25k', '1.5M')
    """
    for size, unit in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):g}{unit}"
    return f"{value:.4g}".replace("-", "−")


def _step_axis(end: float, x: float, y: float, width: float) -> Iterable[str]:
    for step in ticks(0, end):
        at = x + width * step / end
        yield text(at, y, short_number(step), size=_SMALL, anchor="middle", colour=MUTED)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


# -------------------------------------------------------------------------------- Gram matrix

_MOST_NAMES = 24  # rows of names that can be read next to the matrix
_MOST_CELLS = 160  # a side: more would be smaller than two pixels
_HATCH = (
    '<pattern id="unseen" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="6" height="6" fill="#eceff2"/>'
    '<path d="M0 0V6" stroke="#b4bcc5" stroke-width="1.6"/></pattern>'
)


def _gram(snap: Snapshot, kind: Kind, scale: float, x: float, y: float, side: float) -> list[str]:
    """Draw the matrix in a square whose upper left corner is (x, y), names to its left."""
    what = f"{'cosines' if kind == 'cosine' else 'inner products'}, scale ±{short_number(scale)}"
    parts = [
        text(x - 160, y - 19, "Gram matrix of domain gradients", size=14, bold=True),
        text(x + side, y - 19, what, size=11.5, anchor="end", colour=MUTED),
        f"<defs>{_HATCH}</defs>",
        rect(x, y, side, side, "url(#unseen)"),
    ]
    middle = (x + side / 2, y + side / 2)
    if snap.gram is None:
        why = "after the first round" if snap.unfinished else "not tracked"
        parts.append(rect(middle[0] - 80, middle[1] - 17, 160, 26, "#ffffff", rx=4))
        parts.append(text(*middle, why, anchor="middle", colour=MUTED))
        return parts
    size = -(-snap.m // _MOST_CELLS)  # domains of a block
    groups = [snap.order[i : i + size] for i in range(0, snap.m, size)]
    cells = blocks(values(snap.gram, kind), groups)
    n, cell = len(cells), side / len(cells)
    # Enough pixels a cell that a viewer that smooths pictures leaves them square.
    pixels = np.kron(_shades(cells, scale), np.ones((max(1, round(320 / n)),) * 2, np.uint8))
    parts.append(image((x, y, side, side), pixels, _reds(), 'style="image-rendering:pixelated"'))
    if n <= 40:
        lines = "".join(
            f"M{x + i * cell:.1f} {y:g}v{side:g}M{x:g} {y + i * cell:.1f}h{side:g}"
            for i in range(1, n)
        )
        parts.append(path(lines, "#ffffff", 0.8))
    if n == snap.m:  # the diagonal is a squared norm: another quantity than its neighbours
        boxes = "".join(
            f"M{x + i * cell:.1f} {y + i * cell:.1f}h{cell:.1f}v{cell:.1f}h-{cell:.1f}z"
            for i in np.flatnonzero(np.isfinite(np.diagonal(cells)))
        )
        parts.append(path(boxes, "#3b4652", 0.8))
    return [*parts, *_gram_names(snap, x, y, side), *_colour_bar(scale, x, y + side + 14, side)]


def _gram_names(snap: Snapshot, x: float, y: float, side: float) -> list[str]:
    """Names of all rows, or of evenly spaced ones; short ones above, where they fit."""
    m, cell = snap.m, side / snap.m
    names = [snap.names[i] for i in snap.order]
    every = -(-m // _MOST_NAMES)
    size = float(np.clip(cell * 0.8, 8.5, 11.5))
    parts = []
    for i in range(every // 2, m, every):
        at = y + (i + 0.5) * cell + size * 0.35
        parts.append(text(x - 7, at, names[i], size=size, anchor="end", width=int(300 / size)))
    if every > 1:
        note = f"{len(parts)} of {m} domains named"
        parts.append(text(x - 7, y + side + 22, note, size=10, anchor="end", colour=MUTED))
    ids = short_ids(names)
    if max(map(len, ids)) * size * 0.62 < cell:
        parts += [
            text(x + (i + 0.5) * cell, y - 3, one, size=size, anchor="middle", colour=MUTED)
            for i, one in enumerate(ids)
        ]
    return parts


def _colour_bar(scale: float, x: float, y: float, side: float) -> list[str]:
    parts = [image((x, y, side, 9), np.arange(255, dtype=np.uint8)[None], _reds())]
    low, high = short_number(-scale), short_number(scale)
    ends = ((0, f"{low} conflict", "start"), (0.5, "0", "middle"), (1, f"agree {high}", "end"))
    for place, label, anchor in ends:
        parts.append(text(x + place * side, y + 22, label, size=_SMALL, anchor=anchor))
    return parts


def _shades(cells: Array, scale: float) -> NDArray[np.uint8]:
    """Colours by number: 127 is 0, 255 is transparent, for what was never seen."""
    place = np.clip(np.nan_to_num(cells) / scale, -1, 1)
    return np.where(np.isfinite(cells), np.round(127 + 127 * place), 255).astype(np.uint8)


@functools.cache
def _reds() -> list[str]:
    """RdBu_r in 255 steps: the middle one is 0."""
    return [to_hex(colour) for colour in matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, 255))]


# -------------------------------------------------------------------------------- proportions

_COLUMNS, _ROWS = 540, 284  # pixels of the stack: two for each that is shown
_MOST_LAYERS = 60  # domains, each a layer of its own


def _mixture(snap: Snapshot, x: float, y: float, width: float, height: float) -> list[str]:
    """Draw the stack at (x, y), q and names to its right."""
    parts = [
        text(x, y - 11, "Proportions by step", size=14, bold=True),
        rect(x, y, width, height, _EMPTY),
    ]
    if not len(snap.p):
        why = "after the first round" if not snap.rounds and snap.unfinished else "not known"
        parts.append(text(x + width / 2, y + height / 2 + 4, why, anchor="middle", colour=MUTED))
        return parts
    end = max(float(snap.edges[-1]), float(snap.steps) if snap.status == "running" else 1.0)
    layers = np.arange(snap.m, dtype=np.int64)
    if snap.m > _MOST_LAYERS:  # neighbours in the order are alike: draw them as one
        starts = np.linspace(0, snap.m, _MOST_LAYERS, endpoint=False).astype(int)
        layers = np.repeat(layers[:_MOST_LAYERS], np.diff(np.append(starts, snap.m)))
    n = int(layers[-1]) + 1
    order = snap.order[::-1]  # from the top down, as the rows of the matrix
    first = order[np.searchsorted(layers, np.arange(n))]
    colours = [_colours_of(snap.m)[i] for i in first]
    stack = _stack(snap.p[:, order], layers, n)
    parts.append(image((x, y, width, height), _stack_pixels(stack, snap.edges / end), colours))
    for share in (0.0, 0.5, 1.0):
        at = y + height * (1 - share) + 4
        parts.append(text(x - 6, at, f"{share:.0%}", size=_SMALL, anchor="end", colour=MUTED))
    parts += _step_axis(end, x, y + height + 14, width)
    shares = snap.p[-1][order]  # where the names go
    if snap.q is not None:
        shares = snap.q[order]
        edges = y + height * (1 - _stack(shares[None], layers, n)[0])
        for colour, low, top in zip(colours, edges, edges[1:], strict=False):
            bar = rect(
                x + width + 10, top, 20, low - top, colour, stroke="#ffffff", stroke_width=0.4
            )
            parts.append(bar)
        parts.append(text(x + width + 20, y - 5, "q", size=12.5, anchor="middle", bold=True))
    return [*parts, *_mixture_names(snap, order, shares, x + width + 36, y, height)]


def _stack(p: Array, layers: NDArray[np.int64], n: int) -> Array:
    """Lower edges of the layers of each round, and 1 at the end: (T, n + 1)."""
    summed = np.zeros((len(p), n))
    np.add.at(summed.T, layers, p.T)
    return np.concatenate([np.zeros((len(p), 1)), np.cumsum(summed, axis=1)], axis=1)


def _stack_pixels(stack: Array, edges: Array) -> NDArray[np.uint8]:
    """Layer by pixel: as large for hundreds of rounds and domains as for a few of each."""
    at = (np.arange(_COLUMNS) + 0.5) / _COLUMNS
    of_column = np.searchsorted(edges, at, side="right") - 1
    shown = np.unique(np.clip(of_column, 0, len(stack) - 1))
    height = 1 - (np.arange(_ROWS) + 0.5) / _ROWS
    layers = [np.searchsorted(stack[t, 1:-1], height, side="right") for t in shown]
    pixels = np.array(layers, np.uint8)[np.searchsorted(shown, of_column).clip(max=len(shown) - 1)]
    pixels[(of_column < 0) | (of_column >= len(stack))] = 255  # unknown, or still to come
    turned: NDArray[np.uint8] = pixels.T
    return turned


def _mixture_names(
    snap: Snapshot, order: Order, share: Array, x: float, y: float, height: float
) -> list[str]:
    """Names of the largest domains next to their layers, with the share each has now."""
    gap = 12.5
    now = snap.p[-1][order]
    room = max(1, int(height / gap))
    largest = sorted(np.argsort(np.maximum(share, now), kind="stable")[::-1][:room])[::-1]
    middles = 1 - (np.cumsum(share) - share / 2)
    wanted = [y + height * float(middles[i]) for i in largest]
    places = np.array(spread(wanted, gap))
    places += max(0.0, y + gap / 2 - places[0])
    places -= max(0.0, places[-1] - (y + height - gap / 2))
    parts = []
    for i, wish, place in zip(largest, wanted, places, strict=True):
        percentage = f"{now[i]:.0%}" if now[i] >= 0.005 else f"{now[i]:.1%}"
        at, name = place + 3.8, snap.names[order[i]]
        parts += [
            path(f"M{x - 5:g} {wish:.1f}L{x + 3:g} {place:.1f}", "#b4bcc5", 0.8),
            text(x + 30, at, percentage, size=_SMALL, anchor="end", colour=MUTED),
            text(x + 35, at, name, size=_SMALL, width=20),
        ]
    return parts


@functools.cache
def _colours_of(m: int) -> list[str]:
    return [to_hex(colour) for colour in domain_colours(m)]


# ------------------------------------------------------------------------------------- losses

_MOST_POINTS = 400
_TRAIN, _EVAL, _WORST = "#59636e", "#0072B2", "#D55E00"
_METRICS = ("#00835F", "#7B4EA3", "#96562A")


def _curves(snap: Snapshot, x: float, y: float, width: float, height: float) -> list[str]:
    """Draw the losses at (x, y), and below them the metrics, if there are any."""
    if not (drawn := snap.metrics_drawn):
        return _losses(snap, x, y, width, height)
    share, gap = 0.52, 26.0  # of the height, for the losses; between both, for a title
    above = share * (height - gap)
    below, top = height - gap - above, y + above + gap
    title = " and ".join(drawn) if len(drawn) < 3 else "Metrics"
    end, low, high = _scales(snap, list(drawn.values()))
    parts = [*_losses(snap, x, y, width, above, steps=False)]
    parts += [text(x, top - 7, shorten(title, 40), size=12.5, bold=True)]
    parts += [*_value_axis(low, high, x, top, width, below, 2)]
    parts += [*_step_axis(end, x, top + below + 15, width)]
    ends = []
    for (name, curve), colour in zip(drawn.items(), _METRICS, strict=False):
        known = _thinned(curve.finite())
        across = x + width * known.steps / end
        up = top + below * (high - known.values) / (high - low)
        parts.append(path(polyline(across, up), colour, 2))
        if len(known.values) <= 60:
            parts.append(_dots(across, up, colour))
        ends.append((float(up[-1]), f"{name} {number(curve.last)}", colour))
    return [*parts, *_end_names(ends, x + width + 8)]


def _scales(snap: Snapshot, series: Sequence[Series]) -> tuple[float, float, float]:
    """Return the last step of an axis, and the lowest and highest value with a margin."""
    curves = (snap.train, snap.evaluation, *series)
    last = [float(each.steps[-1]) for each in curves if len(each.steps)]
    seen = np.concatenate([each.finite().values for each in series])
    end = max(1.0, *last, float(snap.steps) if snap.status == "running" else 1.0)
    low, high = float(seen.min()), float(seen.max())
    margin = 0.06 * (high - low) or 0.5
    return end, low - margin, high + margin


def _value_axis(
    low: float, high: float, x: float, y: float, width: float, height: float, count: int
) -> Iterable[str]:
    for tick in ticks(low, high, count):
        at = y + height * (high - tick) / (high - low)
        yield path(f"M{x:g} {at:.1f}h{width:g}", RULE, 0.8)
        yield text(x - 6, at + 4, short_number(tick), size=_SMALL, anchor="end", colour=MUTED)


def _dots(x: Array, y: Array, colour: str) -> str:
    dots = "".join(
        f"M{a - 2.6:.1f} {b:.1f}a2.6 2.6 0 1 0 5.2 0a2.6 2.6 0 1 0-5.2 0"
        for a, b in zip(x, y, strict=True)
    )
    return path(dots, colour, 0, fill=colour)


def _end_names(ends: list[tuple[float, str, str]], x: float) -> Iterable[str]:
    """Names of curves at the heights where they end, moved apart where they collide."""
    ends = sorted(ends)
    places = spread([at for at, _, _ in ends], 15)
    for place, (_, label, colour) in zip(places, ends, strict=True):
        yield text(x, place + 4, label, size=11.5, colour=readable(colour), bold=True)


def _losses(
    snap: Snapshot, x: float, y: float, width: float, height: float, *, steps: bool = True
) -> list[str]:
    """Draw the curves at (x, y), each named at its end with its last value."""
    parts = [text(x, y - 11, f"Loss by step, {snap.loss_unit}", size=14, bold=True)]
    train, evaluation, worst = map(_thinned, (snap.train, snap.evaluation, snap.worst))
    bold = Series(train.steps, smooth(train.values, 0.02) if len(train.values) else train.values)
    seen = np.concatenate([series.finite().values for series in (bold, evaluation, worst)])
    if not len(seen):
        middle = (x + width / 2, y + height / 2)
        return [*parts, text(*middle, "none logged yet", anchor="middle", colour=MUTED)]
    end, low, high = _scales(snap, [bold, evaluation, worst])

    def points(series: Series) -> tuple[Array, Array]:
        inside = np.where(np.isfinite(series.values), np.clip(series.values, low, high), np.nan)
        return x + width * series.steps / end, y + height * (high - inside) / (high - low)

    parts += _value_axis(low, high, x, y, width, height, 4 if steps else 3)
    parts += _step_axis(end, x, y + height + 15, width) if steps else []
    parts += [
        path(polyline(*points(train)), _TRAIN, 1, more=' stroke-opacity="0.28"'),
        path(polyline(*points(bold)), _TRAIN, 1.8),
        path(polyline(*points(worst)), _WORST, 1.8, more=' stroke-dasharray="5 3"'),
        path(polyline(*points(evaluation)), _EVAL, 2),
    ]
    if len(evaluation.values) <= 60:
        parts.append(_dots(*points(evaluation.finite()), _EVAL))
    ends = []
    for name, colour, series in (
        ("train", _TRAIN, bold),
        ("eval", _EVAL, evaluation),
        ("worst", _WORST, worst),
    ):
        finite = series.finite()
        if len(finite.values):
            label = f"{name} {number(finite.last, 2)}"
            if name == "worst" and snap.worst_name:
                label += f" {shorten(snap.worst_name, 14)}"
            ends.append((float(points(finite)[1][-1]), label, colour))
    return [*parts, *_end_names(ends, x + width + 8)]


def _thinned(series: Series) -> Series:
    """Means of neighbours, where there are more points than pixels."""
    n = len(series.steps)
    if n <= 2 * _MOST_POINTS:
        return series
    cuts = np.linspace(0, n, _MOST_POINTS + 1).astype(int)
    steps, values = (np.add.reduceat(part, cuts[:-1]) / np.diff(cuts) for part in series)
    return Series(steps, values)


# --------------------------------------------------------------------------- head and numbers


def _head(snap: Snapshot) -> list[str]:
    colour = STATUS.get(snap.status, INK)
    of = f" of {snap.steps:,}" if snap.steps else ""
    status = snap.status_text
    parts = [
        text(22, 32, snap.name, size=19, bold=True, width=34),
        text(498, 32, f"step {snap.step:,}{of}", size=14, anchor="end"),
        text(WIDTH - 20, 32, status, size=14, anchor="end", colour=colour, bold=True),
    ]
    if snap.steps:
        done = min(1.0, snap.step / snap.steps)
        parts += [rect(560, 22, 270, 8, RULE, rx=4), rect(560, 22, 270 * done, 8, colour, rx=4)]
        parts.append(text(842, 32, f"{done:.0%}", size=14, colour=MUTED))
    if snap.error:
        parts.append(text(22, 52, snap.error, size=11.5, colour=STATUS["failed"], width=90))
    return parts


def _numbers(snap: Snapshot) -> list[str]:
    """Write the row of numbers at the bottom, each below its name."""
    target = f"q: {_effective(snap.effective_target)}"
    row = [
        (22, "effective domains", _effective(snap.effective), target),
        (172, "noise in G's diagonal", noise_text(snap), ""),
        (318, rate_name(snap), rate_text(snap), ""),
        (446, "time left", duration(snap.eta_seconds), ""),
        (575, "price of adapting p", percent(snap.overhead.seconds), "of time"),
        (715, "", percent(snap.overhead.flops), "of FLOPs"),
        (880, "this view", percent(snap.watch_percent), "of time"),
    ]
    parts = [path(f"M22 {HEIGHT - 58}H{WIDTH - 20}", RULE, 1)]
    for at, name, value, note in row:
        parts.append(text(at, HEIGHT - 38, name, size=11.5, colour=MUTED))
        parts.append(text(at, HEIGHT - 17, value, size=16, bold=True, note=note))
    return parts


def _effective(value: float | None) -> str:
    return number(value, 1 if value is not None and value < 100 else 0)
