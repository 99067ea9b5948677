"""The table of variants: means over seeds, paired differences, what was paid, how soon."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from rbkit.report.compare.level import Level, level
from rbkit.report.compare.paired import Difference, final_loss
from rbkit.report.compare.reach import Reach
from rbkit.report.compare.variants import Comparison, Variant
from rbkit.report.page.tiny import swatch
from rbkit.show.facts import overhead
from rbkit.show.spent import spent
from rbkit.show.style import mixer_colour, number


def variant_rows(
    comparison: Comparison, gaps: Mapping[str, Difference | None], soon: Mapping[str, Reach | None]
) -> list[dict[str, Any]]:
    """One dict per variant, the lowest mean final loss first, those without a run last.

    Means are over the seeds that all variants have; variants on other corpora stand below.

    Parameters
    ----------
    comparison : Comparison
    gaps : mapping of str to Difference or None
        By the label of the variant.
    soon : mapping of str to Reach or None
        How soon each variant came to its baseline's final loss, by its label.
    """
    ground = level(comparison)
    out = {variant.label for variant in ground.left_out}
    rows = [_row(variant, ground, gaps.get(variant.label), soon.get(variant.label))
            for variant in (*comparison.variants, *comparison.lost)]  # fmt: skip
    return sorted(rows, key=lambda r: (r["token"] is None, r["name"] in out, r["token"] or 0.0,
                                       r["name"]))  # fmt: skip


def _row(
    variant: Variant, ground: Level, gap: Difference | None, reach: Reach | None
) -> dict[str, Any]:
    # Where means are over the seeds that all have, so are those of the worst domain and of costs.
    runs = next((each.runs for each in ground.variants if each.label == variant.label),
                variant.runs)  # fmt: skip
    prices = [overhead(run) for run in runs]
    return {
        "name": variant.label,
        "swatch": swatch(mixer_colour(variant.mixer)),
        "seeds": len(variant.runs),
        "missing": len(variant.unfinished),
        "token": ground.loss(variant) if variant.runs else None,
        "is_baseline": bool(variant.runs) and ground.comparison.is_baseline(variant),
        "gap": None if gap is None else gap.mean,
        "interval": _interval(gap),
        "verdict": _verdict(gap),
        "worst": _mean(final_loss(run, "worst") for run in runs),
        "seconds": _mean(_seconds(run) for run in runs),
        "overhead_flops": _mean(price.flops for price in prices),
        "overhead_seconds": _mean(price.seconds for price in prices),
        **_soon(reach),
    }


def _soon(reach: Reach | None) -> dict[str, Any]:
    """Return steps and FLOPs to the baseline's final loss, as ratios, and in how many pairs."""
    if reach is None:
        return {"steps": None, "steps_shown": "–", "steps_note": "", "flops": None,
                "flops_shown": "–"}  # fmt: skip
    some = f"in {reach.reached} of {reach.pairs}" if reach.reached < reach.pairs else ""
    if reach.steps is None:
        return {"steps": None, "steps_shown": "never", "steps_note": some, "flops": None,
                "flops_shown": "–"}  # fmt: skip
    low, high = reach.steps.low, reach.steps.high
    return {
        "steps": reach.steps.mean,
        "steps_shown": number(reach.steps.mean, 2),
        "steps_note": some
        or ("" if low is None or high is None else f"{number(low, 2)} to {number(high, 2)}"),
        "flops": reach.flops and reach.flops.mean,
        "flops_shown": number(reach.flops.mean, 2) if reach.flops else "–",
    }


def _interval(gap: Difference | None) -> str:
    if gap is None or gap.low is None or gap.high is None:
        return "–"
    return f"{number(gap.low)} to {number(gap.high)}"


def _verdict(gap: Difference | None) -> str:
    if gap is None or not gap.told_apart:
        return ""
    return "better" if gap.mean < 0 else "worse"


def _seconds(run: Any) -> float | None:
    paid = spent(run, "seconds")
    return None if paid is None else paid.total


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(known)) if known else None
