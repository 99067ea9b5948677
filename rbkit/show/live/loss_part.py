"""Losses of a frame: training faint and smoothed, eval loss with dots, and the worst domain's."""

from __future__ import annotations

import numpy as np

from rbkit.show.curves import smooth
from rbkit.show.facts import Array
from rbkit.show.live.facts import LiveFacts
from rbkit.show.live.series import Series
from rbkit.show.live.svg import path, polyline, short_number, text, ticks
from rbkit.show.style import INK, MUTED, RULE, number, shorten, spread

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
    end = max(1.0, *(float(s.steps[-1]) for s in (train, evaluation) if len(s.steps)),
              float(facts.steps) if facts.status == "running" else 1.0)  # fmt: skip
    low, high = float(known.min()), float(known.max())
    margin = 0.06 * (high - low) or 0.5
    low, high = low - margin, high + margin

    def place(series: Series) -> tuple[Array, Array]:
        inside = np.where(np.isfinite(series.values), np.clip(series.values, low, high), np.nan)
        return x + width * series.steps / end, y + height * (high - inside) / (high - low)

    for tick in ticks(low, high):
        at = y + height * (high - tick) / (high - low)
        parts.append(path(f"M{x:g} {at:.1f}h{width:g}", RULE, 0.8))
        parts.append(text(x - 6, at + 4, short_number(tick), size=10.5, anchor="end",
                          colour=MUTED))  # fmt: skip
    for step in ticks(0, end):
        parts.append(text(x + width * step / end, y + height + 15, short_number(step), size=10.5,
                          anchor="middle", colour=MUTED))  # fmt: skip
    parts.append(path(polyline(*place(train)), _TRAIN, 1, more=' stroke-opacity="0.28"'))
    parts.append(path(polyline(*place(bold)), _TRAIN, 1.8))
    dashes = ' stroke-dasharray="5 3"'
    parts.append(path(polyline(*place(worst)), _WORST, 1.8, more=dashes))
    at_x, at_y = place(evaluation)
    parts.append(path(polyline(at_x, at_y), _EVAL, 2))
    dots = "".join(f"M{a - 2.6:.1f} {b:.1f}a2.6 2.6 0 1 0 5.2 0a2.6 2.6 0 1 0-5.2 0"
                   for a, b in zip(at_x, at_y, strict=True) if np.isfinite(b))  # fmt: skip
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
    return [text(x + 8, at + 4, said, size=11.5, colour=colour or INK, bold=True)
            for at, (_, said, colour) in zip(places, found, strict=True)]  # fmt: skip


def _fewer(series: Series) -> Series:
    """Means of neighbours, where there are more points than pixels."""
    n = len(series.steps)
    if n <= 2 * _MOST_POINTS:
        return series
    cuts = np.linspace(0, n, _MOST_POINTS + 1).astype(int)
    width = np.diff(cuts)
    steps, values = (np.add.reduceat(part, cuts[:-1]) / width for part in series)
    return Series(steps, values)
