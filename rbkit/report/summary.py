"""What a comparison of runs may honestly say first: a headline with the caution it needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from rbkit.report.compare.baseline import BASELINES
from rbkit.report.compare.level import Level, level
from rbkit.report.compare.paired import Difference, difference_of, differences, multiplicity
from rbkit.report.compare.variants import Comparison, Variant, compare
from rbkit.show.facts import RunLike
from rbkit.show.style import number

LOWEST = "The lowest loss is that of"


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
        The result first, then the variant with the lowest loss if that is another, then what
        limits it. Plain text, not escaped.
    """
    found = runs if isinstance(runs, Comparison) else compare(runs)
    if not found.variants:
        return ["No run has finished yet: there is nothing to compare."]
    ground, ours = level(found), subjects(found, main)
    best = min(ours, key=lambda v: _loss(ground, v))
    result = f"{best.label} ended at {number(_loss(ground, best))} nats per token on the eval set"
    gaps, besides = _against(found, best)
    if gaps:
        result += ": " + " and ".join(gap.than() for gap in gaps)
    said = [f"{result}."]
    if len(ours) > 1 and _comparable(ground, ours):
        among = f"{len(ours)} variants" + (f" of {best.mixer}" if _has_mixers(found) else "")
        said.append(f"It has the lowest mean of {among}: chosen after the fact, so its "
                    "advantage is likely overstated.")  # fmt: skip
    said += lowest(found, best)
    if several := multiplicity(differences(found), besides):
        said.append(several)
    return said + found.cautions()


def lowest(found: Comparison, subject: Variant) -> list[str]:
    """Name the variant with the lowest loss, if the headline's `subject` is another."""
    ground = level(found)
    shown = [found.variant(each.label) for each in ground.variants]
    units = {"model", "vocab_size"} & set(found.varied)  # losses per token of other tokens
    if len(shown) < 2 or units or not _comparable(ground, shown):
        return []
    best = min(shown, key=lambda v: _loss(ground, v))
    if not _loss(ground, best) < _loss(ground, subject):
        return []
    text = f"{LOWEST} {best.label}, {number(_loss(ground, best))}"
    base = found.baseline_of(best)
    if base is not None and base is not best:
        gap = difference_of(best, base, baseline=found.baseline_label)
        text += "" if gap is None else f": {gap.than()}"
    elif found.is_baseline(best):
        return [f"{text}, a baseline."]
    return [f"{text}. It is the lowest of {len(shown)} variants: chosen after the fact, so its "
            "advantage is likely overstated."]  # fmt: skip


def _comparable(ground: Level, variants: Sequence[Variant]) -> bool:
    """Whether losses of these may be ranked: over the same seeds, or paired with one baseline."""
    if ground.is_even and not ground.left_out:
        return True
    out = {each.label for each in ground.left_out}
    bases = [ground.comparison.baseline_of(v) for v in variants]
    paired = ground.is_even or (
        len({id(base) for base in bases}) == 1
        and all(base is v or (base and difference_of(v, base))
                for v, base in zip(variants, bases, strict=True))
    )  # fmt: skip
    return paired and not any(v.label in out for v in variants)


def subjects(found: Comparison, main: str = "RnB") -> list[Variant]:
    """Variants that the headline chooses from: of `main`, else all but the baselines."""
    ours: list[Variant] = list(found.variants)
    for wanted in (
        [v for v in found.variants if v.mixer == main and not found.is_baseline(v)],
        [v for v in found.variants if v.mixer not in BASELINES and not found.is_baseline(v)],
        [v for v in found.variants if not found.is_baseline(v)],
    ):
        if wanted:
            ours = wanted
            break
    out = {each.label for each in level(found).left_out}
    return [variant for variant in ours if variant.label not in out] or ours


def _against(found: Comparison, variant: Variant) -> tuple[list[Difference], int]:
    """Differences from the baseline, and from the other usual baselines that are there.

    The number is of those with an interval that :func:`differences` does not count.
    """
    baselines = [found.baseline]
    if _has_mixers(found):
        baselines += [{"mixer": name} for name in BASELINES if {"mixer": name} != found.baseline]
    gaps, besides, first = [], 0, found
    for values in baselines:
        held = replace(found, baseline=values) if values != found.baseline else first
        base = held.baseline_of(variant)
        if base is not None and base is not variant:
            gap = difference_of(variant, base, baseline=held.baseline_label)
            gaps += [] if gap is None else [gap]
            besides += gap is not None and gap.half_width is not None and held is not first
    return gaps, besides


def _has_mixers(found: Comparison) -> bool:
    return "mixer" in found.varied


def _loss(ground: Level, variant: Variant) -> float:
    loss = ground.loss(variant)
    return math.inf if loss is None else loss
