"""``rbkit watch RUN``: follow a run folder in a terminal until the run ends."""

from __future__ import annotations

import io
import sys
import time
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len, set_cell_size
from rich.color import Color
from rich.console import Console, Group
from rich.live import Live
from rich.style import Style
from rich.text import Text

from rbkit.errors import InputError
from rbkit.show.facts import Array
from rbkit.show.live.facts import (
    UNKNOWN,
    LiveFacts,
    Series,
    Told,
    live_facts,
    numbers,
    printable,
    progress_said,
    status_said,
    went_wrong,
)
from rbkit.show.live.frame import Kind, Scale, values
from rbkit.text import number
from rbkit.train.run import Run

DIM, BAR = "dim", "#3B8EC2"
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"
_SIGNS = "=-·+#"  # from strong conflict to strong agreement, where there are no colours


def cell(value: float, scale: float, diagonal: bool, wide: int, colour: bool) -> Text:
    """Draw a cell of the Gram matrix: in a colour, or by a sign where there are none."""
    if not np.isfinite(value):
        return Text("░" * wide, DIM)
    share = float(np.clip(value / scale, -1, 1))
    if not colour:
        strength = 0 if abs(share) < 0.1 else 1 if abs(share) < 0.5 else 2
        sign = _SIGNS[2 + (strength if share > 0 else -strength)]
        return Text(diagonal_mark(wide) if diagonal else sign * wide)
    mark = diagonal_mark(wide) if diagonal else " " * wide
    ink = "white" if abs(share) > 0.6 else "black"
    return Text(mark, Style(color=ink, bgcolor=_colour(share)))


def diagonal_mark(wide: int) -> str:
    """Mark of the diagonal, which is another quantity than its neighbours."""
    return "[]" if wide == 2 else "\\"


def _colour(share: float) -> Color:
    red, green, blue = (255 * c for c in matplotlib.colormaps["RdBu_r"]((share + 1) / 2)[:3])
    return Color.from_rgb(red, green, blue)


def marked_bar(share: float, target: float | None, wide: int) -> Text:
    """Bar of `share` with a line at `target`, both in [0, 1]."""
    line = Text(bar(share, wide), BAR)
    if target is None:
        return line
    at = min(wide - 1, int(target * wide))
    inside = share * wide >= at + 1
    mark = Style(bgcolor=BAR, color="black", bold=True) if inside else Style(bold=True)
    return Text.assemble(line[:at], ("│", mark), line[at + 1 :])


def bar(share: float, wide: int) -> str:
    """Bar of `share` in [0, 1], to an eighth of a character.

    Examples
    --------
    >>> bar(0.4, 8)
    '███▎    '
    """
    eighths = round(8 * wide * min(1.0, max(0.0, share)))
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[rest] if rest else "")).ljust(wide)


def spark(curve: Series, last: float, low: float, high: float, wide: int) -> str:
    """Draw a curve from step 0 to `last` as `wide` blocks whose heights go from low to high.

    Examples
    --------
    >>> spark(Series(np.array([0.0, 10.0]), np.array([8.0, 1.0])), 10, 1, 8, 8)
    '█▇▆▅▄▃▂▁'
    """
    at = np.linspace(0.0, last, wide)
    shown = at >= curve.steps[0] - last / wide  # a curve that begins late is not drawn earlier
    share = (np.interp(at, curve.steps, curve.values) - low) / ((high - low) or 1.0)
    level = np.rint(7 * np.clip(share, 0, 1)).astype(int)
    return "".join(_LEVELS[i] if s else " " for i, s in zip(level, shown, strict=True))


def fitted(text: str, wide: int) -> str:
    """Cut or pad `text` to `wide` columns of a terminal.

    Examples
    --------
    >>> fitted("日本語", 5), fitted("code", 5)
    ('日本…', 'code ')
    """
    if cell_len(text) > wide > 0:
        return set_cell_size(set_cell_size(text, wide - 1).rstrip() + "…", wide)
    return set_cell_size(text, wide)


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
        lines = [
            Text.assemble(a, " " * (wide - len(a)), b)
            for a, b in zip_longest(left, right, fillvalue=Text())
        ]
    for line in lines:
        line.truncate(room.width, overflow="ellipsis")
    return lines


def _told(line: Told) -> Text:
    known = line.value != UNKNOWN
    return Text.assemble(
        (f"{line.what} ", DIM),
        (line.value, _BOLD if known else ""),
        (f" {line.beside}" if line.beside else "", DIM),
    )


LEFT = 130  # exit code of somebody who left a run that goes on, as shells have it


def watch(run_dir: str | Path, *, raw: bool = False, once: bool = False) -> int:
    """Show a run in the terminal, and follow it until it ends.

    Where the output is no terminal, a line of text every ten seconds. Ctrl-C leaves the
    view; the run goes on.

    Parameters
    ----------
    run_dir : path
        Folder of a run, in training or not. One that is about to appear is waited for,
        half a minute.
    raw : bool
        Inner products of the domain gradients in place of cosines.
    once : bool
        Show the run as it is now, and leave.

    Returns
    -------
    int
        Exit code: 0 if the run ended well (with `once`: if nothing went wrong so far), 1 if it
        failed, was killed or interrupted, 130 if the view was left while it was running.

    Raises
    ------
    InputError
        If there is no run.
    """
    # Names come from a corpus: no markup, no emoji codes, no guessing what is a number.
    if isinstance(sys.stdout, io.TextIOWrapper) and "utf" not in sys.stdout.encoding.lower():
        sys.stdout.reconfigure(errors="replace")  # blocks as "?" rather than no view at all
    console = Console(markup=False, emoji=False, highlight=False)
    return View(run_dir, console, raw=raw).follow(once=once)


class View:
    """A run folder on a console.

    Parameters
    ----------
    run_dir : path
    console : rich.console.Console
    raw : bool
    patience : float
        Seconds to wait for a folder that is not there.
    every : float
        Seconds between two looks at the folder.
    line_every : float
        Seconds between two lines where the console is no terminal.
    """

    def __init__(
        self,
        run_dir: str | Path,
        console: Console,
        *,
        raw: bool = False,
        patience: float = 30.0,
        every: float = 0.5,
        line_every: float = 10.0,
    ) -> None:
        self.run, self.console = Run.follow(run_dir), console
        self.kind: Kind = "raw" if raw else "cosine"
        self.scale = Scale(self.kind)
        self.patience, self.every, self.line_every = patience, every, line_every

    def follow(self, *, once: bool = False) -> int:
        """Show the run, until it ends if not `once`; return the exit code."""
        try:
            self._wait_for_it(0.0 if once else self.patience)
            if not once and self._going_on:
                if self.console.is_terminal:
                    self._follow_live()
                else:
                    self._follow_in_lines()
        except KeyboardInterrupt:
            self.console.print("Left the view; the run goes on.")
            return LEFT
        self.console.print(self._drawn(), no_wrap=True, overflow="ellipsis", crop=True)
        return 0 if self.run.status == "ok" or (once and self._going_on) else 1

    @property
    def _going_on(self) -> bool:
        return self.run.status in ("waiting", "running")

    def _wait_for_it(self, patience: float) -> None:
        until = time.monotonic() + patience
        self.run.refresh()
        if self.run.info:
            return
        where = str(self.run.path)
        if patience:
            self.console.print(Text(f"waiting for a run in {where!r} ..."))
        while not self.run.info:
            if time.monotonic() >= until:
                raise InputError(
                    where, "no run there", "give the folder of a run, one with a run.json"
                )
            time.sleep(min(self.every, 0.2))
            self.run.refresh()

    def _follow_live(self) -> None:
        # Transient: what stays is the last state, drawn as high as it likes.
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            new, size = True, self.console.size
            while self._going_on:
                if new or self.console.size != size:
                    size = self.console.size
                    live.update(self._drawn(size.height), refresh=True)
                time.sleep(self.every)
                new = self.run.refresh()

    def _follow_in_lines(self) -> None:
        due = 0.0
        while self._going_on:
            if time.monotonic() >= due:
                self.console.print(Text(_line(self._facts())), soft_wrap=True)
                due = time.monotonic() + self.line_every
            time.sleep(self.every)
            self.run.refresh()

    def _facts(self) -> LiveFacts:
        return printable(live_facts(self.run))

    def _drawn(self, height: int | None = None) -> Group:
        # Sixteen colours cannot tell weak from strong: signs can.
        colour = self.console.color_system in ("256", "truecolor") and not self.console.no_color
        room = Room(max(40, self.console.width), height, colour)
        return view(self._facts(), room, self.kind, self.scale.follow(self.run.history))


def _line(facts: LiveFacts) -> str:
    """Say where a run is in one line."""
    told = {line.what: line.value for line in numbers(facts) if line.value != UNKNOWN}
    said = [status_said(facts), progress_said(facts)]
    wanted = (
        "training loss",
        "eval loss",
        "effective domains",
        "tokens per second",
        "price of adapting",
    )
    return "  ".join([*said, *(f"{what} {told[what]}" for what in wanted if what in told)])
