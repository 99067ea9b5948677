"""Pictures of a few hundred bytes: a curve in a line of text, a thumbnail, a patch of colour.

They are drawn without a ``style`` attribute, so that the page's policy can forbid those.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np

from rbkit.show.facts import Array

_WIDTH, _HEIGHT, _POINTS = 96, 26, 24
_LEVELS = 63  # odd: zero has a colour of its own
_LARGEST = 36  # rows of a thumbnail; more are averaged


def sparkline(
    steps: Sequence[float], values: Sequence[float], *, last_step: float, low: float, high: float,
    colour: str, title: str,
) -> str:  # fmt: skip
    """Draw a curve as inline SVG, on scales that all curves of a table share.

    Parameters
    ----------
    steps, values : sequence of float
        Points without NaN; what lies above `high` is cut off.
    last_step, low, high : float
        The right edge, and the lower and upper edge.
    colour : str
        ``#rrggbb``.
    title : str
        What the curve shows, for those who do not see it; escaped here.

    Returns
    -------
    str
        Empty where there is nothing to draw.
    """
    from markupsafe import escape

    if not len(values):
        return ""
    keep = np.unique(np.linspace(0, len(values) - 1, min(_POINTS, len(values))).astype(int))
    x = 3 + (_WIDTH - 6) * np.asarray(steps, dtype=np.float64)[keep] / max(last_step, 1e-9)
    share = (np.asarray(values, dtype=np.float64)[keep] - low) / max(high - low, 1e-9)
    y = 3 + (_HEIGHT - 6) * (1 - np.clip(share, 0, 1))
    points = " ".join(f"{a:.4g},{b:.3g}" for a, b in zip(x, y, strict=True))
    return (
        f'<svg class="spark" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'<polyline points="{points}" fill="none" stroke="{_colour(colour)}" stroke-width="1.6"/>'
        f'<circle cx="{x[-1]:.4g}" cy="{y[-1]:.3g}" r="2.2" fill="{_colour(colour)}"/></svg>'
    )


def thumbnail(cosine: Array, scale: float = 1.0) -> str:
    """Draw a matrix of cosines (m, m) as a PNG of one pixel per cell, under 1.5 kB.

    Parameters
    ----------
    cosine : ndarray of shape (m, m)
        Blue to red, white at 0, grey where nothing was observed. Of more than 36 domains,
        neighbours are averaged.
    scale : float
        Cosine of the strongest colours.

    Returns
    -------
    str
        A ``data:`` address.
    """
    from PIL import Image

    cells = _fewer(np.asarray(cosine, dtype=np.float64))
    known = np.isfinite(cells)
    level = np.rint((np.clip(np.where(known, cells, 0.0) / scale, -1, 1) + 1) / 2 * (_LEVELS - 1))
    image = Image.fromarray(np.where(known, level, _LEVELS).astype(np.uint8))
    ramp = matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, _LEVELS))[:, :3]
    image.putpalette([*np.rint(255 * ramp).astype(int).ravel().tolist(), 217, 222, 227])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def swatch(colour: str) -> str:
    """Draw a patch of colour that stands before a name."""
    return (
        '<svg class="swatch" width="12" height="12" aria-hidden="true">'
        f'<rect width="12" height="12" rx="3" fill="{_colour(colour)}"/></svg>'
    )


def bar(share: float, kind: str) -> str:
    """Draw a horizontal bar of the class `kind`, `share` (0 to 1) of its room long."""
    width = 100 * float(np.clip(np.nan_to_num(share), 0.004, 1))
    return (
        f'<svg class="bar {kind}" height="10" viewBox="0 0 100 10" preserveAspectRatio="none" '
        f'aria-hidden="true"><rect width="{width:.1f}" height="10"/></svg>'
    )


def _fewer(cells: Array) -> Array:
    m = len(cells)
    if m <= _LARGEST:
        return cells
    edges = np.linspace(0, m, _LARGEST + 1).astype(int)
    known = np.isfinite(cells)
    sums: Any = [np.where(known, cells, 0.0), known.astype(np.float64)]
    for axis in (0, 1):
        sums = [np.add.reduceat(part, edges[:-1], axis=axis) for part in sums]
    made: Array = np.divide(sums[0], sums[1], out=np.full(sums[0].shape, np.nan), where=sums[1] > 0)
    return made


def _colour(colour: str) -> str:
    # Colours are ours, but one of them might once come from a file.
    return matplotlib.colors.to_hex(colour)
