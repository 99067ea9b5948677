"""Paired differences of final losses: each variant against its baseline, seed by seed.

Two runs of one seed share the split of the corpus, the first weights and the order of the
domains' examples, so their difference varies less than their losses do. The interval is
Student's t on those differences; with one pair there is none.
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
    RunLike,
    losses,
    pairs_by_seed,
    parameter,
    same_corpus,
    same_domains,
)
from rbkit.show.style import number

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
            found[variant.label] = None if base is None else difference_of(
                variant, base, metric, baseline=comparison.baseline_label)  # fmt: skip
    known = {name: gap.p_value for name, gap in found.items()
             if gap is not None and gap.p_value is not None}  # fmt: skip
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
    return Difference(variant.label, variant.mixer, name, tuple(seeds), tuple(values),
                      float(np.mean(values)), half, p_value)  # fmt: skip


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
