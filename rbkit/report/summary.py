"""What a comparison of runs may honestly say first: a headline with the caution it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rbkit.report.compare.baseline import BASELINES
from rbkit.report.compare.paired import Difference, difference_of, differences, multiplicity
from rbkit.report.compare.variants import Comparison, Variant, compare
from rbkit.show.facts import RunLike, losses
from rbkit.show.style import number


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
