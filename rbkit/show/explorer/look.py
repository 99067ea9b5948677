"""Small things that the map needs: places for names, a frame, thumbnails."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_unit_square(xy: NDArray[np.floating[Any]], margin: float = 0.03) -> NDArray[np.float32]:
    """Scale places into the unit square, keeping proportions; a stray point does not rule.

    Examples
    --------
    >>> to_unit_square(np.array([[0.0, 0.0], [4.0, 2.0]]), margin=0).tolist()
    [[0.0, 0.25], [1.0, 0.75]]
    """
    found = np.asarray(xy, dtype=np.float64)
    # UMAP sometimes throws a handful of points far away, which would squeeze all others.
    low, high = (np.quantile(found, q, axis=0) for q in ((0.001, 0.999) if len(found) > 2000
                                                         else (0.0, 1.0)))  # fmt: skip
    span = float(np.max(high - low)) or 1.0
    middle = (low + high) / 2
    scaled = 0.5 + (found - middle) / span * (1 - 2 * margin)
    return np.clip(scaled, 0.0, 1.0).astype(np.float32)


def label_places(
    xy: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], m: int
) -> NDArray[np.float64]:
    """Return a place for the name of each domain: its point nearest to the median. (m, 2).

    The median itself may lie between two islands, where no example is.

    Examples
    --------
    >>> xy = np.array([[0.0, 0.0], [0.1, 0.0], [9.0, 9.0]])
    >>> label_places(xy, np.array([0, 0, 1]), 2).tolist()
    [[0.0, 0.0], [9.0, 9.0]]
    """
    places = np.full((m, 2), 0.5)
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(m + 1))
    for at in range(m):
        own = xy[order[ends[at] : ends[at + 1]]]
        if len(own):
            middle = np.median(own, axis=0)
            places[at] = own[np.argmin(((own - middle) ** 2).sum(axis=1))]
    return places


def thumbnail(picture: Any, size: int) -> str:
    """Return a picture as a small ``data:image/png`` address; empty where there is none."""
    if picture is None:
        return ""
    small = picture.convert("RGBA")
    small.thumbnail((size, size))
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
