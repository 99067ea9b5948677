"""``rbkit watch RUN``: follow a run folder in a terminal until the run ends."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from rbkit.errors import InputError
from rbkit.show.live.facts import LiveFacts, live_facts
from rbkit.show.live.scale import Kind, Scale
from rbkit.show.live.told import UNKNOWN, numbers, printable, progress_said, status_said
from rbkit.show.terminal_view import Room, view
from rbkit.train.follow import Follower

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
        self, run_dir: str | Path, console: Console, *, raw: bool = False,
        patience: float = 30.0, every: float = 0.5, line_every: float = 10.0,
    ) -> None:  # fmt: skip
        self.run, self.console = Follower(run_dir), console
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
        self.run.look()
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
            self.run.look()

    def _follow_live(self) -> None:
        # Transient: what stays is the last state, drawn as high as it likes.
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            new, size = True, self.console.size
            while self._going_on:
                if new or self.console.size != size:
                    size = self.console.size
                    live.update(self._drawn(size.height), refresh=True)
                time.sleep(self.every)
                new = self.run.look()

    def _follow_in_lines(self) -> None:
        due = 0.0
        while self._going_on:
            if time.monotonic() >= due:
                self.console.print(Text(_line(self._facts())), soft_wrap=True)
                due = time.monotonic() + self.line_every
            time.sleep(self.every)
            self.run.look()

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
    wanted = ("training loss", "eval loss", "effective domains", "tokens per second",
              "price of adapting")  # fmt: skip
    return "  ".join([*said, *(f"{what} {told[what]}" for what in wanted if what in told)])
