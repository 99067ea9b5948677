"""Tables for people and for pipes: fitted to a terminal, or whole lines where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TextIO

from rbkit.report.sweep.plain import plain

_STYLES = {
    "ok": "green", "running": "cyan", "queued": "dim", "failed": "red", "killed": "red",
    "timeout": "red", "damaged": "red", "interrupted": "yellow",
}  # fmt: skip


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
    lines = _without_empty([list(header), *([plain(cell) for cell in row] for row in rows)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        said = "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        print(said.rstrip(), file=file)


def rich_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """Return a rich table; cells are text, whatever markup they seem to hold."""
    from rich.table import Table
    from rich.text import Text

    lines = _without_empty([list(header), *([plain(cell) for cell in row] for row in rows)])
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
