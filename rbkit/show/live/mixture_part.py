"""Proportions of a frame: rounds as stacked bars, and the target q beside them."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from rbkit.show.facts import Array
from rbkit.show.live.facts import LiveFacts
from rbkit.show.live.svg import hexadecimal, path, picture, rect, short_number, text, ticks
from rbkit.show.style import INK, MUTED, domain_colours, spread

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
            parts.append(rect(x + width + 10, top, 20, deep, colours[k], stroke="#ffffff",
                              stroke_width=0.4))  # fmt: skip
        parts.append(text(x + width + 20, y - 5, "q", size=12.5, anchor="middle", bold=True))
        place = facts.q[facts.order]
    return [*parts, *_names(facts, place, x + width + 36, y, height)]


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
    parts = [text(x - 6, y + height * (1 - share) + 4, f"{share:.0%}", size=10.5, anchor="end",
                  colour=MUTED) for share in (0.0, 0.5, 1.0)]  # fmt: skip
    for step in ticks(0, end):
        parts.append(text(x + width * step / end, y + height + 14, short_number(step), size=10.5,
                          anchor="middle", colour=MUTED))  # fmt: skip
    return parts


def _names(facts: LiveFacts, share: Array, x: float, y: float, height: float) -> list[str]:
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
        parts.append(text(x + 30, place + 3.8, _share(now[i]), size=10.5, anchor="end",
                          colour=MUTED))  # fmt: skip
        parts.append(text(x + 35, place + 3.8, facts.names[facts.order[i]], size=10.5, colour=INK,
                          width=20))  # fmt: skip
    return parts


def _share(p: float) -> str:
    return f"{p:.0%}" if p >= 0.005 else f"{p:.1%}"


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


@functools.cache
def _colours(m: int) -> list[str]:
    return [hexadecimal(colour) for colour in domain_colours(m)]
