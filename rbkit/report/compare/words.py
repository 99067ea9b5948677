"""What a comparison of runs may honestly say first: a headline with the caution it needs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rbkit.report.compare.paired import (
    Difference,
    Level,
    difference_of,
    differences,
    level,
    multiplicity,
)
from rbkit.report.compare.variants import BASELINES, Comparison, Variant, compare
from rbkit.show.facts import (
    RunLike,
    pairs_by_seed,
    same_corpus,
    same_domains,
    same_machine,
    seed_of,
)
from rbkit.text import number

# Losses per token of other tokenizers are other units.
_TOKENIZER = ("model", "vocab_size")


def cautions_of(comparison: Comparison) -> list[str]:
    """Return what a reader must know before believing the differences."""
    return [*_missing(comparison), *_seeds(comparison), *_comparable(comparison)]


def _missing(comparison: Comparison) -> Iterator[str]:
    if comparison.unfinished:
        states = Counter(
            "without an eval loss" if run.status == "ok" else run.status
            for run in comparison.unfinished
        )
        each = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        lost, total = len(comparison.unfinished), len(comparison.runs)
        have = "has" if lost == 1 else "have"
        yield f"{lost} of {total} {_runs(total)} {have} no final loss ({each}): see the table."
    if comparison.lost:
        names = ", ".join(variant.label for variant in comparison.lost)
        yield f"Nothing can be said of {names}: no run of it has finished."
    if comparison.repeated:
        n = len(comparison.repeated)
        yield f"{n} {_runs(n)} repeated a seed of the same settings: the latest was kept."


def _seeds(comparison: Comparison) -> Iterator[str]:
    from rbkit.report.compare.paired import level

    if len(comparison.variants) < 2:
        return
    counts = [len(variant.runs) for variant in comparison.variants]
    sets = {frozenset(map(seed_of, variant.runs)) for variant in comparison.variants}
    if max(counts) == 1:
        yield (
            "One seed: differences are not evidence of a ranking."
            if len(sets) == 1
            else ("One seed each, and not the same one: differences are not evidence of a ranking.")
        )
    elif min(counts) == 1:
        single = [variant.label for variant in comparison.variants if len(variant.runs) == 1]
        yield f"Only one seed, so no interval: {', '.join(single)}."
    lone = [v.label for v in comparison.variants if list(v.seeds).count(None) > 1]
    if lone:
        yield f"Several runs record no seed, so none of them is paired: {', '.join(lone)}."
    if len(sets) > 1:
        ground = level(comparison)
        if ground.seeds:
            some = (
                f"seed{'' if len(ground.seeds) == 1 else 's'} {', '.join(map(str, ground.seeds))}"
            )
            yield (
                f"Variants have runs of different seeds: means are over {some}, which all have; "
                "a difference is over all seeds that its two variants have."
            )
        else:
            yield (
                "No seed is in all variants: means are over different seeds. They are given as "
                "the baseline's mean plus the paired difference, where there are pairs, and "
                "rank nothing else."
            )


def _machines(pairs: Sequence[tuple[RunLike, RunLike]]) -> Iterator[str]:
    if any(not same_machine(*pair) for pair in pairs):
        yield (
            "Some runs were timed on another machine or device than the baseline's run of their "
            "seed: their seconds cannot be compared, and cost is given in FLOPs."
        )


def _comparable(comparison: Comparison) -> Iterator[str]:
    pairs = [
        pair
        for variant in comparison.variants
        if (base := comparison.baseline_of(variant)) is not None and base is not variant
        for pair in pairs_by_seed(variant.runs, base.runs)
    ]
    if any(not same_corpus(*pair) for pair in pairs):
        yield (
            "Some runs used different corpora than the baseline's run of their seed: their "
            "losses cannot be compared and are left out of the differences."
        )
    elif any(not same_domains(*pair) for pair in pairs):
        yield "The runs used different domains: only overall losses can be compared."
    elif len(_corpora(comparison)) > 1:
        yield (
            "Corpora, or their splits, are not the same in all runs: final losses are compared "
            "within a seed only."
        )
    yield from _machines(pairs)
    tokenizers = [name for name in _TOKENIZER if name in comparison.varied]
    if tokenizers:
        yield (
            f"{' and '.join(tokenizers)} varied: losses per token of different tokenizers are "
            "different units; compare those per example."
        )
    alone = [v.label for v in comparison.variants if comparison.baseline_of(v) is None]
    if alone:
        yield f"No finished baseline has the settings of {', '.join(alone)}: no difference given."


def _corpora(comparison: Comparison) -> set[object]:
    runs = [run for variant in comparison.variants for run in variant.runs]
    prints = {(run.info.get("corpus") or {}).get("fingerprint") for run in runs}
    return prints - {None}


def _runs(n: int) -> str:
    return "run" if n == 1 else "runs"


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
    if len(ours) > 1 and _summary_comparable(ground, ours):
        among = f"{len(ours)} variants" + (f" of {best.mixer}" if _has_mixers(found) else "")
        said.append(
            f"It has the lowest mean of {among}: chosen after the fact, so its "
            "advantage is likely overstated."
        )
    said += lowest(found, best)
    if several := multiplicity(differences(found), besides):
        said.append(several)
    return said + found.cautions()


def lowest(found: Comparison, subject: Variant) -> list[str]:
    """Name the variant with the lowest loss, if the headline's `subject` is another."""
    ground = level(found)
    shown = [found.variant(each.label) for each in ground.variants]
    units = {"model", "vocab_size"} & set(found.varied)  # losses per token of other tokens
    if len(shown) < 2 or units or not _summary_comparable(ground, shown):
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
    return [
        f"{text}. It is the lowest of {len(shown)} variants: chosen after the fact, so its "
        "advantage is likely overstated."
    ]


def _summary_comparable(ground: Level, variants: Sequence[Variant]) -> bool:
    """Whether losses of these may be ranked: over the same seeds, or paired with one baseline."""
    if ground.is_even and not ground.left_out:
        return True
    out = {each.label for each in ground.left_out}
    bases = [ground.comparison.baseline_of(v) for v in variants]
    paired = ground.is_even or (
        len({id(base) for base in bases}) == 1
        and all(
            base is v or (base and difference_of(v, base))
            for v, base in zip(variants, bases, strict=True)
        )
    )
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
