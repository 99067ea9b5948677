"""What chance alone would give: the yardstick beside every number about new examples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

_DRAWS = 1000
_CONFIDENCE = 0.99  # of the noise bands: one report in a hundred would cry wolf


def at_least(k: int, n: int, confidence: float = 0.95) -> float:
    """Return the least share that `k` of `n` agrees with: one-sided Clopper-Pearson bound.

    Examples
    --------
    >>> round(at_least(5, 50), 3), at_least(0, 50), round(at_least(10, 10), 2)
    (0.04, 0.0, 0.74)
    """
    from scipy.stats import beta

    return float(beta.ppf(1 - confidence, k, n - k + 1)) if k else 0.0


def distance_gap(
    new: NDArray[np.floating[Any]], nearest: Floats, n_train: int
) -> tuple[float, float]:
    """Return the gap between new distances and saved quantiles, and what chance stays below.

    The Kolmogorov-Smirnov statistic against `n_train` distances of which only evenly spaced
    quantiles were kept, and Smirnov's two-sample bound at 99 %, plus half a step of those.
    """
    values = np.sort(new.astype(np.float64))
    levels = np.linspace(0, 1, len(nearest))
    # Equal quantiles (copies) are one step: below it the lowest level, above it the highest.
    steps, first = np.unique(nearest, return_index=True)
    last = len(nearest) - 1 - np.unique(nearest[::-1], return_index=True)[1]
    tolerance = 2e-6 * max(float(nearest[-1]), 1e-12)
    below = np.interp(values, steps, levels[first]), np.interp(values, steps, levels[last])
    outside = values > nearest[-1] + tolerance, values < nearest[0] - tolerance
    low, high = (np.where(outside[0], 1.0, np.where(outside[1], 0.0, b)) for b in below)
    ranks = np.arange(1, len(values) + 1) / len(values)
    gap = max(float((ranks - high).max()), float((low - ranks + 1 / len(values)).max()), 0.0)
    c = np.sqrt(-np.log((1 - _CONFIDENCE) / 2) / 2)
    noise = float(c * np.sqrt(1 / len(values) + 1 / n_train) + 0.5 / (len(nearest) - 1))
    return gap, noise


def share_gaps(new: Counts, then: Counts, seed: int) -> tuple[float, float, tuple[float, float]]:
    """Return total variation, PSI, and what both stay below 99 times in 100 by chance.

    Chance: two multinomial samples of the sizes at hand from the pooled shares.
    """
    rng = np.random.default_rng(seed)
    pooled = (new + then) / (new.sum() + then.sum())
    drawn = rng.multinomial(int(new.sum()), pooled, size=_DRAWS)
    before = rng.multinomial(int(then.sum()), pooled, size=_DRAWS)
    measures = (total_variation, stability_index)
    tv, psi = (float(measure(new, then)) for measure in measures)
    tv_noise, psi_noise = (
        float(np.quantile(measure(drawn, before), _CONFIDENCE)) for measure in measures
    )
    return tv, psi, (tv_noise, psi_noise)


def total_variation(a: Counts, b: Counts) -> Floats:
    """Return the total variation between the shares of counts (..., m)."""
    shares = (x / x.sum(axis=-1, keepdims=True) for x in (a, b))
    total: Floats = np.abs(next(shares) - next(shares)).sum(axis=-1) / 2
    return total


def stability_index(a: Counts, b: Counts) -> Floats:
    """Return the population stability index of counts (..., m): symmetric Kullback-Leibler."""
    # Half an example more everywhere: an empty domain would make the index infinite.
    s, t = ((x + 0.5) / (x + 0.5).sum(axis=-1, keepdims=True) for x in (a, b))
    total: Floats = ((s - t) * np.log(s / t)).sum(axis=-1)
    return total


def noise_of_shares(then: ArrayLike, n: int, n_reference: int) -> Floats:
    """Return the half-width of the 95 % band of a change of share by chance alone."""
    p = np.asarray(then, dtype=np.float64)
    band: Floats = 1.96 * np.sqrt(np.maximum(p * (1 - p), 1 / n / 4) * (1 / n + 1 / n_reference))
    return band
