"""What a page says of its runs: rows of a table, and a headline with the caution it needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rbkit.report.compare.baseline import BASELINES
from rbkit.report.compare.paired import Difference, difference_of, differences, multiplicity
from rbkit.report.compare.variants import Comparison, Variant, compare
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


def headline(runs: Sequence[RunLike] | Comparison, main: str = "RnB") -> list[str]:
    """Sentences that sum up a comparison, with the caution it needs.

    Parameters
    ----------
    runs : sequence of Run, or Comparison
        With a comparison, its baseline is named first.
    main : str
        Mixer that the result is about; with several variants of it, the one with the lowest
        mean loss, and it is said that it was chosen.

    Returns
    -------
    list of str
        The result first, then what limits it. Plain text, not escaped.
    """
    found = runs if isinstance(runs, Comparison) else compare(runs)
    if not found.variants:
        return ["No run has finished yet: there is nothing to compare."]
    ours = _subject(found, main)
    best = min(ours, key=_mean_loss)
    result = f"{best.label} ended at {number(_mean_loss(best))} nats per token on the eval set"
    gaps = _against(found, best)
    if gaps:
        result += ": " + " and ".join(gap.than() for gap in gaps)
    said = [f"{result}."]
    if len(ours) > 1:
        among = f"{len(ours)} variants" + (f" of {best.mixer}" if _has_mixers(found) else "")
        said.append(f"It has the lowest mean of {among}: chosen after the fact, so its "
                    "advantage is likely overstated.")  # fmt: skip
    if several := multiplicity(differences(found)):
        said.append(several)
    return said + found.cautions()


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


def _subject(found: Comparison, main: str) -> list[Variant]:
    """Variants that the headline chooses from: of `main`, else all but the baselines."""
    for wanted in (
        [v for v in found.variants if v.mixer == main and not found.is_baseline(v)],
        [v for v in found.variants if v.mixer not in BASELINES and not found.is_baseline(v)],
        [v for v in found.variants if not found.is_baseline(v)],
    ):
        if wanted:
            return wanted
    return list(found.variants)


def _against(found: Comparison, variant: Variant) -> list[Difference]:
    """Differences from the baseline, and from the other usual baselines that are there."""
    baselines = [found.baseline]
    if _has_mixers(found):
        baselines += [{"mixer": name} for name in BASELINES if {"mixer": name} != found.baseline]
    gaps = []
    for values in baselines:
        held = replace(found, baseline=values)
        base = held.baseline_of(variant)
        if base is not None and base is not variant:
            gap = difference_of(variant, base, baseline=held.baseline_label)
            gaps += [] if gap is None else [gap]
    return gaps


def _has_mixers(found: Comparison) -> bool:
    return "mixer" in found.varied


def _mean_loss(variant: Variant) -> float:
    return float(np.mean([losses(run).token for run in variant.runs]))


def _partner(runs: Sequence[RunLike], run: RunLike, baseline: str) -> RunLike | None:
    bases = [other for other in runs if mixer_of(other) == baseline]
    same = (other for other in bases if parameter(other, "seed") == parameter(run, "seed"))
    return next(same, bases[0] if bases else None)


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value
