"""What the launcher shows: a live table in a terminal, a line for each ended run elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rbkit.errors import InputError
from rbkit.files import read_json
from rbkit.report.sweep.plain import plain
from rbkit.report.sweep.short import shorten


@dataclass
class Board:
    """Progress of a sweep on stderr.

    Parameters
    ----------
    total : int
        Runs of the sweep.
    done : int
        Those that were done before.
    at_once : int
        Runs at the same time.
    shown : bool
    """

    total: int
    done: int
    at_once: int
    shown: bool
    counts: Counter[str] = field(default_factory=Counter)
    _seconds: list[float] = field(default_factory=list)
    _running: dict[str, tuple[Path, float]] = field(default_factory=dict)
    _live: Any = None
    _due: float = 0.0
    _width: int = 0

    def __enter__(self) -> Board:
        self._width = len(str(self.total))
        if self.shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def ended(self, id: str, status: str, seconds: float, error: str | None) -> None:
        """Take note of a run that has ended."""
        self.counts[status] += 1
        self._seconds.append(seconds)
        if not self.shown:
            return
        so_far = self.done + sum(self.counts.values())
        why = f"  {plain(shorten(error))}" if error else ""
        line = f"[{so_far:>{self._width}}/{self.total}] {id}  {status}  {seconds:.1f} s{why}"
        self._running.pop(id, None)
        if self._live is not None:
            self._live.update(self._table())
            self._live.console.print(line, markup=False, highlight=False, overflow="ellipsis")
            return
        try:
            print(line, file=sys.stderr, flush=True)
        except OSError:  # nobody reads any more: no reason to stop the runs
            self.shown = False

    def again(self, status: str) -> None:
        """Take note that a run which ended with `status` is to be tried again."""
        self.counts[status] -= 1

    def update(self, running: dict[str, tuple[Path, float]]) -> None:
        """Show the runs in progress: id -> (run folder, seconds so far); twice a second."""
        if self._live is None or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + 0.5
        self._running = running
        self._live.update(self._table(), refresh=True)

    def _table(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for id, (run_dir, seconds) in sorted(self._running.items()):
            table.add_row(Text(f"  {id}"), Text(f"{seconds:.0f} s"), Text(progress_of(run_dir)))
        so_far = [seconds for _, seconds in self._running.values()]
        return Group(Text(self.headline(so_far), style="bold"), table)

    def headline(self, running: Sequence[float]) -> str:
        """Say in one line how the sweep stands; `running` has the seconds of runs in progress.

        Examples
        --------
        >>> board = Board(total=10, done=4, at_once=2, shown=False)
        >>> board.ended("a", "ok", 60.0, None); board.ended("b", "failed", 60.0, "ValueError")
        >>> board.headline([30.0, 30.0])
        '5 ok, 1 failed, 2 running of 10, about 90 s to go'
        """
        ok = self.done + self.counts["ok"]
        bad = [f"{n} {status}" for status, n in sorted(self.counts.items()) if status != "ok" and n]
        left = self.total - self.done - sum(self.counts.values())
        said = ", ".join([f"{ok} ok", *bad, f"{len(running)} running of {self.total}"])
        if not self._seconds or not left:
            return said
        usual = sum(self._seconds) / len(self._seconds)
        work = usual * left - sum(min(seconds, usual) for seconds in running)
        return f"{said}, about {_duration(work / self.at_once)} to go"


def progress_of(run_dir: Path) -> str:
    """Say how far a run is by its own record: steps and loss; empty if it keeps none."""
    try:
        info = read_json(run_dir / "run.json")
        if info["status"] != "running":
            return ""
        progress = info["progress"]
        step, steps, loss = progress["step"], progress["steps"], progress["loss"]
    except (OSError, InputError, KeyError, TypeError):
        return ""
    said = f"step {step}/{steps}" if steps else f"step {step}"
    return plain(shorten(f"{said}  loss {loss:.3f}" if isinstance(loss, float) else said, 80))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
