"""``rbkit watch RUN``: follow a run folder in a terminal until the run ends."""

from __future__ import annotations

import io
import sys
import time
from contextlib import suppress
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
from rbkit.show.gram_layout import Kind, blocks, values
from rbkit.show.live.snapshot import Scale, Series, Snapshot, numbers, snapshot
from rbkit.text import UNKNOWN, number
from rbkit.train.run import Run

LEFT = 130  # exit code if the view was left while the run continues, as shells have it
_BAR, _DIM, _BOLD, _ALARM = "#3B8EC2", "dim", "bold", "bold white on #B3261E"
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_HEIGHTS = "▁▂▃▄▅▆▇█"
_SIGNS = "=-·+#"  # from strong conflict to strong agreement, where there are no colours
# What files of a stranger, or half of a file, may cause.
_NONSENSE = (ArithmeticError, AttributeError, InputError, LookupError, TypeError, ValueError)
_ON_ONE_LINE = (
    "training loss",
    "eval loss",
    "effective domains",
    "tokens per second",
    "examples per second",
    "price of adapting",
)


@dataclass(frozen=True)
class Room:
    """Room for the view: columns, lines (None: as many as it takes), and whether in colour."""

    width: int
    height: int | None = None
    colour: bool = True


def watch(run_dir: str | Path, *, raw: bool = False, once: bool = False) -> int:
    """Show a run in the terminal, and follow it until it ends.

    Where the output is not a terminal, a line of text every ten seconds. Ctrl-C leaves the
    view; the run continues.

    Parameters
    ----------
    run_dir : path
        Folder of a run, in training or not. If it does not exist yet, the view waits for it,
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
    if isinstance(sys.stdout, io.TextIOWrapper) and "utf" not in sys.stdout.encoding.lower():
        sys.stdout.reconfigure(errors="replace")  # blocks as "?" rather than no view at all
    # Names come from a corpus: no markup, no emoji codes, no guessing which text is a number.
    console = Console(markup=False, emoji=False, highlight=False)
    return TerminalView(run_dir, console, raw=raw).follow(once=once)


class TerminalView:
    """A run folder on a console.

    It waits `patience` seconds for a folder that is not there, reads the folder every `every`
    seconds, and writes a line every `line_every` seconds where the console is not a terminal.
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
            self._wait_for_run(0.0 if once else self.patience)
            if not once and self._unfinished:
                if self.console.is_terminal:
                    self._follow_live()
                else:
                    self._follow_in_lines()
        except KeyboardInterrupt:
            self.console.print("Left the view; the run continues.")
            return LEFT
        self.console.print(self._drawn(), no_wrap=True, overflow="ellipsis", crop=True)
        return 0 if self.run.status == "ok" or (once and self._unfinished) else 1

    @property
    def _unfinished(self) -> bool:
        return self.run.status in ("waiting", "running")

    def _wait_for_run(self, patience: float) -> None:
        until = time.monotonic() + patience
        self.run.refresh()
        if self.run.info:
            return
        where = str(self.run.path)
        if patience:
            self.console.print(Text(f"waiting for a run in {where!r} ..."))
        while not self.run.info:
            if time.monotonic() >= until:
                remedy = "give the folder of a run, one with a run.json"
                raise InputError(where, "no run there", remedy)
            time.sleep(min(self.every, 0.2))
            self.run.refresh()

    def _follow_live(self) -> None:
        # Transient: what stays is the last state, drawn as high as it likes.
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            new, size = True, self.console.size
            while self._unfinished:
                if new or self.console.size != size:
                    size = self.console.size
                    live.update(self._drawn(size.height), refresh=True)
                time.sleep(self.every)
                new = self.run.refresh()

    def _follow_in_lines(self) -> None:
        due = 0.0
        while self._unfinished:
            if time.monotonic() >= due:
                self.console.print(Text(one_line_of(self._snapshot())), soft_wrap=True)
                due = time.monotonic() + self.line_every
            time.sleep(self.every)
            self.run.refresh()

    def _drawn(self, height: int | None = None) -> Group:
        # Sixteen colours cannot tell weak from strong: signs can.
        colour = self.console.color_system in ("256", "truecolor") and not self.console.no_color
        room = Room(max(40, self.console.width), height, colour)
        try:
            return draw(self._snapshot(), room, self.kind, self.scale.follow(self.run.history))
        except _NONSENSE:
            return draw(self._snapshot(numbers=False), room, self.kind)

    def _snapshot(self, numbers: bool = True) -> Snapshot:
        """Read the run; of files that make no sense, what is left without their numbers."""
        if numbers:
            with suppress(*_NONSENSE):
                return snapshot(self.run)
        info = {"parameters": {}, "status": self.run.status, "error": "its files are damaged"}
        bare = self.run.with_(info=info, history={}, metrics=[], status=self.run.status)
        return snapshot(bare.with_(timings=[], domains=None, name=self.run.path.name))


def draw(snap: Snapshot, room: Room, kind: Kind = "cosine", scale: float = 1.0) -> Group:
    """Draw a run as lines of text; colours go from -`scale` to `scale`.

    Domains are rows, in the order of similarity: the name, the row of the Gram matrix, and a bar
    of the proportion in force with a mark at the target. Nothing depends on colour alone. What
    does not fit is put together (domains) or left out (columns), never wrapped.
    """
    head = _head(snap, room)
    below = [*_losses(snap, room), *_numbers(snap, room)]
    most = 40 if room.height is None else max(2, room.height - len(head) - len(below) - 4)
    return Group(*head, *_domains(snap, room, kind, scale, most), *below)


def one_line_of(snap: Snapshot) -> str:
    """Describe in one line where a run is."""
    texts = {row.name: row.value for row in numbers(snap) if row.value != UNKNOWN}
    parts = [f"{name} {texts[name]}" for name in _ON_ONE_LINE if name in texts]
    return "  ".join([snap.status_text, snap.progress_text, *parts])


def _head(snap: Snapshot, room: Room) -> list[Text]:
    status, progress = f" {snap.status_text} ", snap.progress_text
    name = fitted(snap.name, max(4, min(cell_len(snap.name), room.width - len(status) - 2)))
    look = _ALARM if snap.ended_badly else _BOLD
    lines = [Text.assemble((name, _BOLD), " ", (status, look)), Text(progress)]
    if snap.steps and (wide := min(60, room.width - len(progress) - 8)) >= 8:
        share = min(1.0, snap.step / snap.steps)
        lines[1] = Text.assemble((bar(share, wide), _BAR), f" {share:4.0%}  {progress}")
    if snap.error:
        lines.append(Text(fitted(snap.error, room.width), "bold red"))
    return [*lines, Text()]


# ------------------------------------------------------------------------------------ domains


def _domains(snap: Snapshot, room: Room, kind: Kind, scale: float, most: int) -> list[Text]:
    if not snap.m or not (len(snap.p) or snap.rounds):
        return [Text("no round yet", _DIM), Text()]
    now = snap.p[-1] if len(snap.p) else np.full(snap.m, np.nan)
    longest = max(map(cell_len, snap.names)) + (5 if snap.m > most else 1)
    label = min(longest, max(12, min(28, room.width // 4)))
    wide = max(8, min(30, room.width // 5))
    cells_room = room.width - label - wide - 15
    matrix = snap.gram is not None and cells_room >= 2
    if not matrix:
        label = min(longest, room.width // 2)
        wide = max(8, min(40, room.width - label - 15))
    groups = np.array_split(snap.order, min(snap.m, most, cells_room if matrix else most))
    G = blocks(values(snap.gram, kind), groups) if matrix and snap.gram is not None else None
    each = 2 if 2 * len(groups) <= cells_room else 1
    p = _sums(now, groups)
    q = None if snap.q is None else _sums(snap.q, groups)
    top = max(float(np.nan_to_num(p).max()), float(q.max()) if q is not None else 0.0) or 1.0
    lines = [_heads(label, wide, each * len(groups) if matrix else 0, q is not None)]
    for row, group in enumerate(groups):
        name = snap.names[int(group[np.argmax(now[group])])]  # of the largest domain
        name = f"+{len(group) - 1} {name}" if len(group) > 1 else name
        line = Text(fitted(name, label - 1) + " ")
        if G is not None:
            for column, value in enumerate(G[row]):
                line.append_text(cell(value, scale, row == column, each, room.colour))
            line.append(" ")
        share = float(np.nan_to_num(p[row] / top))
        line.append_text(marked_bar(share, None if q is None else q[row] / top, wide))
        line.append(f" {100 * p[row]:5.1f}" if np.isfinite(p[row]) else f" {UNKNOWN:>5}")
        if q is not None:
            line.append(f" {100 * q[row]:5.1f}", _DIM)
        lines.append(line)
    if matrix:
        what = "cosine" if kind == "cosine" else "inner product"
        lines.append(_legend(f"{what}, round {snap.rounds:,}", scale, each, room))
    elif snap.gram is None:
        lines.append(Text("no Gram matrix recorded", _DIM))
    return [*lines, Text()]


def _heads(label: int, wide: int, cells: int, target: bool) -> Text:
    """Write the line above the domains."""
    line = fitted("domain", label - 1) + " "
    line += fitted("Gram matrix" if cells >= 11 else "G", cells) + " " if cells else ""
    line += fitted(("p, and q at │" if wide >= 13 else "p, q │") if target else "p", wide)
    return Text(f"{line}   p %" + ("   q %" if target else ""), _DIM)


def _sums(shares: Array, groups: list[NDArray[np.int64]]) -> Array:
    return np.array([shares[group].sum() for group in groups])


def _legend(what: str, scale: float, each: int, room: Room) -> Text:
    ends = f"{scale:.2g}"
    line = Text(f"−{ends} ")
    for share in (-1.0, -0.3, 0.0, 0.3, 1.0):
        line.append_text(cell(share, 1.0, False, 2, room.colour))
    text = f" +{ends}  {what}; {_diagonal(each)} the diagonal"
    line.append(text[: room.width - len(line)], _DIM)
    return line


def cell(value: float, scale: float, diagonal: bool, wide: int, colour: bool) -> Text:
    """Draw a cell of the Gram matrix: in a colour, or by a sign where there are none."""
    if not np.isfinite(value):
        return Text("░" * wide, _DIM)
    share = float(np.clip(value / scale, -1, 1))
    if not colour:
        strength = 0 if abs(share) < 0.1 else 1 if abs(share) < 0.5 else 2
        sign = _SIGNS[2 + (strength if share > 0 else -strength)]
        return Text(_diagonal(wide) if diagonal else sign * wide)
    red, green, blue = (255 * c for c in matplotlib.colormaps["RdBu_r"]((share + 1) / 2)[:3])
    ink = "white" if abs(share) > 0.6 else "black"
    style = Style(color=ink, bgcolor=Color.from_rgb(red, green, blue))
    return Text(_diagonal(wide) if diagonal else " " * wide, style)


def _diagonal(wide: int) -> str:
    """Mark of the diagonal, which is another quantity than its neighbours."""
    return "[]" if wide == 2 else "\\"


def marked_bar(share: float, target: float | None, wide: int) -> Text:
    """Bar of `share` with a line at `target`, both in [0, 1]."""
    line = Text(bar(share, wide), _BAR)
    if target is None:
        return line
    at = min(wide - 1, int(target * wide))
    inside = share * wide >= at + 1
    mark = Style(bgcolor=_BAR, color="black", bold=True) if inside else Style(bold=True)
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


# -------------------------------------------------------------------------- losses and numbers


def _losses(snap: Snapshot, room: Room) -> list[Text]:
    curves = [
        ("train", "", snap.train.finite()),
        ("eval", _BAR, snap.evaluation.finite()),
        ("worst", "#D55E00", snap.worst.finite()),
    ]
    curves = [(name, colour, curve) for name, colour, curve in curves if len(curve.steps)]
    if not curves:
        return [Text("no loss recorded yet", _DIM), Text()]
    every = np.concatenate([curve.values for _, _, curve in curves])
    low, high = float(every.min()), float(every.max())
    last = max(float(curve.steps[-1]) for _, _, curve in curves)
    wide = max(8, min(60, room.width - 42))
    lines = [Text(f"loss, {snap.loss_unit}, {number(low, 2)} to {number(high, 2)}", _DIM)]
    for name, colour, curve in curves:
        line = Text.assemble(f"{name:<6}", (spark(curve, last, low, high, wide), colour))
        line.append(f" {number(curve.last)}", _BOLD)
        if name == "worst" and snap.worst_name and room.width > len(line) + 9:
            rest = room.width - cell_len(line.plain) - 1
            line.append(f" {fitted(snap.worst_name, rest).rstrip()}")
        lines.append(line)
    return [*lines, Text()]


def spark(curve: Series, last: float, low: float, high: float, wide: int) -> str:
    """Draw a curve from step 0 to `last` as `wide` blocks whose heights go from low to high.

    Examples
    --------
    >>> spark(Series(np.array([0.0, 10.0]), np.array([8.0, 1.0])), 10, 1, 8, 8)
    '█▇▆▅▄▃▂▁'
    """
    at = np.linspace(0.0, last, wide)
    begun = at >= curve.steps[0] - last / wide  # a curve that begins late is not drawn earlier
    share = (np.interp(at, curve.steps, curve.values) - low) / ((high - low) or 1.0)
    height = np.rint(7 * np.clip(share, 0, 1)).astype(int)
    return "".join(_HEIGHTS[i] if b else " " for i, b in zip(height, begun, strict=True))


def _numbers(snap: Snapshot, room: Room) -> list[Text]:
    cells = [
        Text.assemble(
            (f"{name} ", _DIM),
            (value, "" if value == UNKNOWN else _BOLD),
            (f" {note}" if note else "", _DIM),
        )
        for name, value, note in numbers(snap)
        if name not in ("eval loss", "worst domain", "training loss")  # with the curves
    ]
    half = (len(cells) + 1) // 2
    left, right = cells[:half], cells[half:]
    wide = max(map(len, left)) + 3
    if wide + max(map(len, right)) <= room.width:
        cells = [
            Text.assemble(a, " " * (wide - len(a)), b)
            for a, b in zip_longest(left, right, fillvalue=Text())
        ]
    for line in cells:
        line.truncate(room.width, overflow="ellipsis")
    return cells
