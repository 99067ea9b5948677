"""Runs that did not end well: what they said last, as the page shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rbkit.report.page.kept import Kept
from rbkit.report.page.text import shown

FAILED = ("failed", "killed", "timeout", "interrupted")
WAITING = ("running", "queued")
_LINES, _WIDTH = 30, 400

# What to say of a run that could not say anything itself.
_SILENT = {
    "killed": "the process ended without a word: killed from outside, or out of memory",
    "timeout": "a cell took longer than it was given",
    "interrupted": "stopped by hand; it can be gone on with",
    "failed": "no error was recorded",
}


def failures(runs: Sequence[Kept], names: Sequence[str]) -> list[dict[str, Any]]:
    """One dict per way in which runs ended badly, the most frequent first.

    Parameters
    ----------
    runs : sequence of Kept
    names : sequence of str
        How each run is called on the page.

    Returns
    -------
    list of dict
        ``status, cell, headline``, and ``runs``: of each run that ended so ``name``,
        ``progress``, ``attempts`` and ``tail`` (text of up to 30 lines, empty if the one before
        had the same).
    """
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for run, name in zip(runs, names, strict=True):
        if run.status not in FAILED:
            continue
        job = run.job or {}
        said = [line for line in shown(_error(run)).split("\n") if line.strip()]
        headline = _cut(said[0] if said else _SILENT[run.status])
        tail = [shown(str(line)) for line in job.get("tail") or []] or said[1:]
        key = (run.status, shown(str(job.get("cell") or "")), headline)
        groups.setdefault(key, []).append(
            {
                "name": name,
                "progress": _progress(run),
                "attempts": job.get("attempts") or 1,
                "tail": "\n".join(map(_cut, tail[-_LINES:])),
            }
        )
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        {"status": status, "cell": cell, "headline": headline, "runs": _told_once(members)}
        for (status, cell, headline), members in ordered
    ]


def _told_once(members: list[dict[str, Any]]) -> list[dict[str, Any]]:
    before = ""
    for member in sorted(members, key=lambda m: str(m["name"])):
        member["tail"], before = "" if member["tail"] == before else member["tail"], member["tail"]
    return sorted(members, key=lambda m: str(m["name"]))


def unfinished(runs: Sequence[Kept]) -> str:
    """Say how many runs have not ended; empty if all have.

    Examples
    --------
    >>> unfinished([])
    ''
    """
    counts = {status: sum(run.status == status for run in runs) for status in WAITING}
    parts = [f"{count} {'is' if count == 1 else 'are'} {status}"
             for status, count in counts.items() if count]  # fmt: skip
    if not parts:
        return ""
    return f"This page is not final: of {len(runs)} runs {' and '.join(parts)}."


def _error(run: Kept) -> str:
    job = run.job or {}
    return str(job.get("error") or run.info.get("error") or "")


def _progress(run: Kept) -> str:
    progress = run.info.get("progress")
    if not isinstance(progress, dict) or not progress.get("step"):
        return ""
    step, steps = progress.get("step"), progress.get("steps")
    return f"step {step} of {steps}" if steps else f"step {step}"


def _cut(line: str) -> str:
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"
