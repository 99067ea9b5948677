"""``rbkit status``: the state of a sweep, read from its files, also while it runs."""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rbkit.errors import InputError, RbkitWarning
from rbkit.files import own, read_json
from rbkit.processes import seconds_since
from rbkit.report.sweep.folder import (
    job_status,
    launcher_of,
    read_job,
    read_sweep,
    resume_commands,
    run_ids,
)
from rbkit.text import duration, one_line

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

    A terminal gets a table of its width, long cells cut short; a pipe or a file gets
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

        Console(file=file, highlight=False).print(_rich_table(header, rows))
        return
    lines = _lines(header, rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip(), file=file)


def _rich_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    lines = _lines(header, rows)
    table = Table(box=None, pad_edge=False)
    for at, name in enumerate(lines[0]):
        # Where it is tight, names and errors give way, and numbers do not.
        width = max(len(line[at]) for line in lines)
        table.add_column(name, no_wrap=True, overflow="ellipsis", min_width=min(width, 16))
    for line in lines[1:]:  # cells are text, whatever markup they seem to hold
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in line))
    return table


def _lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[str]]:
    lines = [list(header), *([one_line(cell) for cell in row] for row in rows)]
    filled = [at for at in range(len(header)) if any(line[at] for line in lines[1:])]
    return [[line[at] for at in filled or range(len(header))] for line in lines]


_HEADER = ("run", "status", "step", "loss", "time", "attempts", "gpu", "error")
_ORDER = ("running", "failed", "killed", "timeout", "interrupted", "damaged", "queued", "ok")
_REFRESH = 2.0  # seconds


@dataclass(frozen=True)
class SweepStatus:
    """The state of a sweep: who works on it, its runs, and the commands that finish it."""

    template: str
    statuses: dict[str, str]  # by id, in the order of the sweep
    rows: list[tuple[str, ...]]  # of the table, running ones first
    launcher: str | None
    commands: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of runs by status."""
        counts = Counter(self.statuses.values())
        return {status: counts[status] for status in ("ok", *_ORDER[:-1]) if counts[status]}

    @property
    def exit_code(self) -> int:
        """0: all ok; 3: in progress; 1: some are not ok, and nobody works on them."""
        counts = self.counts
        if set(counts) <= {"ok"}:
            return 0
        return 3 if "running" in counts or ("queued" in counts and self.launcher) else 1

    @property
    def headline(self) -> str:
        """One line, such as ``90_run: 30 runs: 12 ok, 2 running, 16 queued (process 12)``."""
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        who = f" ({self.launcher})" if self.launcher else ""
        number = len(self.statuses)
        return one_line(
            f"{self.template}: {number} run{'s' * (number != 1)}: {counts or 'none'}{who}"
        )

    @property
    def advice(self) -> str:
        """How to resume a sweep that has stopped; empty if there is nothing to do."""
        if self.exit_code != 1:
            return ""
        left = len(self.statuses) - self.counts.get("ok", 0)
        they = "run is" if left == 1 else "runs are"
        advice = f"Nobody works on it; {left} {they} not ok. Resume with:"
        if len(self.commands) == 1:
            return one_line(f"{advice} {self.commands[0]}")
        return "\n  ".join(map(one_line, (advice, *self.commands)))


def sweep_status(out: str | Path) -> SweepStatus:
    """Read the state of the sweep in the folder `out`."""
    out = Path(out)
    try:
        info = read_sweep(out)
    except InputError as error:
        if not (ids := run_ids(out)):
            raise
        # Its list is lost; the runs are there.
        message = f"{error}; its runs are taken by name"
        warnings.warn(message, RbkitWarning, stacklevel=2)
        info = {"template": out.resolve().name, "jobs": ids, "calls": [], "command": "?"}
    by_id = {id: _row(out, id) for id in info["jobs"]}
    rows = sorted(by_id.values(), key=lambda row: _ORDER.index(row[1]))  # stable: order of the grid
    statuses = {id: row[1] for id, row in by_id.items()}
    return SweepStatus(
        Path(info["template"]).stem,
        statuses,
        rows,
        launcher_of(out, info),
        tuple(resume_commands(info, statuses)),
    )


def print_status(out: str | Path, watch: bool = False) -> int:
    """Print the state of a sweep; with `watch`, until nothing runs any more or Ctrl-C.

    Returns
    -------
    int
        0: all runs are ok; 1: some are not, and nothing runs; 3: it still runs.

    Raises
    ------
    InputError
        There is no sweep.
    """
    status = sweep_status(out)
    if watch and status.exit_code == 3:
        try:
            status = _follow(out, status)
        except KeyboardInterrupt:
            status = sweep_status(out)
    print(status.headline)
    if status.rows:
        print_table(_HEADER, status.rows, sys.stdout)
    if status.advice:
        print(status.advice)
    return status.exit_code


def _follow(out: str | Path, status: SweepStatus) -> SweepStatus:
    if not sys.stdout.isatty():  # a line for each change
        while status.exit_code == 3:
            time.sleep(_REFRESH)
            before, status = status, sweep_status(out)
            if status.headline != before.headline and status.exit_code == 3:
                print(status.headline, flush=True)
        return status
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while status.exit_code == 3:
            rows = status.rows[: max(1, console.height - 5)]
            more = len(status.rows) - len(rows)
            rest = [Text(f"and {more} more", style="dim")] if more else []
            live.update(
                Group(Text(status.headline, style="bold"), _rich_table(_HEADER, rows), *rest),
                refresh=True,
            )
            time.sleep(_REFRESH)
            status = sweep_status(out)
    return status


def _row(out: Path, id: str) -> tuple[str, ...]:
    run_dir = out / "runs" / id
    try:
        job = read_job(own(out, f"runs/{id}"))
    except InputError as error:
        planned = not (run_dir / "job.json").exists()
        status, why = ("queued", "") if planned else ("damaged", error.what)
        return (id, status, "", "", "", "", "", why)
    status = job_status(job, run_dir)
    seconds = seconds_since(job["started"]) if status == "running" else job["seconds"]
    step, loss = _progress(run_dir) if job["attempts"] else ("", "")
    return (
        id,
        status,
        step,
        loss,
        duration(seconds) if isinstance(seconds, int | float) and 0 <= seconds < 1e9 else "",
        str(job["attempts"] or ""),
        "" if job["gpu"] is None else str(job["gpu"]),
        "" if status == "ok" else job["error"] or "",
    )


def _progress(run_dir: Path) -> tuple[str, str]:
    """Return steps and loss by the run's own record, the final one if it has ended."""
    try:
        info = read_json(own(run_dir, "run.json"))
        progress, final = info.get("progress") or {}, info.get("final") or {}
        step, steps = progress.get("step"), progress.get("steps")
        loss = final.get("loss_token", progress.get("loss"))
        of = f"{step}/{steps}" if type(step) is int and type(steps) is int else ""
        return of, f"{loss:.4f}" if isinstance(loss, int | float) else ""
    except (OSError, InputError, AttributeError, OverflowError, ValueError):  # 10**400
        return "", ""
