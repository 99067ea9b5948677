"""One frame of the live view: a picture of a run in training, and the words that stand for it.

The picture is SVG inside ``<img src="data:...">``: inline SVG is stripped from notebooks that
are not trusted, and widgets are blank there and in exported pages.
"""

from __future__ import annotations

import base64
import functools
import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from html import escape
from typing import Literal

import matplotlib
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rbkit.show.facts import Array, smooth
from rbkit.show.gram_layout import common_scale, extremes, finite_mean, short_ids, to_cosine
from rbkit.show.live.facts import LiveFacts, Series, status_said, whole
from rbkit.show.style import INK, MUTED, PAPER, RULE, domain_colours, shorten, spread
from rbkit.text import duration, number, percent

FONT = "system-ui,-apple-system,'Segoe UI','Helvetica Neue',Arial,'Liberation Sans',sans-serif"


def text(
    x: float,
    y: float,
    said: str,
    *,
    size: float = 12,
    anchor: str = "start",
    colour: str = INK,
    bold: bool = False,
    width: int | None = None,
    more: str = "",
) -> str:
    """Text at a point, escaped; `width` characters of it at most; `more` small behind it.

    Examples
    --------
    >>> text(1, 2, "<b> & co", width=5)
    '<text x="1" y="2" font-size="12" fill="#1f2933">&lt;b&gt;…</text>'
    """
    said = said if width is None else shorten(said, width)
    look = "" if anchor == "start" else f' text-anchor="{anchor}"'
    look += ' font-weight="600"' if bold else ""
    # What XML 1.0 cannot say at all would make the whole picture vanish.
    said = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in said)
    small = f'<tspan font-size="11.5" font-weight="400" dx="5">{escape(more)}</tspan>'
    return (
        f'<text x="{_n(x)}" y="{_n(y)}" font-size="{size:g}" fill="{colour}"{look}>'
        f"{escape(said)}{small if more else ''}</text>"
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
    parts, pen = [], "M"
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        if np.isfinite(b):
            parts.append(f"{pen}{_n(a)} {_n(b)}")
            pen = "L"
        else:
            pen = "M"
    return "".join(parts)


def picture(indices: NDArray[np.uint8], palette: Sequence[tuple[int, int, int]]) -> str:
    """Return the ``data:`` address of a PNG of palette colours; index 255 is transparent."""
    height, width = indices.shape
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
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
    image = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return "data:image/png;base64," + base64.b64encode(image).decode("ascii")


def document(width: int, height: int, body: Iterable[str]) -> str:
    """Write a whole picture on white paper."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="{FONT}">'
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>{"".join(body)}</svg>'
    )


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


def hexadecimal(colour: tuple[float, float, float]) -> str:
    """Write red, green and blue, each from 0 to 1, as ``#rrggbb``."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


Kind = Literal["cosine", "raw"]
_PERCENTILE = 95.0  # of |G|: a few pairs of a first, noisy round shall not bleach all the others


class Scale:
    """A scale from -limit to limit, centred at 0, that starts round and grows in round steps.

    Round are 1, 2 and 5 times a power of ten. It depends on the rounds seen, and not on when
    somebody began to look at them.

    Parameters
    ----------
    kind : {"cosine", "raw"}
        Cosines of domain gradients, or their inner products.

    Attributes
    ----------
    limit : float or None
        None before the first matrix.

    Examples
    --------
    >>> scale = Scale("raw")
    >>> [scale.see([[[9.0, g], [g, 9.0]]]) for g in (0.13, 0.01, 0.3)]
    [0.2, 0.2, 0.5]
    """

    def __init__(self, kind: Kind = "cosine") -> None:
        self.kind: Kind = kind
        self.limit: float | None = None
        self.seen = 0  # rounds

    def see(self, grams: ArrayLike) -> float:
        """Take note of Gram matrices (T, m, m); return the limit."""
        for gram in np.asarray(grams, dtype=np.float64):
            self.seen += 1
            shown = values(gram, self.kind)
            if np.isfinite(shown[~np.eye(len(shown), dtype=bool)]).any():
                self.limit = max(self.limit or 0.0, round_up(common_scale(shown, _PERCENTILE)))
        return self.limit or 1.0

    def follow(self, history: dict[str, Array]) -> float:
        """Take note of the rounds of a ``history`` that were not there before."""
        grams = history.get("gram", np.empty((0, 0, 0)))
        if grams.ndim != 3:
            return self.limit or 1.0
        if len(grams) < self.seen:  # cut back by a resume
            self.limit, self.seen = None, 0
        return self.see(grams[self.seen :])


def values(gram: Array, kind: Kind) -> Array:
    """Cosines or inner products of a Gram matrix, (m, m)."""
    return to_cosine(gram) if kind == "cosine" else np.asarray(gram, dtype=np.float64)


def round_up(value: float) -> float:
    """Next number that is 1, 2 or 5 times a power of ten.

    Examples
    --------
    >>> [round_up(v) for v in (0.1, 0.13, 0.9, 3.0, 51.0)]
    [0.1, 0.2, 1.0, 5.0, 100.0]
    """
    if not value > 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value) + 1e-9)
    factor = next(f for f in (1, 2, 5, 10) if f * power >= value * (1 - 1e-9))
    return float(f"{factor * power:.3g}")


_MOST_NAMES = 24  # rows of names that can be read beside the matrix
_MOST_CELLS = 160  # a side: more would be smaller than two pixels

_HATCH = (
    '<pattern id="unseen" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="6" height="6" fill="#eceff2"/>'
    '<path d="M0 0V6" stroke="#b4bcc5" stroke-width="1.6"/></pattern>'
)


def gram_part(
    facts: LiveFacts, kind: Kind, scale: float, x: float, y: float, side: float
) -> list[str]:
    """Draw the matrix in a square whose upper left corner is (x, y), names to its left."""
    what = "cosines" if kind == "cosine" else "inner products"
    parts = [
        text(x - 160, y - 19, "Gram matrix of domain gradients", size=14, bold=True),
        text(
            x + side,
            y - 19,
            f"{what}, scale ±{short_number(scale)}",
            size=11.5,
            anchor="end",
            colour=MUTED,
        ),
        f"<defs>{_HATCH}</defs>",
        rect(x, y, side, side, "url(#unseen)"),
    ]
    if facts.gram is None:
        said = "after the first round" if facts.status in ("running", "waiting") else "not tracked"
        parts.append(rect(x + side / 2 - 80, y + side / 2 - 17, 160, 26, "#ffffff", rx=4))
        parts.append(text(x + side / 2, y + side / 2, said, anchor="middle", colour=MUTED))
        return parts
    G = values(facts.gram, kind)[np.ix_(facts.order, facts.order)]
    cells = _aggregate(G)
    n, cell = len(cells), side / len(cells)
    image = picture(np.kron(_indices(cells, scale), np.ones((_times(n),) * 2, np.uint8)), _reds())
    parts.append(
        f'<image x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}" href="{image}" '
        'style="image-rendering:pixelated"/>'
    )
    if n <= 40:
        lines = "".join(
            f"M{x + i * cell:.1f} {y:g}v{side:g}M{x:g} {y + i * cell:.1f}h{side:g}"
            for i in range(1, n)
        )
        parts.append(path(lines, "#ffffff", 0.8))
    if n == facts.m:  # the diagonal is a squared norm: another quantity than its neighbours
        boxes = "".join(
            f"M{x + i * cell:.1f} {y + i * cell:.1f}h{cell:.1f}v{cell:.1f}h-{cell:.1f}z"
            for i in range(n)
            if np.isfinite(G[i, i])
        )
        parts.append(path(boxes, "#3b4652", 0.8))
    return [*parts, *_names(facts, x, y, side), *_bar(scale, x, y + side + 14, side)]


def _names(facts: LiveFacts, x: float, y: float, side: float) -> list[str]:
    """Names of all rows, or of evenly spaced ones; short ones below, where they fit."""
    m, cell = facts.m, side / facts.m
    names = [facts.names[i] for i in facts.order]
    every = -(-m // _MOST_NAMES)
    size = float(np.clip(cell * 0.8, 8.5, 11.5))
    parts = [
        text(
            x - 7,
            y + (i + 0.5) * cell + size * 0.35,
            names[i],
            size=size,
            anchor="end",
            width=int(300 / size),
        )
        for i in range(every // 2, m, every)
    ]
    if every > 1:
        parts.append(
            text(
                x - 7,
                y + side + 22,
                f"{len(parts)} of {m} domains named",
                size=10,
                anchor="end",
                colour=MUTED,
            )
        )
    ids = short_ids(names)
    if max(map(len, ids)) * size * 0.62 < cell:
        parts += [
            text(x + (i + 0.5) * cell, y - 3, one, size=size, anchor="middle", colour=MUTED)
            for i, one in enumerate(ids)
        ]
    return parts


def _bar(scale: float, x: float, y: float, side: float) -> list[str]:
    step = side / 255
    image = picture(np.arange(255, dtype=np.uint8)[None], _reds())
    parts = [
        f'<image x="{x:g}" y="{y:g}" width="{255 * step:g}" height="9" href="{image}" '
        'preserveAspectRatio="none"/>'
    ]
    ends = ((0.0, "conflict", "start"), (0.5, "", "middle"), (1.0, "agree", "end"))
    for place, word, anchor in ends:
        value = short_number((2 * place - 1) * scale)
        said = f"{value} {word}" if anchor == "start" else f"{word} {value}"
        parts.append(
            text(x + place * side, y + 22, said.strip(), size=10.5, anchor=anchor, colour=INK)
        )
    return parts


def _aggregate(G: Array) -> Array:
    """Means over blocks of neighbours, of a matrix too large to be seen cell by cell."""
    m = len(G)
    if m <= _MOST_CELLS:
        return G
    block = -(-m // _MOST_CELLS)
    padded = np.full((-(-m // block) * block,) * 2, np.nan)
    padded[:m, :m] = G
    n = len(padded) // block
    blocks = padded.reshape(n, block, n, block).transpose(1, 3, 0, 2)
    return finite_mean(blocks.reshape(block * block, n, n))


def _indices(cells: Array, scale: float) -> NDArray[np.uint8]:
    """Colours by number: 127 is 0, 255 is transparent, for what was never seen."""
    place = np.clip(np.nan_to_num(cells) / scale, -1, 1)
    return np.where(np.isfinite(cells), np.round(127 + 127 * place), 255).astype(np.uint8)


def _times(n: int) -> int:
    """Pixels of a cell: enough that a viewer that smooths pictures leaves them square."""
    return max(1, round(320 / n))


@functools.cache
def _reds() -> list[tuple[int, int, int]]:
    """RdBu_r in 255 steps: the middle one is 0."""
    colours = matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, 255))[:, :3]
    return [(int(r), int(g), int(b)) for r, g, b in np.round(255 * colours)]


_COLUMNS, _ROWS = 540, 284  # pixels of the stack: two for each that is shown
_MOST_LAYERS = 60  # domains, each a layer of its own


def mixture_part(facts: LiveFacts, x: float, y: float, width: float, height: float) -> list[str]:
    """Draw the stack at (x, y), q and names to its right."""
    parts = [text(x, y - 11, "Proportions by step", size=14, bold=True)]
    if not len(facts.p):
        parts.append(rect(x, y, width, height, "#f4f6f8"))
        early = not facts.rounds and facts.status in ("running", "waiting")
        said = "after the first round" if early else "not told"
        parts.append(text(x + width / 2, y + height / 2 + 4, said, anchor="middle", colour=MUTED))
        return parts
    end = max(float(facts.edges[-1]), float(facts.steps) if facts.status == "running" else 1.0)
    layers = np.arange(facts.m, dtype=np.int64)
    if facts.m > _MOST_LAYERS:  # neighbours in the order are alike: draw them as one
        starts = np.linspace(0, facts.m, _MOST_LAYERS, endpoint=False).astype(int)
        layers = np.repeat(layers[:_MOST_LAYERS], np.diff(np.append(starts, facts.m)))
    n = int(layers[-1]) + 1
    colours, stack = _colours(n), _stack(facts.p[:, facts.order], layers, n)
    image = picture(_pixels(stack, facts.edges / end), [_rgb(colour) for colour in colours])
    parts.append(rect(x, y, width, height, "#f4f6f8"))  # what is still to come
    parts.append(
        f'<image x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" href="{image}" '
        'preserveAspectRatio="none"/>'
    )
    parts += _axis(end, x, y, width, height)
    place = facts.p[-1][facts.order]
    if facts.q is not None:
        q = _stack(facts.q[facts.order][None], layers, n)[0]
        for k in range(n):
            top, deep = y + height * (1 - q[k + 1]), height * (q[k + 1] - q[k])
            parts.append(
                rect(x + width + 10, top, 20, deep, colours[k], stroke="#ffffff", stroke_width=0.4)
            )
        parts.append(text(x + width + 20, y - 5, "q", size=12.5, anchor="middle", bold=True))
        place = facts.q[facts.order]
    return [*parts, *_mixture_names(facts, place, x + width + 36, y, height)]


def _stack(p: Array, layers: NDArray[np.int64], n: int) -> Array:
    """Lower edges of the layers of each round, and 1 at the end: (T, n + 1)."""
    summed = np.zeros((len(p), n))
    np.add.at(summed.T, layers, p.T)
    return np.concatenate([np.zeros((len(p), 1)), np.cumsum(summed, axis=1)], axis=1)


def _pixels(stack: Array, edges: Array) -> NDArray[np.uint8]:
    """Layer by pixel: as large for hundreds of rounds and domains as for a few of each."""
    at = (np.arange(_COLUMNS) + 0.5) / _COLUMNS
    of_column = np.searchsorted(edges, at, side="right") - 1
    shown = np.unique(np.clip(of_column, 0, len(stack) - 1))  # before the first: not told
    height = 1 - (np.arange(_ROWS) + 0.5) / _ROWS
    layers = [np.searchsorted(stack[t, 1:-1], height, side="right") for t in shown]
    pixels = np.array(layers, np.uint8)[np.searchsorted(shown, of_column).clip(max=len(shown) - 1)]
    pixels[(of_column < 0) | (of_column >= len(stack))] = 255  # not told, or still to come
    turned: NDArray[np.uint8] = pixels.T
    return turned


def _axis(end: float, x: float, y: float, width: float, height: float) -> list[str]:
    parts = [
        text(
            x - 6,
            y + height * (1 - share) + 4,
            f"{share:.0%}",
            size=10.5,
            anchor="end",
            colour=MUTED,
        )
        for share in (0.0, 0.5, 1.0)
    ]
    for step in ticks(0, end):
        parts.append(
            text(
                x + width * step / end,
                y + height + 14,
                short_number(step),
                size=10.5,
                anchor="middle",
                colour=MUTED,
            )
        )
    return parts


def _mixture_names(facts: LiveFacts, share: Array, x: float, y: float, height: float) -> list[str]:
    """Names of the largest domains beside their layers, with the share each has now."""
    gap = 12.5
    now = facts.p[-1][facts.order]
    room = max(1, int(height / gap))
    kept = sorted(np.argsort(np.maximum(share, now), kind="stable")[::-1][:room])
    middles = 1 - (np.cumsum(share) - share / 2)
    wanted = [y + height * float(middles[i]) for i in kept][::-1]
    places = np.array(spread(wanted, gap))
    places += max(0.0, y + gap / 2 - places[0])
    places -= max(0.0, places[-1] - (y + height - gap / 2))
    parts = []
    for i, wish, place in zip(kept[::-1], wanted, places, strict=True):
        parts.append(path(f"M{x - 5:g} {wish:.1f}L{x + 3:g} {place:.1f}", "#b4bcc5", 0.8))
        parts.append(
            text(x + 30, place + 3.8, _share(now[i]), size=10.5, anchor="end", colour=MUTED)
        )
        parts.append(
            text(x + 35, place + 3.8, facts.names[facts.order[i]], size=10.5, colour=INK, width=20)
        )
    return parts


def _share(p: float) -> str:
    return f"{p:.0%}" if p >= 0.005 else f"{p:.1%}"


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


@functools.cache
def _colours(m: int) -> list[str]:
    return [hexadecimal(colour) for colour in domain_colours(m)]


_MOST_POINTS = 400
_TRAIN, _EVAL, _WORST = "#59636e", "#0072B2", "#D55E00"


def loss_part(facts: LiveFacts, x: float, y: float, width: float, height: float) -> list[str]:
    """Draw the curves at (x, y), each named at its end with its last value."""
    parts = [text(x, y - 11, "Loss by step, nats per token", size=14, bold=True)]
    train, evaluation, worst = map(_fewer, (facts.train, facts.evaluation, facts.worst))
    bold = Series(train.steps, smooth(train.values, 0.02) if len(train.values) else train.values)
    known = np.concatenate([bold.values, evaluation.values, worst.values])
    known = known[np.isfinite(known)]
    if not len(known):
        middle = (x + width / 2, y + height / 2)
        return [*parts, text(*middle, "none logged yet", anchor="middle", colour=MUTED)]
    end = max(
        1.0,
        *(float(s.steps[-1]) for s in (train, evaluation) if len(s.steps)),
        float(facts.steps) if facts.status == "running" else 1.0,
    )
    low, high = float(known.min()), float(known.max())
    margin = 0.06 * (high - low) or 0.5
    low, high = low - margin, high + margin

    def place(series: Series) -> tuple[Array, Array]:
        inside = np.where(np.isfinite(series.values), np.clip(series.values, low, high), np.nan)
        return x + width * series.steps / end, y + height * (high - inside) / (high - low)

    for tick in ticks(low, high):
        at = y + height * (high - tick) / (high - low)
        parts.append(path(f"M{x:g} {at:.1f}h{width:g}", RULE, 0.8))
        parts.append(text(x - 6, at + 4, short_number(tick), size=10.5, anchor="end", colour=MUTED))
    for step in ticks(0, end):
        parts.append(
            text(
                x + width * step / end,
                y + height + 15,
                short_number(step),
                size=10.5,
                anchor="middle",
                colour=MUTED,
            )
        )
    parts.append(path(polyline(*place(train)), _TRAIN, 1, more=' stroke-opacity="0.28"'))
    parts.append(path(polyline(*place(bold)), _TRAIN, 1.8))
    dashes = ' stroke-dasharray="5 3"'
    parts.append(path(polyline(*place(worst)), _WORST, 1.8, more=dashes))
    at_x, at_y = place(evaluation)
    parts.append(path(polyline(at_x, at_y), _EVAL, 2))
    dots = "".join(
        f"M{a - 2.6:.1f} {b:.1f}a2.6 2.6 0 1 0 5.2 0a2.6 2.6 0 1 0-5.2 0"
        for a, b in zip(at_x, at_y, strict=True)
        if np.isfinite(b)
    )
    if len(evaluation.values) <= 60:
        parts.append(path(dots, _EVAL, 0, fill=_EVAL))
    ends = [("train", _TRAIN, bold), ("eval", _EVAL, evaluation), ("worst", _WORST, worst)]
    return [*parts, *_end_names(facts, [(n, c, s, place(s)) for n, c, s in ends], x + width)]


def _end_names(
    facts: LiveFacts, ends: list[tuple[str, str, Series, tuple[Array, Array]]], x: float
) -> list[str]:
    """Names of the curves at their ends, moved apart where they collide."""
    found = []
    for name, colour, series, (_, at_y) in ends:
        known = np.flatnonzero(np.isfinite(series.values))
        if len(known):
            said = f"{name} {number(float(series.values[known[-1]]), 2)}"
            if name == "worst" and facts.worst_name:
                said += f" {shorten(facts.worst_name, 14)}"
            found.append((float(at_y[known[-1]]), said, colour))
    found.sort()
    places = spread([at for at, _, _ in found], 15)
    return [
        text(x + 8, at + 4, said, size=11.5, colour=colour or INK, bold=True)
        for at, (_, said, colour) in zip(places, found, strict=True)
    ]


def _fewer(series: Series) -> Series:
    """Means of neighbours, where there are more points than pixels."""
    n = len(series.steps)
    if n <= 2 * _MOST_POINTS:
        return series
    cuts = np.linspace(0, n, _MOST_POINTS + 1).astype(int)
    width = np.diff(cuts)
    steps, values = (np.add.reduceat(part, cuts[:-1]) / width for part in series)
    return Series(steps, values)


WIDTH, HEIGHT = 1040, 520
_STATUS = {
    "running": "#0072B2",
    "ok": "#00835F",
    "failed": "#B3403A",
    "killed": "#B3403A",
    "interrupted": "#96562A",
    "waiting": MUTED,
}


def frame_svg(facts: LiveFacts, kind: Kind = "cosine", scale: float | None = None) -> str:
    """Draw a run as it is now.

    Parameters
    ----------
    facts : LiveFacts
    kind : {"cosine", "raw"}
        Cosines of the domain gradients, or inner products as the mixer saw them.
    scale : float, optional
        Colours go from -scale to scale; by the matrix of these facts alone if not given.

    Returns
    -------
    str
        An SVG document.
    """
    if scale is None:
        scale = Scale(kind).see([] if facts.gram is None else [facts.gram])
    return document(
        WIDTH,
        HEIGHT,
        [
            *_head(facts),
            *gram_part(facts, kind, scale, 182, 92, 316),
            *mixture_part(facts, 560, 78, 270, 142),
            *loss_part(facts, 560, 276, 270, 146),
            *_numbers(facts),
        ],
    )


def frame_html(
    facts: LiveFacts, kind: Kind = "cosine", scale: float | None = None, hint: str = ""
) -> str:
    """Write a frame as the output of a cell: the picture, its alternative text, and a hint."""
    image = base64.b64encode(frame_svg(facts, kind, scale).encode("utf-8")).decode("ascii")
    # Width and height keep the place of the picture while the next one is decoded: no flicker.
    return (
        f'<img src="data:image/svg+xml;base64,{image}" alt="{escape(alt(facts, kind))}" '
        f'width="{WIDTH}" height="{HEIGHT}" style="max-width:100%;height:auto">'
        f'<div style="font-size:12px;min-height:18px">{escape(hint)}</div>'
    )


def alt(facts: LiveFacts, kind: Kind = "cosine") -> str:
    """Say in words what a frame shows."""
    said = [f"{facts.name}, {facts.status}, step {facts.step:,} of {facts.steps or '?'}"]
    for what, series in (("training loss", facts.train), ("eval loss", facts.evaluation)):
        if len(series.values):
            said.append(f"{what} {number(float(series.values[-1]))}")
    if facts.worst_name is not None:
        said.append(f"highest in {facts.worst_name} {number(float(facts.worst.values[-1]))}")
    if len(facts.p):
        top = np.argsort(facts.p[-1])[::-1][:3]
        shares = ", ".join(f"{facts.names[i]} {facts.p[-1][i]:.0%}" for i in top)
        said.append(f"largest domains {shares}")
        said.append(f"{number(facts.effective, 1)} effective domains")
    if facts.gram is not None:
        what = "cosines" if kind == "cosine" else "inner products"
        said.append(
            f"{what} of domain gradients: {extremes(values(facts.gram, kind), facts.names)}"
        )
    if facts.error:
        said.append(facts.error)
    return "; ".join(said) + "."


def _head(facts: LiveFacts) -> list[str]:
    colour = _STATUS.get(facts.status, INK)
    of = f" of {facts.steps:,}" if facts.steps else ""
    parts = [
        text(22, 32, facts.name, size=19, bold=True, width=34),
        text(498, 32, f"step {facts.step:,}{of}", size=14, anchor="end"),
        text(WIDTH - 20, 32, status_said(facts), size=14, anchor="end", colour=colour, bold=True),
    ]
    if facts.steps:
        done = min(1.0, facts.step / facts.steps)
        parts += [rect(560, 22, 270, 8, RULE, rx=4), rect(560, 22, 270 * done, 8, colour, rx=4)]
        parts.append(text(842, 32, f"{done:.0%}", size=14, colour=MUTED))
    if facts.error:
        parts.append(text(22, 52, facts.error, size=11.5, colour=_STATUS["failed"], width=90))
    return parts


def _numbers(facts: LiveFacts) -> list[str]:
    """Write the row of numbers at the bottom, each with what it is."""
    target = f"q: {_effective(facts.effective_target)}"
    noise = None if facts.noise_share is None else 100 * facts.noise_share
    shown = [
        ("effective domains", _effective(facts.effective), target),
        ("noise in G's diagonal", percent(noise), ""),
        ("tokens per second", whole(facts.tokens_per_second), ""),
        ("time left", duration(facts.eta_seconds), ""),
        ("price of adapting p", percent(facts.overhead.seconds), "of time"),
        ("", percent(facts.overhead.flops), "of FLOPs"),
        ("this view", percent(facts.watch_percent), "of time"),
    ]
    parts = [path(f"M22 {HEIGHT - 58}H{WIDTH - 20}", RULE, 1)]
    places = (22, 172, 318, 446, 575, 715, 880)
    for at, (what, value, beside) in zip(places, shown, strict=True):
        parts.append(text(at, HEIGHT - 38, what, size=11.5, colour=MUTED))
        parts.append(text(at, HEIGHT - 17, value, size=16, bold=True, more=beside))
    return parts


def _effective(value: float | None) -> str:
    return number(value, 1 if value is not None and value < 100 else 0)
