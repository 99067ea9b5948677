"""How soon each variant reached what its baseline ended with: in steps, FLOPs and seconds.

The loss is known at evaluations only, so a crossing is interpolated linearly between the
last evaluation above the target and the first at or below it. Curves are not monotone: the
*first* crossing counts, also if the loss rose again later. The baseline is measured with
the same rule (when did it first reach its own final loss?), so against itself its ratio is 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from rbkit.report.compare.variants import Comparison, Variant
from rbkit.show.facts import (
    Array,
    RunLike,
    loss_series,
    losses,
    pairs_by_seed,
    parameter,
    same_corpus,
    same_domains,
    same_machine,
    seed_of,
    spent,
)
from rbkit.text import number

Metric = Literal["token", "example", "worst"]
METRICS: dict[Metric, str] = {
    "token": "final eval loss per token",
    "example": "final eval loss per example",
    "worst": "final eval loss of the worst domain",
}

_SAME = "all {} pairs are the same: the seed changed nothing, so there is no interval"


@dataclass(frozen=True)
class Difference:
    """Paired difference of a variant from its baseline, in nats; below 0 is better.

    Attributes
    ----------
    label, mixer, baseline : str
        The variant, its mixer, and the name of the baseline.
    seeds : tuple
        Seeds that both have a finished run of.
    values : tuple of float
        Difference of each pair, by seed.
    mean : float
    half_width : float or None
        Of the 95 % interval; None with a single pair, or if all pairs are the same.
    p_value : float or None
        Two-sided, of the paired t-test; None where there is no interval.
    adjusted : float or None
        The same after Holm's correction for all comparisons that were made together.
    """

    label: str
    mixer: str
    baseline: str
    seeds: tuple[Any, ...]
    values: tuple[float, ...]
    mean: float
    half_width: float | None
    p_value: float | None
    adjusted: float | None = None

    @property
    def low(self) -> float | None:
        """Lower end of the interval."""
        return None if self.half_width is None else self.mean - self.half_width

    @property
    def high(self) -> float | None:
        """Upper end of the interval."""
        return None if self.half_width is None else self.mean + self.half_width

    @property
    def told_apart(self) -> bool | None:
        """Whether the interval leaves out 0; None without an interval."""
        if self.low is None or self.high is None:
            return None
        return self.low > 0 or self.high < 0

    def than(self, baseline: str | None = None) -> str:
        """Say the difference in words: ``0.047 below Stratified``, and its interval."""
        baseline = self.baseline if baseline is None else baseline
        digits = self._digits()
        if self.mean == 0:
            text = f"equal to {baseline}"
        else:
            side = "below" if self.mean < 0 else "above"
            text = f"{number(abs(self.mean), digits)} {side} {baseline}"
        n = len(self.values)
        if self.low is None or self.high is None:
            return f"{text} ({_SAME.format(n)})" if n > 1 else text
        low, high = number(self.low, digits), number(self.high, digits)
        text += f" (95 % interval {low} to {high}, {n} paired seeds)"
        return text if self.told_apart else f"{text}: not told apart"

    def sentence(self) -> str:
        """Say it of whom: ``RnB · k 10 ended 0.047 below Stratified``, and its interval."""
        alone = ", with one seed and so no interval" if len(self.values) == 1 else ""
        return f"{self.label} ended {self.than()}{alone}."

    def _digits(self) -> int:
        """Digits after the point: three, or more where they would all be 0."""
        sizes = [abs(v) for v in (self.mean, self.half_width) if v]
        return 3 if not sizes else max(3, min(8, 1 - math.floor(math.log10(max(sizes)))))


def differences(comparison: Comparison, metric: Metric = "token") -> dict[str, Difference | None]:
    """Difference of each variant from its baseline, in final eval loss.

    Parameters
    ----------
    comparison : Comparison
    metric : {"token", "example", "worst"}
        Loss per token, per example, or (per token) of the domain where a run is worst.

    Returns
    -------
    dict of str to Difference or None
        By the label of each variant that is not itself a baseline; None where it has no
        pair with one: other seeds, another corpus, or for ``"worst"`` other domains.
    """
    found: dict[str, Difference | None] = {}
    for variant in comparison.variants:
        if not comparison.is_baseline(variant):
            base = comparison.baseline_of(variant)
            found[variant.label] = (
                None
                if base is None
                else difference_of(variant, base, metric, baseline=comparison.baseline_label)
            )
    known = {
        name: gap.p_value
        for name, gap in found.items()
        if gap is not None and gap.p_value is not None
    }
    corrected = dict(zip(known, holm(list(known.values())), strict=True))
    return {name: gap and replace(gap, adjusted=corrected.get(name)) for name, gap in found.items()}


def difference_of(
    variant: Variant, other: Variant, metric: Metric = "token", *, baseline: str | None = None
) -> Difference | None:
    """Paired difference of two variants, `variant` minus `other`; None without a pair."""
    seeds, values = [], []
    for run, base in pairs_by_seed(variant.runs, other.runs):
        ours, theirs = final_loss(run, metric), final_loss(base, metric)
        comparable = same_corpus(run, base) and (metric != "worst" or same_domains(run, base))
        if comparable and ours is not None and theirs is not None:
            seeds.append(parameter(run, "seed"))
            values.append(ours - theirs)
    if not values:
        return None
    half, p_value = student(values)
    name = other.label if baseline is None else baseline
    return Difference(
        variant.label,
        variant.mixer,
        name,
        tuple(seeds),
        tuple(values),
        float(np.mean(values)),
        half,
        p_value,
    )


def final_loss(run: RunLike, metric: Metric) -> float | None:
    """Return the final eval loss of a run in nats, or None."""
    final = losses(run)
    if metric == "worst":
        return None if final.worst is None else float(final.by_domain[final.worst])
    return final.token if metric == "token" else final.example


def student(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Half width of the 95 % interval of a mean, and the p-value of its being 0.

    Both are None for one value, or for several that are all the same: such as when the seed
    was never used.

    Examples
    --------
    >>> half, p = student([-0.05, -0.04, -0.06])
    >>> round(half, 4), round(p, 3)
    (0.0248, 0.013)
    >>> student([0.1]), student([0.1, 0.1])
    ((None, None), (None, None))
    """
    n = len(values)
    if n < 2:
        return None, None
    from scipy.stats import t

    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(n)
    if error <= 1e-12 * max(1.0, abs(mean)):
        return None, None  # all the same: what does not vary says nothing of how it varies
    return float(t.ppf(0.975, n - 1)) * error, float(2 * t.sf(abs(mean) / error, n - 1))


def holm(p_values: ArrayLike) -> list[float]:
    """Adjust p-values for being looked at together (Holm 1979).

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return [float(value) for value in adjusted]


def multiplicity(found: Mapping[str, Difference | None], besides: int = 0) -> str:
    """Say how many comparisons were made, and what is left of them when held jointly.

    Parameters
    ----------
    found : mapping of str to Difference or None
    besides : int
        Intervals that are told of and are none of `found`: against further baselines.

    Returns
    -------
    str
        Empty if there are fewer than two intervals.
    """
    tested = [gap for gap in found.values() if gap is not None and gap.adjusted is not None]
    if len(tested) + besides < 2 or not tested:
        return ""
    apart = sum(bool(gap.told_apart) for gap in tested)
    jointly = sum(gap.adjusted < 0.05 for gap in tested if gap.adjusted is not None)
    said = (
        f"{len(tested)} comparisons, each with a 95 % interval of its own and not jointly: if no "
        f"variant differed at all, about {number(0.05 * len(tested), 1)} of them would be told "
        f"apart by chance. Told apart: {apart}; after Holm's correction still: {jointly}."
        if len(tested) > 1
        else "One comparison with the baseline."
    )
    if besides:
        said += f" The result names {besides} more, in none of these counts."
    return said


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
        seeds &= {
            seed_of(run)
            for run, base in pairs_by_seed(first.runs, other.runs)
            if same_corpus(run, base)
        }
    return seeds


def _mean(runs: Sequence[RunLike]) -> float | None:
    known = [value for run in runs if (value := losses(run).token) is not None]
    return float(np.mean(known)) if known else None


Unit = Literal["steps", "flops", "seconds"]
UNITS: tuple[Unit, ...] = ("steps", "flops", "seconds")


@dataclass(frozen=True)
class Ratio:
    """What a variant needed over what its baseline needed; below 1 is sooner.

    Attributes
    ----------
    mean : float
        Geometric mean over the pairs: half and double cancel out.
    low, high : float or None
        95 % interval (Student's t on logarithms); None with one pair, or if some pair never
        reached the target, since those that did are then the lucky ones.
    values : tuple of float
        Ratio of each pair.
    """

    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...]

    def __str__(self) -> str:
        """Write the ratio with its interval, if there is one."""
        if self.low is None or self.high is None:
            return number(self.mean, 2)
        return f"{number(self.mean, 2)} ({number(self.low, 2)} to {number(self.high, 2)})"


@dataclass(frozen=True)
class Reach:
    """Whether and when a variant reached the final loss of its baseline.

    Attributes
    ----------
    label, mixer, baseline : str
    pairs : int
        Seeds that both have, and whose baseline has an eval curve.
    reached : int
        Pairs in which the variant came as low.
    steps, flops, seconds : Ratio or None
        Over the pairs that reached it; None if there is none, or if it was not measured.
        Seconds are of pairs on one machine only.
        Without evaluation, checks, files and Regroup, which are the same for all.
    """

    label: str
    mixer: str
    baseline: str
    pairs: int
    reached: int
    steps: Ratio | None
    flops: Ratio | None
    seconds: Ratio | None

    def sentence(self) -> str:
        """Say it in words: in how many pairs, and with what share of the steps."""
        of = f"in {self.reached} of {self.pairs} {'pair' if self.pairs == 1 else 'pairs'}"
        goal = f"the final loss of {self.baseline}"
        if self.steps is None:
            return f"{self.label} did not reach {goal} ({of})."
        return f"{self.label} reached {goal} {of}, with {self.steps} of its steps."


def reach_baseline(comparison: Comparison) -> dict[str, Reach | None]:
    """When each variant first reached the final eval loss of its baseline, seed by seed.

    Returns
    -------
    dict of str to Reach or None
        By the label of each variant that is not a baseline; None where nothing can be paired.
    """
    found: dict[str, Reach | None] = {}
    for variant in comparison.variants:
        if not comparison.is_baseline(variant):
            base = comparison.baseline_of(variant)
            found[variant.label] = (
                None
                if base is None
                else reach_of(variant, base, baseline=comparison.baseline_label)
            )
    return found


def reach_of(variant: Variant, base: Variant, *, baseline: str | None = None) -> Reach | None:
    """When `variant` first reached the final loss of `base`; None without a pair."""
    ratios: dict[Unit, list[float]] = {unit: [] for unit in UNITS}
    pairs = reached = 0
    for run, other in pairs_by_seed(variant.runs, base.runs):
        goal = losses(other).token
        if goal is None or not same_corpus(run, other):
            continue
        theirs = needed(other, goal)
        if theirs is None or theirs["steps"] == 0:  # no curve, or nothing was learnt
            continue
        pairs += 1
        ours = needed(run, goal)
        if ours is None:
            continue
        reached += 1
        for unit in UNITS:
            if unit == "seconds" and not same_machine(run, other):
                continue
            mine, its = ours[unit], theirs[unit]
            if mine is not None and its:
                ratios[unit].append(mine / its)
    if not pairs:
        return None
    made = {unit: _ratio(values, pairs) for unit, values in ratios.items()}
    name = base.label if baseline is None else baseline
    return Reach(variant.label, variant.mixer, name, pairs, reached, **made)


def needed(run: RunLike, goal: float) -> dict[Unit, float | None] | None:
    """Return steps, FLOPs and seconds until a run's eval loss first was `goal`, or None."""
    steps, values = _curve(run)
    at = first_crossing(steps, values, goal)
    if at is None:
        return None
    share = at / steps[-1] if steps[-1] > 0 else 1.0
    flops, seconds = spent(run, "flops"), spent(run, "seconds")
    return {
        "steps": at,
        "flops": None if flops is None else flops.at(share),
        "seconds": None if seconds is None else seconds.at(share),
    }


def first_crossing(steps: Array, values: Array, goal: float) -> float | None:
    """Step at which a curve first is at or below `goal`, interpolated; None if it never is.

    Examples
    --------
    >>> first_crossing(np.array([0.0, 10.0, 20.0]), np.array([8.0, 4.0, 5.0]), 5.0)
    7.5
    """
    below = np.flatnonzero(values <= goal)
    if not len(below):
        return None
    i = int(below[0])
    if i == 0:
        return float(steps[0])
    share = (values[i - 1] - goal) / (values[i - 1] - values[i])
    return float(steps[i - 1] + share * (steps[i] - steps[i - 1]))


def _curve(run: RunLike) -> tuple[Array, Array]:
    """Eval curve of a run that ends with its final loss."""
    steps, values = loss_series(run, "eval")
    final = losses(run).token
    if final is None:
        return steps, values
    last = max([float(parameter(run, "steps") or 0), *steps.tolist()])
    before = steps < last
    return np.append(steps[before], last), np.append(values[before], final)


def _ratio(values: list[float], pairs: int) -> Ratio | None:
    if not values or min(values) <= 0:
        return None
    logs = np.log(values)
    mean = float(logs.mean())
    half = student(logs.tolist())[0] if len(values) == pairs else None
    low, high = (None, None) if half is None else (math.exp(mean - half), math.exp(mean + half))
    return Ratio(math.exp(mean), low, high, tuple(values))
