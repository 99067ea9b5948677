"""A run in training drawn with characters: what the live panel shows, in a terminal.

Domains are rows, in the order of similarity: name, row of the Gram matrix, bar of the
proportion in force with a mark at the target. Nothing depends on colour alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from rbkit.show.facts import Array
from rbkit.show.live.facts import LiveFacts
from rbkit.show.live.scale import Kind, values
from rbkit.show.live.series import Series
from rbkit.show.live.told import UNKNOWN, Told, numbers, progress_said, status_said, went_wrong
from rbkit.show.style import number
from rbkit.show.terminal_marks import (
    BAR,
    DIM,
    bar,
    cell,
    diagonal_mark,
    fitted,
    marked_bar,
    spark,
)

_BOLD, _ALARM = "bold", "bold white on #B3261E"
_WITH_CURVES = ("eval loss", "worst domain", "training loss")
_LOSSES = (("train", ""), ("eval", BAR), ("worst", "#D55E00"))


@dataclass(frozen=True)
class Room:
    """Room for the view: columns, lines (None: as many as it takes), and whether in colour."""

    width: int
    height: int | None = None
    colour: bool = True


def view(facts: LiveFacts, room: Room, kind: Kind = "cosine", scale: float = 1.0) -> Group:
    """Draw a run as it is now.

    Parameters
    ----------
    facts : LiveFacts
        With printable names.
    room : Room
        What does not fit is put together (domains) or left out (columns), never wrapped.
    kind : {"cosine", "raw"}
    scale : float
        Colours go from -scale to scale.

    Returns
    -------
    rich.console.Group
        Of lines.
    """
    head = _head(facts, room)
    below = [*_losses(facts, room), *_numbers(facts, room)]
    most = 40 if room.height is None else max(2, room.height - len(head) - len(below) - 4)
    return Group(*head, *_domains(facts, room, kind, scale, most), *below)


def _head(facts: LiveFacts, room: Room) -> list[Text]:
    wrong = went_wrong(facts)
    status = f" {status_said(facts)} "
    name = fitted(facts.name, max(4, min(cell_len(facts.name), room.width - len(status) - 2)))
    lines = [Text.assemble((name, _BOLD), " ", (status, _ALARM if wrong else _BOLD))]
    said = progress_said(facts)
    line = Text(said)
    if facts.steps and (wide := min(60, room.width - len(said) - 8)) >= 8:
        share = min(1.0, facts.step / facts.steps)
        line = Text.assemble((bar(share, wide), BAR), f" {share:4.0%}  {said}")
    lines.append(line)
    if facts.error:
        lines.append(Text(fitted(facts.error, room.width), "bold red"))
    return [*lines, Text()]


# ---------------------------------------------------------------------- domains


def _domains(facts: LiveFacts, room: Room, kind: Kind, scale: float, most: int) -> list[Text]:
    if not facts.m or not (len(facts.p) or facts.rounds):
        return [Text("no round yet", DIM), Text()]
    known = facts.p[-1] if len(facts.p) else np.full(facts.m, np.nan)  # nobody told them
    longest = max(map(cell_len, facts.names)) + (5 if facts.m > most else 1)
    label = min(longest, max(12, min(28, room.width // 4)))
    wide = max(8, min(30, room.width // 5))
    cells_room = room.width - label - wide - 15
    matrix = facts.gram is not None and cells_room >= 2
    if not matrix:
        label = min(longest, room.width // 2)
        wide = max(8, min(40, room.width - label - 15))
    groups = np.array_split(facts.order, min(facts.m, most, cells_room if matrix else most))
    G = _blocks(values(facts.gram, kind), groups) if matrix and facts.gram is not None else None
    each = 2 if 2 * len(groups) <= cells_room else 1
    p = _sums(known, groups)
    q = None if facts.q is None else _sums(facts.q, groups)
    top = max(float(np.nan_to_num(p).max()), float(q.max()) if q is not None else 0.0) or 1.0
    lines = [_columns(label, wide, each * len(groups) if matrix else 0, q is not None)]
    for row, group in enumerate(groups):
        line = Text(fitted(_group_name(facts, known, group), label - 1) + " ")
        if G is not None:
            for column, value in enumerate(G[row]):
                line.append_text(cell(value, scale, row == column, each, room.colour))
            line.append(" ")
        drawn = float(np.nan_to_num(p[row] / top))
        line.append_text(marked_bar(drawn, None if q is None else q[row] / top, wide))
        line.append(f" {100 * p[row]:5.1f}" if np.isfinite(p[row]) else f" {UNKNOWN:>5}")
        if q is not None:
            line.append(f" {100 * q[row]:5.1f}", DIM)
        lines.append(line)
    if matrix:
        what = "cosine" if kind == "cosine" else "inner product"
        diagonal = diagonal_mark(each)
        said = f"{what}, round {facts.rounds:,}; {diagonal} the diagonal"
        lines.append(_legend(said, scale, room))
    elif facts.gram is None:
        lines.append(Text("no Gram matrix recorded", DIM))
    return [*lines, Text()]


def _columns(label: int, wide: int, cells: int, target: bool) -> Text:
    """Write the line above the domains."""
    said = fitted("domain", label - 1) + " "
    said += fitted("Gram matrix" if cells >= 11 else "G", cells) + " " if cells else ""
    said += fitted(("p, and q at │" if wide >= 13 else "p, q │") if target else "p", wide)
    return Text(f"{said}   p %" + ("   q %" if target else ""), DIM)


def _group_name(facts: LiveFacts, p: Array, group: NDArray[np.int64]) -> str:
    largest = int(group[np.argmax(p[group])])
    more = f"+{len(group) - 1} " if len(group) > 1 else ""
    return more + facts.names[largest]


def _sums(shares: Array, groups: list[NDArray[np.int64]]) -> Array:
    return np.array([shares[group].sum() for group in groups])


def _blocks(G: Array, groups: list[NDArray[np.int64]]) -> Array:
    """Mean of the known cells of each block, without the diagonal of G where groups have more."""
    order = np.concatenate(groups)
    G = np.array(G[np.ix_(order, order)])
    if len(groups) == len(order):
        return G
    np.fill_diagonal(G, np.nan)
    starts = np.cumsum([0, *map(len, groups[:-1])])
    known = np.isfinite(G)
    total, count = (
        np.add.reduceat(np.add.reduceat(of, starts, axis=0), starts, axis=1)
        for of in (np.where(known, G, 0.0), known.astype(np.float64))
    )
    mean: Array = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


def _legend(what: str, scale: float, room: Room) -> Text:
    ends = f"{scale:.2g}"
    line = Text(f"−{ends} ")
    for share in (-1.0, -0.3, 0.0, 0.3, 1.0):
        line.append_text(cell(share, 1.0, False, 2, room.colour))
    line.append(f" +{ends}  {what}"[: room.width - len(line)], DIM)
    return line


# ----------------------------------------------------------------------- losses


def _losses(facts: LiveFacts, room: Room) -> list[Text]:
    curves = (facts.train, facts.evaluation, facts.worst)
    known = [_known(curve) for curve in curves]
    if not any(len(curve.steps) for curve in known):
        return [Text("no loss recorded yet", DIM), Text()]
    every = np.concatenate([curve.values for curve in known])
    low, high = float(every.min()), float(every.max())
    last = max(float(curve.steps[-1]) for curve in known if len(curve.steps))
    wide = max(8, min(60, room.width - 42))
    lines = [Text(f"loss, nats per token, {number(low, 2)} to {number(high, 2)}", DIM)]
    for (name, colour), curve in zip(_LOSSES, known, strict=True):
        if not len(curve.steps):
            continue
        line = Text.assemble(f"{name:<6}", (spark(curve, last, low, high, wide), colour))
        line.append(f" {number(float(curve.values[-1]))}", _BOLD)
        if name == "worst" and facts.worst_name and room.width > len(line) + 9:
            wide_name = room.width - cell_len(line.plain) - 1
            line.append(f" {fitted(facts.worst_name, wide_name).rstrip()}")
        lines.append(line)
    return [*lines, Text()]


def _known(curve: Series) -> Series:
    known = np.isfinite(curve.values)
    return Series(curve.steps[known], curve.values[known])


# ---------------------------------------------------------------------- numbers


def _numbers(facts: LiveFacts, room: Room) -> list[Text]:
    told = [_told(line) for line in numbers(facts) if line.what not in _WITH_CURVES]
    half = (len(told) + 1) // 2
    left, right = told[:half], told[half:]
    wide = max(len(line) for line in left) + 3
    if wide + max(len(line) for line in right) > room.width:
        lines = told
    else:
        lines = [Text.assemble(a, " " * (wide - len(a)), b)
                 for a, b in zip_longest(left, right, fillvalue=Text())]  # fmt: skip
    for line in lines:
        line.truncate(room.width, overflow="ellipsis")
    return lines


def _told(line: Told) -> Text:
    known = line.value != UNKNOWN
    return Text.assemble((f"{line.what} ", DIM), (line.value, _BOLD if known else ""),
                         (f" {line.beside}" if line.beside else "", DIM))  # fmt: skip
