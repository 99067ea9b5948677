"""Curves of a run at this moment, and its speed, out of the lines of its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rbkit.show.facts import Array, RunLike, as_floats

_RECENT = 20  # logged losses that speed is measured over


class Series(NamedTuple):
    """Values by optimizer step, both of shape (n,)."""

    steps: Array
    values: Array


class Pace(NamedTuple):
    """Steps and tokens per second, by the clock on the wall; None if not known."""

    steps: float | None = None
    tokens: float | None = None


def of_training(run: RunLike) -> Series:
    """Training loss per token."""
    rows = run.metrics("train")
    return _series(rows, [row.get("loss") for row in rows])


def by_evaluation(run: RunLike) -> Series:
    """Eval loss per token."""
    return of_evaluations(run.metrics("eval"))


def of_evaluations(rows: Sequence[Mapping[str, Any]]) -> Series:
    """Eval loss per token out of rows of the record."""
    return _series(rows, [row.get("loss_token") for row in rows])


def worst(run: RunLike, m: int) -> int | None:
    """Index of the domain with the highest eval loss in the last evaluation."""
    rows = run.metrics("eval")
    losses = as_floats((rows[-1].get("by_domain_token") if rows else None) or [])
    if len(losses) != m or not np.isfinite(losses).any():
        return None
    return int(np.nanargmax(losses))


def of_domain(run: RunLike, domain: int | None) -> Series:
    """Eval loss per token of one domain."""
    if domain is None:
        return _series([], [])
    rows = run.metrics("eval")
    losses = [row.get("by_domain_token") or [] for row in rows]
    return _series(rows, [row[domain] if domain < len(row) else None for row in losses])


def pace(run: RunLike) -> Pace:
    """Measure the speed of the last 20 logged losses, evaluations and all.

    Never across a resume: what was lost between checkpoint and kill took time, and left no row.
    """
    timings: Any = getattr(run, "timings", ())
    timings = timings() if callable(timings) else timings
    rows, timed = run.metrics("train"), [t for t in timings if t.get("kind") == "train"]
    n = min(len(rows), len(timed))  # a row's time may not have been written yet
    try:
        resumed = max(run.info.get("resumed_seconds") or [0.0])
        recent = range(max(0, n - 1 - _RECENT), n)
        here = [i for i in recent if timed[i]["seconds"] >= resumed]
        if len(here) < 2:
            return Pace()
        first, last = here[0], here[-1]
        seconds = timed[last]["seconds"] - timed[first]["seconds"]
        steps = rows[last]["step"] - rows[first]["step"]
        tokens = (rows[last].get("tokens") or 0) - (rows[first].get("tokens") or 0)
    except (KeyError, TypeError):  # written by somebody else
        return Pace()
    if not (seconds > 0 and steps > 0):
        return Pace()
    return Pace(steps / seconds, tokens / seconds if tokens > 0 else None)  # or not told


def progress(run: RunLike) -> tuple[int, int]:
    """Return the steps made, and those in all (0 if not known)."""
    said = run.info.get("progress") or {}
    rows = run.metrics("train")[-1:] + run.metrics("eval")[-1:]
    made = [int(row.get("step") or 0) for row in (said, *rows)]
    steps = said.get("steps") or (run.info.get("parameters") or {}).get("steps") or 0
    return max(made), int(steps)


def _series(rows: Sequence[Mapping[str, Any]], values: Sequence[float | None]) -> Series:
    steps = np.array([row.get("step", 0) for row in rows], dtype=np.float64)
    return Series(steps, as_floats(values))
