"""``rbkit status``: how a sweep stands, read from its files, also while it runs."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rbkit.errors import InputError
from rbkit.files import read_json
from rbkit.report.sweep.folder import (
    STATUSES,
    job_status,
    launcher_of,
    read_job,
    read_sweep,
    seconds_since,
    ways_on,
)
from rbkit.text import one_line

_STYLES = {
    "ok": "green",
    "running": "cyan",
    "queued": "dim",
    "failed": "red",
    "killed": "red",
    "timeout": "red",
    "damaged": "red",
    "interrupted": "yellow",
}


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], file: TextIO) -> None:
    """Print rows of text; columns that are empty everywhere are left out.

    A terminal gets a table as wide as it is, long cells cut short; a pipe or a file gets
    every line whole, so that ``grep`` finds what is there.

    Examples
    --------
    >>> import sys
    >>> print_table(["run", "gpu", "status"], [["a", "", "ok"], ["bc", "", "failed"]], sys.stdout)
    run  status
    a    ok
    bc   failed
    """
    if file.isatty():
        from rich.console import Console

        Console(file=file, highlight=False).print(rich_table(header, rows))
        return
    lines = _without_empty([list(header), *([one_line(cell) for cell in row] for row in rows)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        said = "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        print(said.rstrip(), file=file)


def rich_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """Return a rich table; cells are text, whatever markup they seem to hold."""
    from rich.table import Table
    from rich.text import Text

    lines = _without_empty([list(header), *([one_line(cell) for cell in row] for row in rows)])
    table = Table(box=None, pad_edge=False)
    for at, name in enumerate(lines[0]):
        # Where it is tight, names and errors give way, and numbers do not.
        width = max(len(line[at]) for line in lines)
        table.add_column(name, no_wrap=True, overflow="ellipsis", min_width=min(width, 16))
    for line in lines[1:]:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in line))
    return table


def _without_empty(lines: list[list[str]]) -> list[list[str]]:
    kept = [at for at in range(len(lines[0])) if any(line[at] for line in lines[1:])]
    return [[line[at] for at in kept or range(len(lines[0]))] for line in lines]


_HEADER = ("run", "status", "step", "loss", "time", "attempts", "gpu", "error")
_ORDER = ("running", "failed", "killed", "timeout", "interrupted", "damaged", "queued", "ok")
_EVERY = 2.0  # seconds between two looks


@dataclass(frozen=True)
class Standing:
    """How a sweep stands.

    Attributes
    ----------
    template : str
    statuses : dict of str to str
        By id, in the order of the sweep.
    rows : list of tuple of str
        What the table shows, those that run first.
    launcher : str or None
        Who works on it.
    commands : tuple of str
        Go on with what is not ok.
    """

    template: str
    statuses: dict[str, str]
    rows: list[tuple[str, ...]]
    launcher: str | None
    commands: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of runs by status."""
        found = Counter(self.statuses.values())
        return {status: found[status] for status in ("ok", *_ORDER[:-1]) if found[status]}

    @property
    def exit_code(self) -> int:
        """0: all ok; 3: it goes on; 1: some are not ok, and nobody works on them."""
        counts = self.counts
        if set(counts) <= {"ok"}:
            return 0
        return 3 if "running" in counts or ("queued" in counts and self.launcher) else 1

    @property
    def headline(self) -> str:
        """One line, such as ``90_run: 30 runs: 12 ok, 2 running, 16 queued (process 12)``."""
        said = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        who = f" ({self.launcher})" if self.launcher else ""
        number = len(self.statuses)
        return one_line(
            f"{self.template}: {number} run{'s' * (number != 1)}: {said or 'none'}{who}"
        )

    @property
    def advice(self) -> str:
        """What to do about a sweep that has stopped; empty if there is nothing to do."""
        if self.exit_code != 1:
            return ""
        left = len(self.statuses) - self.counts.get("ok", 0)
        they = "run is" if left == 1 else "runs are"
        said = f"Nobody works on it; {left} {they} not ok. Go on with:"
        if len(self.commands) == 1:
            return one_line(f"{said} {self.commands[0]}")
        return "\n  ".join(map(one_line, (said, *self.commands)))


def standing(out: str | Path) -> Standing:
    """Read how the sweep in the folder `out` stands.

    Raises
    ------
    InputError
        There is no sweep, or its ``sweep.json`` is damaged.
    """
    out = Path(out)
    info = read_sweep(out)
    found = {id: _row(out / "runs" / id, id) for id in info["jobs"]}
    rows = sorted(found.values(), key=lambda row: _ORDER.index(row[1]))  # stable: order of the grid
    statuses = {id: row[1] for id, row in found.items()}
    return Standing(
        Path(info["template"]).stem,
        statuses,
        rows,
        launcher_of(out, info),
        tuple(ways_on(info, statuses)),
    )


def print_status(out: str | Path, watch: bool = False) -> int:
    """Print how a sweep stands; with `watch`, until nothing runs any more or Ctrl-C.

    Returns
    -------
    int
        0: all runs are ok; 1: some are not, and nothing runs; 3: it still runs.

    Raises
    ------
    InputError
        There is no sweep, or its ``sweep.json`` is damaged.
    """
    now = standing(out)
    if watch and now.exit_code == 3:
        try:
            now = _follow(out, now)
        except KeyboardInterrupt:
            now = standing(out)
    print(now.headline)
    if now.rows:
        print_table(_HEADER, now.rows, sys.stdout)
    if now.advice:
        print(now.advice)
    return now.exit_code


def _follow(out: str | Path, now: Standing) -> Standing:
    if not sys.stdout.isatty():  # a line for each change
        while now.exit_code == 3:
            time.sleep(_EVERY)
            before, now = now, standing(out)
            if now.headline != before.headline and now.exit_code == 3:
                print(now.headline, flush=True)
        return now
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while now.exit_code == 3:
            rows = now.rows[: max(1, console.height - 5)]
            more = len(now.rows) - len(rows)
            rest = [Text(f"and {more} more", style="dim")] if more else []
            live.update(
                Group(Text(now.headline, style="bold"), rich_table(_HEADER, rows), *rest),
                refresh=True,
            )
            time.sleep(_EVERY)
            now = standing(out)
    return now


def _row(run_dir: Path, id: str) -> tuple[str, ...]:
    try:
        job = read_job(run_dir)
    except InputError as error:
        planned = not (run_dir / "job.json").exists()
        status, said = ("queued", "") if planned else ("damaged", error.what)
        return (id, status, "", "", "", "", "", said)
    status = job_status(job)
    seconds = seconds_since(job["started"]) if status == "running" else job["seconds"]
    step, loss = _progress(run_dir) if job["attempts"] else ("", "")
    return (
        id,
        status if status in STATUSES else "damaged",
        step,
        loss,
        _duration(seconds),
        str(job["attempts"] or ""),
        "" if job["gpu"] is None else str(job["gpu"]),
        "" if status == "ok" else job["error"] or "",
    )


def _progress(run_dir: Path) -> tuple[str, str]:
    """Return steps and loss by the run's own record, the final one if it has ended."""
    try:
        info = read_json(run_dir / "run.json")
        done, final = info.get("progress") or {}, info.get("final") or {}
        step, steps = done.get("step"), done.get("steps")
        loss = final.get("loss_token", done.get("loss"))
    except (OSError, InputError, AttributeError):
        return "", ""
    of = f"{step}/{steps}" if type(step) is int and type(steps) is int else ""
    return of, f"{loss:.4f}" if isinstance(loss, int | float) else ""


def _duration(seconds: Any) -> str:
    if not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
        return ""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"
