"""The Gram matrix of a frame: one small picture, its names, outlines, hatching and colour bar."""

from __future__ import annotations

import functools

import matplotlib
import numpy as np
from numpy.typing import NDArray

from rbkit.show.facts import Array
from rbkit.show.gram_figure import mean_over_rounds, short_ids
from rbkit.show.live.facts import LiveFacts
from rbkit.show.live.scale import Kind, values
from rbkit.show.live.svg import path, picture, rect, short_number, text
from rbkit.show.style import INK, MUTED

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
        text(x + side, y - 19, f"{what}, scale ±{short_number(scale)}", size=11.5, anchor="end",
             colour=MUTED),
        f"<defs>{_HATCH}</defs>", rect(x, y, side, side, "url(#unseen)"),
    ]  # fmt: skip
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
        lines = "".join(f"M{x + i * cell:.1f} {y:g}v{side:g}M{x:g} {y + i * cell:.1f}h{side:g}"
                        for i in range(1, n))  # fmt: skip
        parts.append(path(lines, "#ffffff", 0.8))
    if n == facts.m:  # the diagonal is a squared norm: another quantity than its neighbours
        boxes = "".join(f"M{x + i * cell:.1f} {y + i * cell:.1f}h{cell:.1f}v{cell:.1f}h-{cell:.1f}z"
                        for i in range(n) if np.isfinite(G[i, i]))  # fmt: skip
        parts.append(path(boxes, "#3b4652", 0.8))
    return [*parts, *_names(facts, x, y, side), *_bar(scale, x, y + side + 14, side)]


def _names(facts: LiveFacts, x: float, y: float, side: float) -> list[str]:
    """Names of all rows, or of evenly spaced ones; short ones below, where they fit."""
    m, cell = facts.m, side / facts.m
    names = [facts.names[i] for i in facts.order]
    every = -(-m // _MOST_NAMES)
    size = float(np.clip(cell * 0.8, 8.5, 11.5))
    parts = [
        text(x - 7, y + (i + 0.5) * cell + size * 0.35, names[i], size=size, anchor="end",
             width=int(300 / size))
        for i in range(every // 2, m, every)
    ]  # fmt: skip
    if every > 1:
        parts.append(text(x - 7, y + side + 22, f"{len(parts)} of {m} domains named", size=10,
                          anchor="end", colour=MUTED))  # fmt: skip
    ids = short_ids(names)
    if max(map(len, ids)) * size * 0.62 < cell:
        parts += [text(x + (i + 0.5) * cell, y - 3, one, size=size, anchor="middle", colour=MUTED)
                  for i, one in enumerate(ids)]  # fmt: skip
    return parts


def _bar(scale: float, x: float, y: float, side: float) -> list[str]:
    step = side / 255
    image = picture(np.arange(255, dtype=np.uint8)[None], _reds())
    parts = [f'<image x="{x:g}" y="{y:g}" width="{255 * step:g}" height="9" href="{image}" '
             'preserveAspectRatio="none"/>']  # fmt: skip
    ends = ((0.0, "conflict", "start"), (0.5, "", "middle"), (1.0, "agree", "end"))
    for place, word, anchor in ends:
        value = short_number((2 * place - 1) * scale)
        said = f"{value} {word}" if anchor == "start" else f"{word} {value}"
        parts.append(text(x + place * side, y + 22, said.strip(), size=10.5, anchor=anchor,
                          colour=INK))  # fmt: skip
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
    return mean_over_rounds(blocks.reshape(block * block, n, n))


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
