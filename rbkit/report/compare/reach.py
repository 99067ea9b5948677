"""How soon each variant reached what its baseline ended with: in steps, FLOPs and seconds.

The loss is known at evaluations only, so a crossing is interpolated linearly between the
last evaluation above the target and the first at or below it. Curves are not monotone: the
*first* crossing counts, also if the loss rose again later. The baseline is measured with
the same rule (when did it first reach its own final loss?), so against itself its ratio is 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rbkit.report.compare.paired import student
from rbkit.report.compare.variants import Comparison, Variant
from rbkit.show.curves import series
from rbkit.show.facts import (
    Array,
    RunLike,
    losses,
    pairs_by_seed,
    parameter,
    same_corpus,
    same_machine,
)
from rbkit.show.spent import spent
from rbkit.show.style import number

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
            found[variant.label] = None if base is None else reach_of(
                variant, base, baseline=comparison.baseline_label)  # fmt: skip
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
    steps, values = series(run, "eval")
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
