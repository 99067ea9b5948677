"""What a comparison of runs may honestly say: rows of a table, and a headline.

A difference between two runs of one seed each is a fact about two runs, not about two
methods; with several seeds the runs are paired by seed and an interval is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rbkit.show.facts import (
    RunLike,
    domain_names,
    labels,
    ledger,
    losses,
    mixer_of,
    overhead,
    parameter,
)
from rbkit.show.style import number

BASELINES = ("Stratified", "Target", "Proportional")


@dataclass(frozen=True)
class Difference:
    """Mean paired difference of final eval losses, and the half width of its 95 % interval."""

    mean: float
    half_width: float | None
    seeds: int

    def than(self, baseline: str) -> str:
        """Say the difference in words: ``0.047 below Stratified``, and its interval."""
        side = "below" if self.mean < 0 else "above"
        said = f"{number(abs(self.mean))} {side} {baseline}"
        if self.half_width is not None:
            low, high = self.mean - self.half_width, self.mean + self.half_width
            said += f" (95 % interval {number(low)} to {number(high)})"
        return said


def rows(runs: Sequence[RunLike], baseline: str = "Stratified") -> list[dict[str, Any]]:
    """One row per run, the lowest final eval loss first, unfinished runs last."""
    table = []
    for run, name in zip(runs, labels(runs), strict=True):
        final, price = losses(run), overhead(run)
        entries = {entry["name"]: entry for entry in ledger(run)}
        base = _partner(runs, run, baseline)
        same = base is not None and base is not run and run.status == base.status == "ok"
        names = domain_names(run)
        table.append(
            {
                "run": run,
                "name": name,
                "mixer": mixer_of(run),
                "seed": parameter(run, "seed"),
                "status": run.status,
                "error": run.info.get("error"),
                "token": final.token,
                "example": final.example,
                "gap": final.token - losses(base).token  # type: ignore[operator, arg-type]
                if same and final.token is not None and losses(base).token is not None  # type: ignore[arg-type]
                else None,
                "is_baseline": mixer_of(run) == baseline,
                "worst": None if final.worst is None else float(final.by_domain[final.worst]),
                "worst_name": names[final.worst]
                if final.worst is not None and final.worst < len(names)
                else "",
                "seconds": (entries.get("step") or {}).get("seconds"),
                "overhead_flops": price.flops,
                "overhead_seconds": price.seconds,
            }
        )
    return sorted(table, key=lambda r: (r["status"] != "ok", _or_infinite(r["token"]), r["name"]))


def headline(runs: Sequence[RunLike], main: str = "RnB") -> list[str]:
    """Sentences that sum up a comparison, with the caution it needs.

    Returns
    -------
    list of str
        The result first, then what limits it. Plain text, not escaped.
    """
    done = [run for run in runs if run.status == "ok" and losses(run).token is not None]
    if not done:
        return ["No run has finished yet: there is nothing to compare."]
    mixers = sorted({mixer_of(run) for run in done})
    if main not in mixers:
        others = [m for m in mixers if m not in BASELINES]
        main = (others or mixers)[0]
    ours = [losses(run).token for run in done if mixer_of(run) == main]
    mean = float(np.mean([value for value in ours if value is not None]))
    gaps = [(b, difference(done, main, b)) for b in BASELINES if b in mixers and b != main]
    known = [(name, gap) for name, gap in gaps if gap is not None]
    result = f"{main} ended at {number(mean)} nats per token on the eval set"
    if known:
        result += ": " + " and ".join(gap.than(name) for name, gap in known)
    seeds = min((gap.seeds for _, gap in known), default=1)
    said = [f"{result}; means over {seeds} paired seeds." if seeds > 1 else f"{result}."]
    if seeds == 1 and len(mixers) > 1:
        said.append("One seed: differences are not evidence of a ranking.")
    said += _cautions(runs, done)
    return said


def difference(runs: Sequence[RunLike], mixer: str, baseline: str) -> Difference | None:
    """Paired difference of final eval loss per token, `mixer` minus `baseline`.

    Seeds that only one of the two has are left out; with two or more pairs there is a
    95 % interval by Student's t.
    """
    pairs = []
    for run in runs:
        if mixer_of(run) != mixer:
            continue
        base = _partner(runs, run, baseline, same_seed=True)
        if base is not None:
            ours, theirs = losses(run).token, losses(base).token
            if ours is not None and theirs is not None:
                pairs.append(ours - theirs)
    if not pairs:
        return None
    half = None
    if len(pairs) > 1:
        from scipy.stats import t

        error = float(np.std(pairs, ddof=1)) / math.sqrt(len(pairs))
        half = float(t.ppf(0.975, len(pairs) - 1)) * error
    return Difference(float(np.mean(pairs)), half, len(pairs))


def varying(runs: Sequence[RunLike]) -> tuple[dict[str, Any], list[str]]:
    """Return the parameters that all runs share, and the names of those that differ."""
    everything = [run.info.get("parameters") or {} for run in runs]
    names = sorted({name for values in everything for name in values})
    shared, differ = {}, []
    for name in names:
        values = [values.get(name) for values in everything]
        if all(value == values[0] for value in values):
            shared[name] = values[0]
        else:
            differ.append(name)
    return shared, differ


def _cautions(runs: Sequence[RunLike], done: Sequence[RunLike]) -> list[str]:
    said = []
    prints = {(run.info.get("corpus") or {}).get("fingerprint") for run in done}
    if len(prints) > 1:
        said.append("The runs used different corpora: their losses cannot be compared.")
    elif len({tuple(domain_names(run)) for run in done}) > 1:
        said.append("The runs used different domains: only overall losses can be compared.")
    lost = [run for run in runs if run.status not in ("ok", "running")]
    if lost:
        noun = "run" if len(lost) == 1 else "runs"
        said.append(f"{len(lost)} {noun} of {len(runs)} did not finish: see the table.")
    return said


def _partner(
    runs: Sequence[RunLike], run: RunLike, baseline: str, same_seed: bool = False
) -> RunLike | None:
    bases = [other for other in runs if mixer_of(other) == baseline]
    for base in bases:
        if parameter(base, "seed") == parameter(run, "seed"):
            return base
    return bases[0] if bases and not same_seed else None


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value
