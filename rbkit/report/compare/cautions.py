"""What limits a comparison, in sentences: missing runs, single seeds, other corpora."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rbkit.show.facts import (
    RunLike,
    pairs_by_seed,
    same_corpus,
    same_domains,
    same_machine,
    seed_of,
)

if TYPE_CHECKING:
    from rbkit.report.compare.variants import Comparison

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
    from rbkit.report.compare.level import level

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
            yield (f"Variants have runs of different seeds: means are over {some}, which all have; "
                   "a difference is over all seeds that its two variants have.")  # fmt: skip
        else:
            yield ("No seed is in all variants: means are over different seeds. They are given as "
                   "the baseline's mean plus the paired difference, where there are pairs, and "
                   "rank nothing else.")  # fmt: skip


def _machines(pairs: Sequence[tuple[RunLike, RunLike]]) -> Iterator[str]:
    if any(not same_machine(*pair) for pair in pairs):
        yield ("Some runs were timed on another machine or device than the baseline's run of their "
               "seed: their seconds cannot be compared, and cost is given in FLOPs.")  # fmt: skip


def _comparable(comparison: Comparison) -> Iterator[str]:
    pairs = [
        pair for variant in comparison.variants
        if (base := comparison.baseline_of(variant)) is not None and base is not variant
        for pair in pairs_by_seed(variant.runs, base.runs)
    ]  # fmt: skip
    if any(not same_corpus(*pair) for pair in pairs):
        yield ("Some runs used different corpora than the baseline's run of their seed: their "
               "losses cannot be compared and are left out of the differences.")  # fmt: skip
    elif any(not same_domains(*pair) for pair in pairs):
        yield "The runs used different domains: only overall losses can be compared."
    elif len(_corpora(comparison)) > 1:
        yield ("Corpora, or their splits, are not the same in all runs: final losses are compared "
               "within a seed only.")  # fmt: skip
    yield from _machines(pairs)
    tokenizers = [name for name in _TOKENIZER if name in comparison.varied]
    if tokenizers:
        yield (f"{' and '.join(tokenizers)} varied: losses per token of different tokenizers are "
               "different units; compare those per example.")  # fmt: skip
    alone = [v.label for v in comparison.variants if comparison.baseline_of(v) is None]
    if alone:
        yield f"No finished baseline has the settings of {', '.join(alone)}: no difference given."


def _corpora(comparison: Comparison) -> set[object]:
    runs = [run for variant in comparison.variants for run in variant.runs]
    prints = {(run.info.get("corpus") or {}).get("fingerprint") for run in runs}
    return prints - {None}


def _runs(n: int) -> str:
    return "run" if n == 1 else "runs"
