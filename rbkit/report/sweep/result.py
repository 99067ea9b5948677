"""How a sweep ended."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SweepResult:
    """How a sweep ended: in counts, by run, and as an exit code.

    Attributes
    ----------
    out : Path
        Folder of the sweep.
    statuses : dict of str to str
        Status of each run, by id; ``queued`` if it was not begun.
    interrupted : bool
        Whether the sweep was stopped by Ctrl-C or SIGTERM.
    started : int
        Runs that this call began; the others were done before.

    Examples
    --------
    >>> result = SweepResult(Path("reports/s"), {"a": "ok", "b": "failed"})
    >>> result
    SweepResult(s: 1 ok, 1 failed)
    >>> result.exit_code
    1
    """

    out: Path
    statuses: dict[str, str]
    interrupted: bool = False
    started: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Number of runs by status."""
        return dict(Counter(self.statuses.values()))

    @property
    def exit_code(self) -> int:
        """0: all ok; 1: some are not; 130: interrupted before all were."""
        if all(status == "ok" for status in self.statuses.values()):
            return 0
        return 130 if self.interrupted else 1

    def __repr__(self) -> str:
        said = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        ended = ", interrupted" if self.interrupted else ""
        return f"SweepResult({self.out.name}: {said or 'no runs'}{ended})"
