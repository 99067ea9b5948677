"""Paired differences from a baseline, and how soon each variant reached the baseline's loss.

Two runs of one seed share the split of the corpus, the first weights and the order of the
domains' examples, so their difference varies less than their losses do. The interval is Student's
t on those differences; with one pair there is none.

Losses are known at evaluations only, so a crossing is interpolated linearly between the last
evaluation above the goal and the first at or below it. Curves are not monotone: the *first*
crossing counts, also if the loss rose again later. The baseline is measured with the same rule
(when did it first reach its own final loss?), so against itself its ratio is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import ArrayLike

from rbkit.report.compare.variants import Comparison, Variant, paired_values
from rbkit.show.facts import (
    Array,
    Measure,
    losses,
    measure_of,
    pairs_by_seed,
    parameter,
    same_corpus,
    same_domains,
    same_machine,
    spent,
)
from rbkit.text import number
from rbkit.train.run import Run

LossKind = Literal["token", "example", "worst"]
LOSSES: tuple[LossKind, ...] = get_args(LossKind)
_LOSS = Measure()
_Result = TypeVar("_Result")


def _by_label(
    comparison: Comparison, result_of: Callable[[Variant, Variant], _Result | None]
) -> dict[str, _Result | None]:
    """Compare each variant that is not itself a baseline with its baseline."""
    results: dict[str, _Result | None] = {}
    for variant in comparison.variants:
        if not comparison.is_baseline(variant):
            base = comparison.baseline_of(variant)
            results[variant.label] = None if base is None else result_of(variant, base)
    return results


# ------------------------------------------------------------------------------ differences


@dataclass(frozen=True)
class Difference:
    """Paired difference of a variant from its baseline, in nats or of a metric.

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
    measure : Measure
        What was subtracted; of a loss, below 0 is better.
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
    measure: Measure = field(default=_LOSS, repr=False)

    @property
    def is_better(self) -> bool:
        """Whether the mean is on the better side of 0."""
        return self.measure.cost(self.mean) < 0

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
        return None if self.half_width is None else abs(self.mean) > self.half_width

    def than(self, baseline: str | None = None) -> str:
        """Write the difference in words: ``0.047 below Stratified``, and its interval."""
        baseline = self.baseline if baseline is None else baseline
        # Digits after the point: three, or more where they would all be 0.
        sizes = [abs(v) for v in (self.mean, self.half_width) if v]
        digits = max(3, min(8, 1 - math.floor(math.log10(max(sizes))))) if sizes else 3
        if self.mean == 0:
            text = f"equal to {baseline}"
        else:
            side = "below" if self.mean < 0 else "above"
            text = f"{number(abs(self.mean), digits)} {side} {baseline}"
        n = len(self.values)
        if self.low is None or self.high is None:
            same = f"all {n} pairs are the same: the seed changed nothing, so there is no interval"
            return f"{text} ({same})" if n > 1 else text
        low, high = number(self.low, digits), number(self.high, digits)
        text += f" (95 % interval {low} to {high}, {n} paired seeds)"
        return text if self.told_apart else f"{text}: not told apart"

    def sentence(self) -> str:
        """Write it as a sentence: ``RnB · k 10 ended 0.047 below Stratified``, and its interval."""
        alone = ", with one seed and so no interval" if len(self.values) == 1 else ""
        where = f"In {self.measure.metric}, " if self.measure.metric else ""
        return f"{where}{self.label} ended {self.than()}{alone}."


def differences(
    comparison: Comparison, metric: LossKind | str | None = None
) -> dict[str, Difference | None]:
    """Difference of each variant from its baseline, in final eval loss or a metric.

    Parameters
    ----------
    comparison : Comparison
    metric : {"token", "example", "worst"} or str, optional
        Loss per token, per example, or (per token) of the domain where a run is worst; or a
        metric that the runs recorded. By default what the comparison is by.

    Returns
    -------
    dict of str to Difference or None
        By the label of each variant that is not itself a baseline; None where it has no
        pair with one: other seeds, another corpus, or for ``"worst"`` other domains.
    """
    name, of = comparison.baseline_label, metric or comparison.measure
    gaps = _by_label(comparison, lambda v, base: difference_of(v, base, of, baseline=name))
    tested = {label: gap.p_value for label, gap in gaps.items() if gap and gap.p_value is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {
        label: gap and replace(gap, adjusted=adjusted.get(label)) for label, gap in gaps.items()
    }


def difference_of(
    variant: Variant,
    other: Variant,
    metric: LossKind | str | Measure = "token",
    *,
    baseline: str | None = None,
) -> Difference | None:
    """Paired difference of two variants, `variant` minus `other`; None without a pair."""
    measure = metric if isinstance(metric, Measure) else _LOSS
    value: Callable[[Run], float | None] = measure.final
    if metric == "example" or metric == "worst":
        value = partial(final_loss, kind=metric)
    elif isinstance(metric, str) and metric != "token":
        measure = measure_of([*variant.runs, *other.runs], metric)
        value = measure.final
    pairs = [
        (run, gap)
        for run, base, gap in paired_values(variant.runs, other.runs, value)
        if (metric != "worst" or same_domains(run, base))
        and measure.examples(run) == measure.examples(base)
    ]
    if not pairs:
        return None
    values = tuple(gap for _, gap in pairs)
    return Difference(
        variant.label,
        variant.mixer,
        other.label if baseline is None else baseline,
        tuple(parameter(run, "seed") for run, _ in pairs),
        values,
        float(np.mean(values)),
        *student(values),
        measure=measure,
    )


def final_loss(run: Run, kind: LossKind | str) -> float | None:
    """Return the final eval loss of a run in nats, or None."""
    final = losses(run)
    if kind == "worst":
        return None if final.worst is None else float(final.by_domain[final.worst])
    return final.token if kind == "token" else final.example


def student(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Half width of the 95 % interval of a mean, and the p-value of its being 0.

    Both are None for one value, or for several that are all the same: such as when the seed
    was never used.

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

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return [float(value) for value in adjusted]


def multiplicity(gaps: Mapping[str, Difference | None], further: int = 0) -> str:
    """State how many comparisons were made, and how many differ when held jointly.

    Parameters
    ----------
    gaps : mapping of str to Difference or None
    further : int
        Intervals that are reported and are not in `gaps`: against further baselines.

    Returns
    -------
    str
        Empty if there are fewer than two intervals.
    """
    tested = [gap for gap in gaps.values() if gap is not None and gap.adjusted is not None]
    if len(tested) + further < 2 or not tested:
        return ""
    apart = sum(bool(gap.told_apart) for gap in tested)
    jointly = sum(gap.adjusted < 0.05 for gap in tested if gap.adjusted is not None)
    text = (
        f"{len(tested)} comparisons, each with a 95 % interval of its own and not jointly: if no "
        f"variant differed at all, about {number(0.05 * len(tested), 1)} of them would be told "
        f"apart by chance. Told apart: {apart}; after Holm's correction still: {jointly}."
        if len(tested) > 1
        else "One comparison with the baseline."
    )
    return f"{text} The result names {further} more, in none of these counts." if further else text


# -------------------------------------------------------- how soon the baseline was reached

Unit = Literal["steps", "flops", "seconds"]
UNITS: tuple[Unit, ...] = ("steps", "flops", "seconds")


@dataclass(frozen=True)
class Ratio:
    """What a variant needed over what its baseline needed; below 1 is sooner.

    `mean` is the geometric mean of `values`, one for each pair: half and double cancel out.
    `low` and `high` are its 95 % interval (Student's t on logarithms); None with one pair, or if
    some pair never reached the goal, since those that did are then the lucky ones.
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
    """Whether and when a variant reached the final loss of its baseline, or its metric.

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
    measure: Measure = field(default=_LOSS, repr=False)

    def sentence(self) -> str:
        """Write it in words: in how many pairs, and with what share of the steps."""
        of = f"in {self.reached} of {self.pairs} {'pair' if self.pairs == 1 else 'pairs'}"
        goal = f"the final {self.measure.noun} of {self.baseline}"
        if self.steps is None:
            return f"{self.label} did not reach {goal} ({of})."
        return f"{self.label} reached {goal} {of}, with {self.steps} of its steps."


def reach_baseline(comparison: Comparison) -> dict[str, Reach | None]:
    """When each variant first reached its baseline's final loss, or metric, seed by seed.

    Returns
    -------
    dict of str to Reach or None
        By the label of each variant that is not a baseline; None where nothing can be paired.
    """
    name, of = comparison.baseline_label, comparison.measure
    return _by_label(comparison, lambda v, base: reach_of(v, base, baseline=name, measure=of))


def reach_of(
    variant: Variant, base: Variant, *, baseline: str | None = None, measure: Measure = _LOSS
) -> Reach | None:
    """When `variant` first reached the final loss or metric of `base`; None without a pair."""
    ratios: dict[Unit, list[float]] = {unit: [] for unit in UNITS}
    pairs = reached = 0
    for run, other in pairs_by_seed(variant.runs, base.runs):
        goal = measure.final(other)
        comparable = same_corpus(run, other) and measure.examples(run) == measure.examples(other)
        if goal is None or not comparable:
            continue
        theirs = needed(other, goal, measure)
        if theirs is None or theirs["steps"] == 0:  # no curve, or nothing was learnt
            continue
        pairs += 1
        ours = needed(run, goal, measure)
        if ours is None:
            continue
        reached += 1
        for unit in UNITS:
            mine, its = ours[unit], theirs[unit]
            timed_alike = unit != "seconds" or same_machine(run, other)
            if timed_alike and mine is not None and its:
                ratios[unit].append(mine / its)
    if not pairs:
        return None
    name = base.label if baseline is None else baseline
    means = {unit: _geometric_mean(values, pairs) for unit, values in ratios.items()}
    return Reach(variant.label, variant.mixer, name, pairs, reached, **means, measure=measure)


def needed(run: Run, goal: float, measure: Measure = _LOSS) -> dict[Unit, float | None] | None:
    """Return steps, FLOPs and seconds until a run's loss or metric first was `goal`, or None."""
    steps, values = measure.series(run)
    if (final := measure.final(run)) is not None:  # the curve ends with it
        last = max([float(parameter(run, "steps") or 0), *steps.tolist()])
        before = steps < last
        steps, values = np.append(steps[before], last), np.append(values[before], final)
    sign = -1 if measure.higher_is_better else 1
    at = first_crossing(steps, sign * values, sign * goal)
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


def _geometric_mean(values: list[float], pairs: int) -> Ratio | None:
    if not values or min(values) <= 0:
        return None
    logs = np.log(values)
    mean = float(logs.mean())
    half = student(logs.tolist())[0] if len(values) == pairs else None
    low, high = (None, None) if half is None else (math.exp(mean - half), math.exp(mean + half))
    return Ratio(math.exp(mean), low, high, tuple(values))
