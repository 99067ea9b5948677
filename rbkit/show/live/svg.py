"""Few words of SVG, written by hand: thirty times cheaper than a figure of matplotlib."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from rbkit.show.facts import Array
from rbkit.show.style import INK, PAPER, shorten

FONT = "system-ui,-apple-system,'Segoe UI','Helvetica Neue',Arial,'Liberation Sans',sans-serif"


def text(
    x: float, y: float, said: str, *, size: float = 12, anchor: str = "start", colour: str = INK,
    bold: bool = False, width: int | None = None, more: str = "",
) -> str:  # fmt: skip
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
