"""What a comparison of runs may honestly say: the result first, and the cautions it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rbkit.report.compare.paired import Difference, difference_of, differences, multiplicity
from rbkit.report.compare.variants import (
    BASELINES,
    Comparable,
    Comparison,
    Finding,
    Variant,
    comparable,
    other_tokenizers,
)
from rbkit.show.facts import Measure, measure_of, metric_names
from rbkit.text import number

_MOST = 5  # differences that get a sentence each; more are counted


def findings(comparison: Comparison, main: str = "RnB") -> list[Finding]:
    """Sum up a comparison: the result, who else ended lower, further differences, cautions.

    Parameters
    ----------
    comparison : Comparison
        Its baseline is named first.
    main : str
        Mixer that the result is about; with several variants of it, the one with the lowest
        mean loss, and a caution states that it was chosen.
    """
    if not comparison.variants:
        return [Finding("result", "No run has finished yet: there is nothing to compare.")]
    means, candidates = comparable(comparison), _candidates(comparison, main)
    subject = min(candidates, key=means.cost)
    value = comparison.measure.text(means.value(subject))
    result = f"{subject.label} ended at {value} on the eval set"
    against, further = _against_baselines(comparison, subject)
    if against:
        result += ": " + " and ".join(gap.than() for _, gap in against)
    beaten = [base for base, gap in against if gap.is_better]
    if _can_be_ranked(means, candidates):
        beaten += [each for each in candidates if each is not subject]
    result += "." + _objections(comparison, subject, beaten)
    found = [Finding("result", result, subject.label), *_best(comparison, means, subject)]
    gaps = differences(comparison)
    paired = [gap for gap in gaps.values() if gap is not None]
    if len(paired) > _MOST:
        found.append(Finding("count", _count(paired, comparison.baseline_label)))
    else:
        named = {each.about for each in found}
        for gap in sorted(paired, key=lambda gap: gap.measure.cost(gap.mean)):
            if gap.label not in named:
                found.append(Finding("difference", gap.sentence(), gap.label))
    if len(candidates) > 1 and _can_be_ranked(means, candidates):
        of = f" of {subject.mixer}" if "mixer" in comparison.varied else ""
        found.append(
            Finding(
                "caution",
                f"It has the {comparison.measure.best} mean of {len(candidates)} variants{of}: "
                "chosen after the "
                "fact, so its advantage is likely overstated.",
            )
        )
    if several := multiplicity(gaps, further):
        found.append(Finding("caution", several))
    return found + comparison.cautions()


def _candidates(comparison: Comparison, main: str) -> list[Variant]:
    """Variants that the result chooses from: of `main`, else all but the baselines, else all."""
    others = [v for v in comparison.variants if not comparison.is_baseline(v)]
    chosen = (
        [v for v in others if v.mixer == main]
        or [v for v in others if v.mixer not in BASELINES]
        or others
        or list(comparison.variants)
    )
    left_out = {variant.label for variant in comparable(comparison).left_out}
    return [variant for variant in chosen if variant.label not in left_out] or chosen


def _best(comparison: Comparison, means: Comparable, subject: Variant) -> list[Finding]:
    """Name the variant with the best loss or metric, if the result's `subject` is another."""
    ranked = [comparison.variant(each.label) for each in means.variants]
    if len(ranked) < 2 or other_tokenizers(comparison) or not _can_be_ranked(means, ranked):
        return []
    best, measure = min(ranked, key=means.cost), comparison.measure
    if not means.cost(best) < means.cost(subject):
        return []
    objections = _objections(comparison, best, [v for v in ranked if v is not best])
    value = number(means.value(best))
    text = f"The {measure.best} {measure.noun} is that of {best.label}, {value}"
    if comparison.is_baseline(best):
        return [Finding("lowest", f"{text}, a baseline.{objections}", best.label)]
    base = comparison.baseline_of(best)
    gap = base and difference_of(best, base, measure, baseline=comparison.baseline_label)
    text += f": {gap.than()}" if gap else ""
    chosen = f"It is the {measure.best} of {len(ranked)} variants: chosen after the fact, so its"
    text += f". {chosen} advantage is likely overstated.{objections}"
    return [Finding("lowest", text, best.label)]


def _objections(comparison: Comparison, praised: Variant, others: Sequence[Variant]) -> str:
    """Say which other measure finds one of `others` better than `praised`, which ended before it.

    Measures are the metrics that all finished runs of a variant recorded and, where a metric is
    what is compared by, the eval loss.
    """
    text = ""
    for measure in _other_measures(comparison):
        other = replace(comparison, measure=measure)
        means = comparable(other)
        ours = means.value(praised)
        rivals = [
            each
            for each in others
            if _recorded(measure, (praised, each)) and _can_be_ranked(means, (praised, each))
        ]
        best = min(rivals, key=means.cost, default=praised)
        if means.cost(best) < means.cost(praised):
            theirs = measure.text(means.value(best))
            text += (
                f" {measure.metric or 'The eval loss'} disagrees ({measure.better} is better): "
                f"{best.label} ended at {theirs}, {praised.label} at {number(ours)}."
            )
    return text


def _other_measures(comparison: Comparison) -> list[Measure]:
    """Return what else the runs can be compared by."""
    runs = [run for variant in comparison.variants for run in variant.runs]
    measures = [measure_of(runs, name) for name in metric_names(runs)]
    if comparison.measure.metric is not None and not _of_tokenizers(comparison):
        measures.insert(0, measure_of(runs))
    return [each for each in measures if each.metric != comparison.measure.metric]


def _of_tokenizers(comparison: Comparison) -> bool:
    return bool(other_tokenizers(replace(comparison, measure=Measure())))


def _recorded(measure: Measure, variants: Sequence[Variant]) -> bool:
    """Whether all runs have values of the same examples."""
    runs = [run for variant in variants for run in variant.runs]
    return len({str(measure.examples(run)) for run in runs}) == 1 and all(
        measure.final(run) is not None for run in runs
    )


def _can_be_ranked(means: Comparable, variants: Sequence[Variant]) -> bool:
    """Whether losses of these may be ranked: over the same seeds, or paired with one baseline."""
    left_out = {each.label for each in means.left_out}
    if any(variant.label in left_out for variant in variants):
        return False
    if means.same_seeds:
        return True
    bases = [means.comparison.baseline_of(variant) for variant in variants]
    return len({id(base) for base in bases}) == 1 and all(
        base is variant
        or (base is not None and difference_of(variant, base, means.comparison.measure) is not None)
        for variant, base in zip(variants, bases, strict=True)
    )


def _against_baselines(
    comparison: Comparison, variant: Variant
) -> tuple[list[tuple[Variant, Difference]], int]:
    """Differences from the baseline, and from the other usual baselines that are there.

    The number is of those with an interval that :func:`differences` does not count.
    """
    baselines = [comparison.baseline]
    if "mixer" in comparison.varied:
        usual = [{"mixer": name} for name in BASELINES]
        baselines += [each for each in usual if each != comparison.baseline]
    gaps: list[tuple[Variant, Difference]] = []
    further = 0
    for i, values in enumerate(baselines):
        other = replace(comparison, baseline=values)
        base = other.baseline_of(variant)
        if base is None or base is variant:
            continue
        if gap := difference_of(variant, base, comparison.measure, baseline=other.baseline_label):
            gaps.append((base, gap))
            further += i > 0 and gap.half_width is not None
    return gaps, further


def _count(gaps: list[Difference], baseline: str) -> str:
    below = sum(gap.told_apart is True and gap.mean < 0 for gap in gaps)
    above = sum(gap.told_apart is True and gap.mean > 0 for gap in gaps)
    return (
        f"Of {len(gaps)} variants, {below} ended below {baseline} with an interval that leaves "
        f"out 0, {above} above it, and {len(gaps) - below - above} are not told apart from it."
    )
