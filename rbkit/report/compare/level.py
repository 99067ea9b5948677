"""Variants on level ground: which means may be put beside each other, and over which seeds.

Seeds differ more than variants do. A mean over seeds 0 to 2 beside one over seed 0 alone
says which seeds were easy; so does one over another corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rbkit.report.compare.paired import difference_of
from rbkit.report.compare.variants import Comparison, Variant
from rbkit.show.facts import RunLike, losses, pairs_by_seed, parameter, same_corpus, seed_of


@dataclass(frozen=True)
class Level:
    """The variants of a comparison whose means can be compared.

    Attributes
    ----------
    comparison : Comparison
    variants : tuple of Variant
        With the runs of the shared seeds only, where there are shared seeds.
    seeds : tuple
        Seeds that all of `variants` have; empty if there is none.
    left_out : tuple of Variant
        Those on other corpora: their losses are of other texts.
    """

    comparison: Comparison
    variants: tuple[Variant, ...]
    seeds: tuple[Any, ...]
    left_out: tuple[Variant, ...] = ()

    @property
    def is_even(self) -> bool:
        """Whether the means of `variants` are over the same seeds."""
        return bool(self.seeds) or len(self.variants) < 2

    def loss(self, variant: Variant) -> float | None:
        """Mean final eval loss per token that may be put beside that of others.

        Over the shared seeds; without shared seeds, the mean of the baseline plus the mean
        paired difference from it, which both have no part in which seeds were easy.
        """
        own = {each.label: each for each in self.variants}.get(variant.label)
        if own is not None and self.is_even:
            return _mean(own.runs)
        base = self.comparison.baseline_of(variant)
        gap = None if base is None or base is variant else difference_of(variant, base)
        over = None if base is None or gap is None else _mean(base.runs)
        return _mean(variant.runs) if over is None or gap is None else over + gap.mean


def level(comparison: Comparison) -> Level:
    """Return the variants whose means can be compared, and over which seeds."""
    groups: list[list[Variant]] = []
    for variant in comparison.variants:
        fits = (group for group in groups if all(_fits(variant, other) for other in group))
        group = next(fits, None)
        if group is None:
            groups.append([variant])
        else:
            group.append(variant)
    together = max(groups, key=len, default=[])  # of equally many, those of the first variant
    shared = _shared(together)
    even = tuple(
        replace(variant, runs=tuple(run for run in variant.runs if seed_of(run) in shared))
        for variant in together
    )
    left_out = tuple(each for each in comparison.variants if each not in together)
    if len(together) < 2 or not shared:
        return Level(comparison, tuple(together), (), left_out)
    seeds = tuple(parameter(run, "seed") for run in even[0].runs)
    return Level(comparison, even, seeds, left_out)


def _fits(one: Variant, other: Variant) -> bool:
    """Whether two variants had the same corpora, as far as their seeds can tell."""
    pairs = pairs_by_seed(one.runs, other.runs)
    if pairs:
        return any(same_corpus(*pair) for pair in pairs)
    return bool(_corpus(one.runs[0]) == _corpus(other.runs[0]))


def _corpus(run: RunLike) -> Any:
    return (run.info.get("corpus") or {}).get("name")


def _shared(variants: Sequence[Variant]) -> set[str]:
    """Seeds that all have one run of, on the same corpus, as text."""
    if not variants:
        return set()
    first, *others = variants
    seeds = {seed_of(run) for run, _ in pairs_by_seed(first.runs, first.runs)}
    for other in others:
        seeds &= {seed_of(run) for run, base in pairs_by_seed(first.runs, other.runs)
                  if same_corpus(run, base)}  # fmt: skip
    return seeds


def _mean(runs: Sequence[RunLike]) -> float | None:
    known = [value for run in runs if (value := losses(run).token) is not None]
    return float(np.mean(known)) if known else None
